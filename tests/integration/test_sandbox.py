"""The server that stands in for a host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from remote_tools.errors import PermissionDenied, SoftwareError
from remote_tools.setup import processes
from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox

SandboxMaker = Callable[..., Sandbox]


def ssh(config: Path, command: str, *options: str, alias: str = "sandbox") -> str:
    words = ["ssh", "-n", "-F", str(config), *options, alias, command]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def start(server: Sandbox, *words: str) -> subprocess.Popen[bytes]:
    """Start ssh with every stream on /dev/null: a master keeps those that it is given."""
    null = subprocess.DEVNULL
    return subprocess.Popen(["ssh", "-F", server.ssh_config, *words], stdin=null, stdout=null, stderr=null)


def test_a_command_runs_in_the_sandbox_home_whatever_the_account_has(sandbox: Sandbox) -> None:
    home = str(sandbox.home)
    assert f"{home}\n{home}\n{home}/x\n" == ssh(sandbox.ssh_config, 'pwd; echo "$HOME"; echo ~/x')


def test_nothing_of_the_users_environment_gets_in(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    names = {line.partition("=")[0] for line in ssh(sandbox.ssh_config, "env").splitlines()}
    assert set() == {name for name in names if name.startswith(("XDG_", "PYTEST_", "SSH_ORIGINAL"))}


def test_the_commands_words_arrive_as_typed(sandbox: Sandbox) -> None:
    assert "a  b|$x|*\n" == ssh(sandbox.ssh_config, "printf '%s|%s|%s\\n' 'a  b' '$x' '*'")


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -9 $$", 255)])
def test_the_commands_end_arrives(sandbox: Sandbox, command: str, code: int) -> None:
    assert code == start(sandbox, "sandbox", command).wait()


def test_relative_paths_of_rsync_and_sftp_lie_in_the_sandbox_home(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "a file"
    source.write_text("content")
    shell = f"ssh -F '{sandbox.ssh_config}'"
    subprocess.run(["rsync", "-e", shell, source, "sandbox:by-rsync"], check=True)
    subprocess.run(["scp", "-q", "-F", sandbox.ssh_config, source, "sandbox:by-sftp"], check=True)
    assert ["content"] * 2 == [(sandbox.home / name).read_text() for name in ("by-rsync", "by-sftp")]


def test_a_folder_with_odd_characters_serves_as_well(tmp_path: Path) -> None:
    root = tmp_path / "a \"b\" 'c' 100% é"
    try:
        server = servers.up(root)
        assert f"{root}/home\n" == ssh(server.ssh_config, "pwd")
        assert server == servers.status(root)
    finally:
        assert servers.down(root)


def test_a_second_up_finds_the_running_server(sandbox: Sandbox) -> None:
    assert sandbox == servers.up(sandbox.root)
    assert sandbox == servers.status(sandbox.root)


def test_two_ups_at_once_make_one_server(tmp_path: Path) -> None:
    code = "import pathlib, sys, remote_tools.setup.sandbox as s; print(s.up(pathlib.Path(sys.argv[1])).pid)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    pids = {each.communicate()[0] for each in both}
    assert servers.down(tmp_path)
    assert 1 == len(pids)


def test_a_server_that_died_is_replaced_and_its_key_kept(make_sandbox: SandboxMaker) -> None:
    first = make_sandbox()
    key = first.identity.read_bytes()
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert servers.status(first.root) is None
    second = servers.up(first.root, port=first.port)
    assert (first.port, key) == (second.port, second.identity.read_bytes())
    assert "hello\n" == ssh(second.ssh_config, "echo hello")


def test_another_process_with_the_old_number_is_not_taken_for_it(make_sandbox: SandboxMaker) -> None:
    server = make_sandbox()
    assert servers.down(server.root)
    record = {"pid": os.getpid(), "port": server.port, "started_s": 1.0}
    (server.root / "running.json").write_text(json.dumps(record))
    assert servers.status(server.root) is None
    assert not servers.down(server.root)


@pytest.mark.parametrize(
    "content", ["", "[" * 100_000, "[]", "{}", '{"pid": -1, "port": 1, "started_s": 1}', '{"pid": 1e400}']
)
def test_a_damaged_record_of_the_server_counts_as_missing(tmp_path: Path, content: str) -> None:
    (tmp_path / "running.json").write_text(content)
    assert servers.status(tmp_path) is None


def test_no_link_in_its_folder_is_followed_for_writing(tmp_path: Path) -> None:
    root, precious = tmp_path / "host", tmp_path / "precious"
    root.mkdir(mode=0o777)
    precious.write_text("mine")
    for name in ("enter", "sshd_config", "known_hosts", "ssh_config", "authorized_keys", "running.json"):
        (root / name).symlink_to(precious)
    try:
        server = servers.up(root)
        assert "hello\n" == ssh(server.ssh_config, "echo hello")
    finally:
        servers.down(root)
    assert ("mine", 0o700) == (precious.read_text(), root.stat().st_mode & 0o777)


def test_a_folder_of_anothers_making_holds_no_server(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "host").symlink_to("elsewhere")
    with pytest.raises(PermissionDenied):
        servers.up(tmp_path / "host")
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert (None, []) == (processes.started(child.pid), processes.stop([psutil.Process(child.pid)], 1))


def test_down_leaves_nothing_running_and_keeps_the_log(make_sandbox: SandboxMaker) -> None:
    server = make_sandbox()
    master = f"-oControlPath={server.root}/master"
    start(server, master, "-M", "-fN", "sandbox").wait()
    session = start(server, master, "sandbox", "trap '' TERM; sleep 600")
    orphan = int(ssh(server.ssh_config, "setsid sleep 600 >/dev/null 2>&1 & echo $!"))

    assert servers.down(server.root)

    session.wait()
    left = processes.marked(servers.MARK, str(server.root))
    assert ([], None, None) == (left, processes.started(orphan), servers.status(server.root))
    assert not (server.root / "master").exists()
    assert "Server listening" in server.log.read_text()
    assert not servers.down(server.root)


def test_a_master_elsewhere_ends_with_the_server(make_sandbox: SandboxMaker, tmp_path: Path) -> None:
    server = make_sandbox()
    master = start(server, f"-oControlPath={tmp_path}/master", "-M", "-N", "sandbox")
    while not (tmp_path / "master").exists():
        time.sleep(0.01)
    servers.down(server.root)
    assert 255 == master.wait()


def test_a_tests_own_server_lines_come_first(make_sandbox: SandboxMaker) -> None:
    server = make_sandbox("AcceptEnv GREETING", "MaxSessions 1")
    assert "hello\n" == ssh(server.ssh_config, "echo $GREETING", "-o", "SetEnv=GREETING=hello")


def test_a_line_that_sshd_refuses_is_shown(make_sandbox: SandboxMaker) -> None:
    with pytest.raises(SoftwareError, match="NoSuchKeyword"):
        make_sandbox("NoSuchKeyword yes")


def test_other_aliases_lead_there_too(sandbox: Sandbox, ssh_config: Callable[..., Path]) -> None:
    config = ssh_config(sandbox, trn1={"ServerAliveInterval": 5}, inner={"ProxyJump": "sandbox"})
    answers = [ssh(config, "pwd", alias=alias) for alias in ("sandbox", "trn1", "inner")]
    assert [f"{sandbox.home}\n"] * 3 == answers
