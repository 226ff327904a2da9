"""`inv doctor` before hosts that are broken in one way each: named, with its code and what mends it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop, SandboxMaker

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def shared(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> Laptop:
    """Give a project whose host is the session's server."""
    laptop = make_laptop(sandbox)
    laptop.env["INVOKE_REMOTE_CODE_PATH"] = f"~/{laptop.root.parent.name}"
    return laptop


@pytest.fixture
def behind(make_laptop: Callable[[Sandbox], Laptop], make_sandbox: SandboxMaker) -> Callable[..., Laptop]:
    """Give a project whose host is a server with lines of sshd_config(5) of its own."""
    return lambda *lines: make_laptop(make_sandbox(*lines))


def diagnose(laptop: Laptop, *words: str, **env: str) -> tuple[int, Rows]:
    """Return the doctor's exit code and its findings by name."""
    done = laptop.inv("doctor", "--json", *words, **env)
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)}


def found(rows: Rows, name: str) -> tuple[str, int, str, str]:
    """Return a finding's state, code, what was seen, and what mends it."""
    row = rows.get(name, {"state": "missing", "code": -1, "seen": f"only {list(rows)}", "hint": ""})
    return row["state"], row["code"], row["seen"], row["hint"]


def assert_broken(laptop: Laptop, name: str, code: int, seen: str, hint: str, **env: str) -> None:
    """Hold that one capability is missing: a failure where a run would end with `code`, else a warning."""
    ended, rows = diagnose(laptop, **env)

    state, its_code, saw, mends = found(rows, name)
    assert ("failure" if code else "warning", code, code) == (state, its_code, ended), rows
    assert (True, True) == (seen in saw, hint in mends), (saw, mends)
    assert [name] == [row["name"] for row in rows.values() if row["state"] != "ok"]


def ssh(laptop: Laptop, *options: str) -> dict[str, str]:
    """Return the variable that gives ssh options, after the host's own configuration."""
    return {"INVOKE_REMOTE_SSH_OPTIONS": " ".join(["-F", str(laptop.host.ssh_config), *options])}


# Well -------------------------------------------------------------------------------------------------------


def venv_made_from(laptop: Laptop, lock: str) -> dict[str, str]:
    """Make a virtual environment as `inv provision` leaves one; return the variable that names it."""
    venv = laptop.root.parent / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "bin" / "python").chmod(0o700)
    mark = {"files": {"requirements.lock": hashlib.sha256(lock.encode()).hexdigest()}}
    (venv / ".remote-provision.json").write_text(json.dumps(mark))
    return {"INVOKE_REMOTE_VENV_PATH": str(venv)}


def test_a_host_that_is_well_passes_every_check(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    laptop.write("requirements.lock", "# one\n")
    (laptop.there / "autotune").mkdir(parents=True)
    (laptop.there / "autotune" / "__init__.py").touch()

    code, rows = diagnose(laptop, "--strict", **venv_made_from(laptop, "# one\n"))

    assert [
        "rsync here", "ssh config", "name", "port", "connection", "host key", "authentication", "shell",
        "shared master", "round trip", "rsync there", "code path", "disk", "state", "transfer",
        "python", "lock", "autotune", "compiler", "accelerator", "clock", "cache root", "runs",
        "device lock", "logout",
    ] == list(rows)  # fmt: skip
    assert (0, {"ok"}) == (code, {row["state"] for row in rows.values()}), rows


def test_a_warning_ends_with_1_where_that_is_asked_for(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    (laptop.there / "autotune").mkdir(parents=True)

    code, rows = diagnose(laptop, "--strict")

    assert (1, "warning") == (code, rows["autotune"]["state"])
    assert "inv provision, with extras: [autotune]" == rows["autotune"]["hint"]


def test_each_line_is_for_people_and_the_last_one_sums_up(shared: Laptop) -> None:
    done = shared.inv("doctor", INVOKE_REMOTE_VENV_PATH="/no/venv", INVOKE_REMOTE_CODE_PATH="~")

    lines = done.stdout.splitlines()
    assert "ok      host key       ssh-ed25519 SHA256:" in done.stdout
    (failure,) = [number for number, line in enumerate(lines) if line.startswith("failure")]
    assert "failure python         no virtual environment at /no/venv" in lines[failure]
    assert "next: sandbox says: inv provision" == lines[failure + 1].strip()
    assert lines[-1].endswith("warnings: 0, failures: 1; a run would end with 69: python")
    assert 69 == done.returncode


# On the way -------------------------------------------------------------------------------------------------


def test_an_option_that_ssh_does_not_know(shared: Laptop) -> None:
    env = ssh(shared, "-o", "NoSuchOption=1")

    assert_broken(shared, "ssh config", 78, "nosuchoption", "man ssh_config", **env)


def test_a_name_that_nobody_knows(shared: Laptop) -> None:
    env = ssh(shared, "-o", "HostName=nowhere.invalid")

    assert_broken(shared, "name", 68, "nowhere.invalid: ", "correct HostName", **env)


def test_a_port_that_is_closed(shared: Laptop) -> None:
    assert_broken(shared, "port", 68, "port 1: Connection refused", "its sshd runs", **ssh(shared, "-p", "1"))


@pytest.fixture
def mail_server() -> Iterator[int]:
    """Give the port of a server that is none of ssh's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with contextlib.suppress(OSError):
                listener.accept()[0].sendall(b"220 mail ready\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_port_of_another_service(shared: Laptop, mail_server: int) -> None:
    env = ssh(shared, "-p", str(mail_server))

    assert_broken(shared, "port", 68, "is not an ssh server: '220 mail ready'", "correct Port", **env)


def test_a_jump_host_that_is_not_there(shared: Laptop) -> None:
    env = ssh(shared, "-J", "jump.invalid")

    assert_broken(shared, "connection", 68, "Could not resolve hostname jump.invalid", "~/.ssh/config", **env)


def test_a_host_key_that_nobody_has_seen(shared: Laptop) -> None:
    env = ssh(shared, "-o", "UserKnownHostsFile=/dev/null")

    assert_broken(shared, "host key", 77, "host key is known", "compare the fingerprint", **env)


def test_a_host_key_that_changed(shared: Laptop, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{shared.host.port} {(tmp_path / 'other.pub').read_text()}")
    env = ssh(shared, "-o", f"UserKnownHostsFile={known}")

    assert_broken(shared, "host key", 77, "REMOTE HOST IDENTIFICATION HAS CHANGED", "ssh-keygen -R", **env)


def test_a_key_that_is_refused(shared: Laptop, tmp_path: Path) -> None:
    (shared.host.root / "nobodys_keys").touch()
    host = servers.up(tmp_path / "host", [f"AuthorizedKeysFile {shared.host.root}/nobodys_keys"])
    try:
        env = {"INVOKE_REMOTE_SSH_OPTIONS": f"-F {host.ssh_config}"}
        assert_broken(shared, "authentication", 77, "Permission denied (publickey)", "ssh-add -l", **env)
    finally:
        servers.down(host.root)


# The account ------------------------------------------------------------------------------------------------

ENTER = 'cd; exec $SHELL -c "$SSH_ORIGINAL_COMMAND"'


def test_a_login_shell_that_runs_nothing(behind: Callable[..., Laptop]) -> None:
    assert_broken(behind("ForceCommand /bin/false"), "shell", 69, "exit code 1", "login shell")


def test_a_start_up_file_that_talks(behind: Callable[..., Laptop]) -> None:
    laptop = behind(f"ForceCommand echo Welcome to trn1; {ENTER}")

    assert_broken(laptop, "shell", 0, "'Welcome to trn1'", "~/.bashrc")


def test_a_server_of_one_session(behind: Callable[..., Laptop]) -> None:
    assert_broken(behind("MaxSessions 1"), "shared master", 0, "one session at a time", "MaxSessions")


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., str]:
    """Make a folder with only some of this machine's programs; return the line that makes it all of PATH."""

    def make(*programs: str) -> str:
        (tmp_path / "bin").mkdir()
        for program in programs:
            real = shutil.which(program, path=os.defpath)
            assert real is not None, program
            (tmp_path / "bin" / program).symlink_to(Path(real).resolve())
        return f"ForceCommand PATH={tmp_path}/bin; {ENTER}"

    return make


def test_a_host_without_python(behind: Callable[..., Laptop], bare: Callable[..., str]) -> None:
    assert_broken(behind(bare("cat")), "host program", 69, "no python3", "install Python 3.8")


def test_a_host_without_rsync_and_compiler(behind: Callable[..., Laptop], bare: Callable[..., str]) -> None:
    code, rows = diagnose(behind(bare("cat", "python3", "apt-get")))

    assert (69, ("failure", 69, "no rsync", "sudo apt-get install rsync")) == (
        code,
        found(rows, "rsync there"),
    )
    compiler = ("warning", 0, "no cc, gcc or clang", "backend c needs one: sudo apt-get install gcc")
    assert compiler == found(rows, "compiler")


# Paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "name", "code", "seen", "hint"),
    [
        ("CODE_PATH", "/proc/1/project", "code path", 77, "/proc/1: ", "correct code_path"),
        ("CODE_PATH", "/etc/passwd/project", "code path", 74, "no folder /etc/passwd", "inv provision"),
        ("VENV_PATH", "~/no venv", "python", 69, "no virtual environment at ~/no venv", "inv provision"),
        ("PYTHON", "python9", "python", 69, "no python9", "inv config"),
        ("CACHE_DIR", "/proc/1/cache", "cache root", 77, "/proc/1: ", "correct cache_dir"),
    ],
)
def test_a_path_that_a_run_cannot_use(
    shared: Laptop, setting: str, value: str, name: str, code: int, seen: str, hint: str
) -> None:
    assert_broken(shared, name, code, seen, hint, **{f"INVOKE_REMOTE_{setting}": value})


@pytest.fixture
def make_mount() -> Iterator[Callable[[Path, str], None]]:
    """Mount file systems of their own; skip if nobody may."""
    mounted = []

    def make(folder: Path, options: str) -> None:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "it", str(folder)]).returncode:
            pytest.skip("nobody may mount here")
        mounted.append(folder)

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, make_mount: Callable[[Path, str], None]) -> Path:
    """Give a file system of its own that has room for little."""
    folder = tmp_path / "small"
    folder.mkdir()
    make_mount(folder, "size=64k,nr_inodes=50")
    return folder


def test_a_disk_that_is_nearly_full(shared: Laptop, small_disk: Path) -> None:
    env = {"INVOKE_REMOTE_CODE_PATH": f"{small_disk}/project"}

    assert_broken(shared, "disk", 0, "0.0 GB free, 49 inodes", "make room", **env)


def test_a_disk_that_is_full(shared: Laptop, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 100_000)

    code, rows = diagnose(shared, INVOKE_REMOTE_CODE_PATH=f"{small_disk}/project")

    seen = f"{small_disk}: No space left on device"
    assert (74, ("failure", 74, seen)) == (code, found(rows, "code path")[:3])


# What was there before --------------------------------------------------------------------------------------


def test_a_venv_that_was_made_from_another_lock(shared: Laptop) -> None:
    shared.write("requirements.lock", "# two\n")
    env = venv_made_from(shared, "# one\n")

    assert_broken(shared, "lock", 0, "from another requirements.lock", "inv provision", **env)


def test_a_run_whose_supervisor_was_killed(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    laptop.there.mkdir()
    assert 0 == laptop.inv("exec", "--detach", "--", "sleep", "60").returncode
    (path,) = laptop.host.home.glob(".cache/remote-tools/*/runs/*/run.json")
    os.kill(json.loads(path.read_text())["owner"][0], signal.SIGKILL)

    assert_broken(laptop, "runs", 0, f"1 lost, the last is {path.parent.name}", "inv runs.kill")


def hold(host: Sandbox, pid: int) -> int:
    """Take the accelerator's lock as a run of ann's would; return the open file."""
    fd = os.open(host.root / "device.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    holder = {"for": "ann@laptop", "run": "gemm-1", "user": "ubuntu", "pid": pid, "since": 0}
    os.write(fd, json.dumps(holder).encode())
    return fd


def test_an_accelerator_in_use_is_no_fault(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    fd = hold(laptop.host, os.getpid())

    code, rows = diagnose(laptop)

    os.close(fd)
    assert (0, "ok", True) == (
        code,
        rows["device lock"]["state"],
        "by ann@laptop" in found(rows, "device lock")[2],
    )


def test_a_lock_that_outlived_its_run(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    fd = hold(laptop.host, 2**22 + 1)  # above the greatest number of a process (proc_sys_kernel(5), pid_max)

    assert_broken(laptop, "device lock", 0, "gemm-1 of ann@laptop left running", "inv runs.kill gemm-1")
    os.close(fd)


def test_a_lock_that_cannot_be_taken(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    (laptop.host.root / "device.lock").symlink_to("/dev/null")
    env = {"INVOKE_REMOTE_DEVICE_LOCK": "true"}

    assert_broken(laptop, "device lock", 69, "device.lock", f"remove {laptop.host.root}/device.lock", **env)


# What a run needs, tried as a run does it -------------------------------------------------------------------


def test_a_state_folder_that_is_full(shared: Laptop, small_disk: Path) -> None:
    env = {"INVOKE_REMOTE_STATE_PATH": f"{small_disk}/state"}
    (small_disk / "state").mkdir()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 100_000)

    code, rows = diagnose(shared, **env)
    ran = shared.inv("exec", "--", "true", **env)

    assert (74, 74) == (code, ran.returncode)
    assert "state_path" in ran.stderr
    assert ["host program"] == [name for name, row in rows.items() if row["state"] == "failure"]


def test_a_state_folder_that_fills_up_later(
    shared: Laptop, tmp_path: Path, make_mount: Callable[[Path, str], None]
) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    make_mount(folder, "size=1m")
    env = {"INVOKE_REMOTE_STATE_PATH": f"{folder}/state"}
    assert 0 == shared.inv("sync", **env).returncode
    with pytest.raises(OSError, match="No space left"):
        (folder / "filler").write_bytes(b"x" * 2_000_000)

    code, rows = diagnose(shared, **env)

    assert (74, "failure", True) == (
        code,
        rows["state"]["state"],
        f"on {folder}: No space" in rows["state"]["seen"],
    )
    assert "state_path" in rows["state"]["hint"]


def test_an_rsync_that_only_tells_its_version(behind: Callable[..., Laptop], tmp_path: Path) -> None:
    rsync = tmp_path / "bin" / "rsync"
    rsync.parent.mkdir()
    real = shutil.which("rsync")
    rsync.write_text(
        f'#!/bin/sh\ncase "$*" in *--server*) echo no libpopt >&2; exit 1;; *) exec {real} "$@";; esac\n'
    )
    rsync.chmod(0o700)
    laptop = behind(f"ForceCommand PATH={rsync.parent}:$PATH; {ENTER}")
    (laptop.root / "data.bin").write_bytes(b"x" * 300_000)

    code, rows = diagnose(laptop)

    assert (69, "failure") == (code, rows["transfer"]["state"]), rows
    assert 69 == laptop.inv("sync").returncode


@pytest.fixture
def ends_sessions(behind: Callable[..., Laptop]) -> Laptop:
    """Give a host that ends all that a session left, by a process namespace for each."""
    unshare = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("nobody may make namespaces here")
    laptop = behind()
    enter = laptop.host.root / "enter"
    shell = " ".join(unshare)
    enter.write_text(enter.read_text().replace('exec "$SHELL" -c', f'exec {shell} "$SHELL" -c'))
    return laptop


def test_a_host_that_ends_what_a_session_left(ends_sessions: Laptop) -> None:
    ends_sessions.there.mkdir()

    assert_broken(ends_sessions, "logout", 0, "ends at logout", "loginctl enable-linger")
    begun = ends_sessions.inv("exec", "--detach", "--", "sleep", "60")
    lost = ends_sessions.inv("runs.attach")

    assert (0, True) == (begun.returncode, "loginctl enable-linger" in begun.stderr), begun.stderr
    assert (70, True) == (lost.returncode, "logout" in lost.stderr), lost.stderr


def test_a_detached_run_on_a_good_host_has_no_warning(behind: Callable[..., Laptop]) -> None:
    laptop = behind()
    laptop.there.mkdir()

    begun = [laptop.inv("exec", "--detach", "--", "true") for _ in range(2)]

    assert [(0, 1)] * 2 == [(each.returncode, len(each.stderr.splitlines())) for each in begun], begun
