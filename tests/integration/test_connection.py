"""Fabric's API over the user's own OpenSSH, against a real sshd."""

from __future__ import annotations

import ast
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from invoke.exceptions import UnexpectedExit

from remote_tools.errors import NoHostError, PermissionDenied, TransferError, UsageError
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.connection import Connection, ThreadingGroup
from tests.integration.conftest import SandboxMaker

QUIET = {"hide": True, "in_stream": False}
UMASK = os.umask(0o022)
os.umask(UMASK)


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep control sockets in a folder of the test's own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@pytest.fixture
def connect(sandbox: Sandbox) -> Iterator[Callable[..., Connection]]:
    """Make Connections to the session's server; their masters are closed at the end."""
    made = []

    def make(host: str = sandbox.host_alias, *options: str) -> Connection:
        made.append(Connection(host, ssh_options=("-F", str(sandbox.ssh_config), *options)))
        return made[-1]

    yield make
    for connection in made:
        connection.master.close()


@pytest.fixture
def c(connect: Callable[..., Connection]) -> Connection:
    """Give a Connection to the session's server."""
    return connect()


def test_run_returns_output_errors_and_exit_code_apart(c: Connection) -> None:
    result = c.run("echo out; echo err >&2; exit 3", warn=True, **QUIET)

    assert ("out\n", "err\n", 3, c) == (result.stdout, result.stderr, result.exited, result.connection)


def test_a_failure_raises_unless_it_was_to_be_a_warning(c: Connection) -> None:
    with pytest.raises(UnexpectedExit) as raised:
        c.run("exit 7", **QUIET)

    assert 7 == raised.value.result.exited


def test_output_is_shown_unless_it_is_hidden(c: Connection, capfd: pytest.CaptureFixture[str]) -> None:
    c.run("echo shown", in_stream=False)
    c.run("echo hidden", **QUIET)

    assert ("shown\n", "") == capfd.readouterr()


def test_cd_and_prefix_nest(c: Connection) -> None:
    c.run("mkdir -p 'a b/c'", **QUIET)
    with c.cd("a b"), c.cd("c"), c.prefix("WORD=it; export WORD"):
        result = c.run("pwd; echo $WORD", **QUIET)

    assert ["c", "it"] == [line.rpartition("/")[2] for line in result.stdout.splitlines()]


def test_variables_reach_the_host_and_only_those_asked_for(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "stays here")
    result = c.run('printf "%s|%s" "$GREETING" "$MINE"', env={"GREETING": "it's $HOME"}, **QUIET)

    assert "it's $HOME|" == result.stdout


ODD_VALUES = {
    "QUOTES": 'it\'s "$HOME" `id` $(id) !x \\\\',
    "LINES": "a\nb\n\n",
    "EMPTY": "",
    "BYTES": os.fsdecode(b"\xff\x81\x88"),
    "PATH": "/nowhere",
    "SHELL": "/bin/false",
    "d": "1",
    "LARGE": "x" * 100_000,
}


@pytest.mark.parametrize("pty", [False, True])
def test_variables_arrive_as_they_are(c: Connection, capfd: pytest.CaptureFixture[str], pty: bool) -> None:
    print_all = f"exec {sys.executable} -c 'import os; print(ascii(dict(os.environb)))'"
    with capfd.disabled():  # Invoke sizes the terminal by what sys.stdout is
        said = c.run(print_all, env=ODD_VALUES, pty=pty, fallback=False, **QUIET).stdout
    found = ast.literal_eval(said.strip())
    assert ODD_VALUES == {name: os.fsdecode(found[os.fsencode(name)]) for name in ODD_VALUES}


def test_input_reaches_a_command_with_variables(c: Connection) -> None:
    said = c.run("head -c 5; echo $A", env={"A": "it"}, hide=True, in_stream=io.StringIO("typed")).stdout
    assert "typedit\n" == said


THERE = "/tmp/remote-tools-env-*"  # the host is this machine, and the sandbox has neither of the other places
COMMAND_LINES = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"


@pytest.mark.parametrize("pty", [False, True])
def test_the_value_of_a_variable_is_in_no_command_line(
    c: Connection, capfd: pytest.CaptureFixture[str], pty: bool
) -> None:
    # The host is this machine: these are the command lines of both sides.
    command = f"printenv TOKEN | rev; {COMMAND_LINES}"
    with capfd.disabled():
        said = c.run(command, env={"TOKEN": "sesame-open"}, pty=pty, fallback=False, **QUIET).stdout
    assert ("nepo-emases", False, True) == (
        said.splitlines()[0].strip(),
        "sesame-open" in said,
        "printenv TOKEN" in said,
    )


def left_there() -> list[Path]:
    """Return the folders with variables on the host, which is this machine."""
    return list(Path("/").glob(THERE[1:]))


@pytest.mark.parametrize("how", ["end", "failure", "asynchronous"])
def test_no_variable_is_left_on_the_host(c: Connection, how: str) -> None:
    there = f"ls -d {THERE} 2>/dev/null | wc -l"
    if how == "asynchronous":
        promise = c.run(there, env={"A": "1"}, asynchronous=True, hide=True)
        assert "0" == promise.join().stdout.strip()
    else:
        command = there if how == "end" else f"{there}; exit 3"
        assert "0" == c.run(command, env={"A": "1"}, warn=True, **QUIET).stdout.strip()
    assert [] == left_there()


def test_ctrl_c_leaves_no_variable_on_the_host(sandbox: Sandbox) -> None:
    """Interrupt before the command takes them: its ssh never starts."""
    code = (
        "import sys\n"
        "from remote_tools.ssh.connection import Connection, Ssh\n"
        "from remote_tools.ssh.variables import Variables\n"
        "def wait(self, command):\n"
        "    print('ready', flush=True)\n"
        "    import time; time.sleep(600)\n"
        "Variables.before = wait\n"
        "c = Connection('sandbox', ssh_options=('-F', sys.argv[1]))\n"
        "c.run('true', env={'A': '1'}, in_stream=False)\n"
    )
    words = [sys.executable, "-c", code, str(sandbox.ssh_config)]
    for number in (signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            (folder,) = left_there()
            assert (0o700, 0o600) == tuple(path.stat().st_mode & 0o777 for path in (folder, folder / "it"))
            child.send_signal(number)
        while left_there():
            time.sleep(0.05)
    Connection("sandbox", ssh_options=("-F", str(sandbox.ssh_config))).master.close()


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A;touch x", "$(id)", "A-B", "\u00e9"])
def test_what_is_no_name_of_a_variable_is_refused(c: Connection, name: str) -> None:
    for run in (c.run, c.sudo):
        with pytest.raises(UsageError, match="is not a name of a variable"):
            run("true", env={name: "1"}, **QUIET)
    with pytest.raises(UsageError, match="NUL"):
        c.run("true", env={"A": "a\0b"}, **QUIET)


def test_sudo_has_its_variables_too(c: Connection, sandbox: Sandbox) -> None:
    sudo = sandbox.home / "bin" / "sudo"
    sudo.parent.mkdir(exist_ok=True)
    sudo.write_text('#!/bin/sh\necho "$*"\nfor last; do :; done\nexec "$last"\n')
    sudo.chmod(0o755)
    env = {"PATH": f"{sudo.parent}:/usr/bin:/bin", "TOKEN": "it"}
    said = c.sudo("printenv TOKEN; printenv", env=env, password="x", **QUIET).stdout
    assert "--preserve-env=PATH,TOKEN" in said.splitlines()[0]
    assert "TOKEN=it" in said.splitlines()


def test_a_command_has_a_terminal_where_that_is_asked_for(
    c: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():  # Invoke sizes the terminal by what sys.stdout is
        pty = c.run("test -t 1 && echo terminal", pty=True, fallback=False, **QUIET)
    plain = c.run("test -t 1 || echo none", **QUIET)

    assert ("terminal", "none") == (pty.stdout.strip(), plain.stdout.strip())


def test_input_reaches_the_command(c: Connection) -> None:
    assert "typed" == c.run("head -c 5", hide=True, in_stream=io.StringIO("typed")).stdout


def test_local_stays_here(c: Connection, tmp_path: Path) -> None:
    assert f"{tmp_path}\n" == c.local(f"cd '{tmp_path}' && pwd", **QUIET).stdout


def test_one_login_serves_all(make_sandbox: SandboxMaker) -> None:
    server = make_sandbox("LogLevel DEBUG1")
    c = Connection(server.host_alias, ssh_options=("-F", str(server.ssh_config)))

    assert not c.is_connected
    for _ in range(3):
        c.run("true", **QUIET)
    c.close()

    said = server.log.read_text()
    assert (True, 1) == (c.is_connected, said.count("Accepted publickey"))
    assert "remote software version OpenSSH" in said
    assert "paramiko" not in said.lower()
    c.master.close()


def test_user_and_port_may_stand_in_the_host(sandbox: Sandbox, connect: Callable[..., Connection]) -> None:
    found = connect("nobody@sandbox:22")

    assert ("nobody", 22, "sandbox") == (found.user, found.port, found.host)
    assert sandbox.port == connect().port


def test_a_connection_over_a_master_asks_ssh_nothing(
    sandbox: Sandbox, c: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # it holds no ssh
        over = Connection.over(c.master)

    assert (c.user, sandbox.port, c.host) == (over.user, over.port, over.host)
    assert c.master is over.master


def test_an_unknown_host_key_and_a_missing_host_are_refused(connect: Callable[..., Connection]) -> None:
    with pytest.raises(PermissionDenied, match="host key"):
        connect("sandbox", "-o", "UserKnownHostsFile=/dev/null").run("true", **QUIET)
    with pytest.raises(NoHostError, match=r"nowhere\.invalid"):
        connect("nowhere.invalid").run("true", **QUIET)


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "two words", "-x", 'it\'s "$(odd)" && mv'])
def test_a_file_goes_there_and_back_with_its_mode(
    c: Connection, sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    source, back = tmp_path / name, tmp_path / "back" / name
    source.write_bytes(os.urandom(300_000))
    source.chmod(0o750)

    put = c.put(str(source), f"there {name}")
    got = c.get(f"there {name}", str(back))

    assert (f"there {name}", str(back)) == (put.remote, got.local)
    assert (source.read_bytes(), 0o750) == (back.read_bytes(), back.stat().st_mode & 0o777)
    assert [f"there {name}"] == [each.name for each in sandbox.home.glob("there *")]
    (sandbox.home / f"there {name}").unlink()


def test_a_file_that_comes_has_a_mode_less_the_umask_and_is_never_set_id(
    c: Connection, sandbox: Sandbox, tmp_path: Path
) -> None:
    (sandbox.home / "it").write_text("it")
    before = os.umask(0o027)
    try:
        for there, here in ((0o6777, 0o750), (0o666, 0o640), (0o400, 0o400)):
            (sandbox.home / "it").chmod(there)
            c.get("it", str(tmp_path / "it"))
            assert here == (tmp_path / "it").stat().st_mode & 0o7777
    finally:
        os.umask(before)


def test_a_planted_link_is_replaced_and_not_followed(c: Connection, sandbox: Sandbox, tmp_path: Path) -> None:
    (sandbox.home / "it").write_text("it")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("precious")
    c.get("it", str(tmp_path / "link"))
    assert ("mine", "it", False) == (
        (tmp_path / "precious").read_text(),
        (tmp_path / "link").read_text(),
        (tmp_path / "link").is_symlink(),
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_link_of_anothers_to_a_folder_is_replaced_and_the_users_own_is_followed(
    c: Connection, sandbox: Sandbox, tmp_path: Path
) -> None:
    (sandbox.home / "it").write_text("it")
    (tmp_path / "folder").mkdir()
    for name in ("mine", "theirs"):
        (tmp_path / name).symlink_to("folder")
    os.chown(tmp_path / "theirs", 12345, -1, follow_symlinks=False)
    c.get("it", str(tmp_path / "theirs"))
    assert ("it", []) == ((tmp_path / "theirs").read_text(), list((tmp_path / "folder").iterdir()))
    c.get("it", str(tmp_path / "mine"))
    assert "it" == (tmp_path / "folder" / "it").read_text()


@pytest.mark.parametrize("name", ["n" * 255, "{0.x}", "new\nline"])
def test_a_file_of_any_name_goes_there_and_back(
    c: Connection, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").write_text("it")
    c.put(str(tmp_path / "source"), name)
    c.get(name)
    assert "it" == (tmp_path / name).read_text()
    (sandbox.home / name).unlink()


def test_a_file_is_private_while_it_is_put_and_then_has_its_mode(c: Connection, sandbox: Sandbox) -> None:
    seen: list[int] = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            while not seen:
                seen.extend(path.stat().st_mode & 0o777 for path in sandbox.home.glob(".remote-*.part"))
            return super().read(size)

    c.put(Source(b"content"), "put")
    assert [0o600] == seen
    assert 0o666 & ~UMASK == (sandbox.home / "put").stat().st_mode & 0o777


@contextmanager
def with_program(sandbox: Sandbox, name: str, script: str) -> Iterator[None]:
    """Have the host's shell find a program of ours first."""
    folder = sandbox.home / "liars"
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    enter = sandbox.root / "enter"
    before = enter.read_text()
    enter.write_text(f"PATH={folder}:$PATH\nexport PATH\n{before}")
    try:
        yield
    finally:
        enter.write_text(before)
        shutil.rmtree(folder)


@pytest.mark.parametrize("answer", ["", "rwxr-xr-x", "7777777", "-1", "0x1ff", "999", "\x1b[2J", "6 4 4"])
def test_a_mode_that_is_none_is_an_error_and_no_traceback(
    c: Connection, sandbox: Sandbox, tmp_path: Path, answer: str
) -> None:
    (sandbox.home / "it").write_text("it")
    with with_program(sandbox, "stat", f"printf '%s' '{answer}'"), pytest.raises(TransferError) as caught:
        c.get("it", str(tmp_path / "it"))
    assert str(caught.value.message).isprintable()
    assert not (tmp_path / "it").exists()


def test_errors_without_end_are_bounded(c: Connection, sandbox: Sandbox, tmp_path: Path) -> None:
    (sandbox.home / "it").write_text("it")
    flood = "head -c 20000000 /dev/zero | tr '\\0' x >&2; printf '\\033[2J'; exit 3"
    with with_program(sandbox, "cat", flood), pytest.raises(TransferError) as caught:
        c.get("it", str(tmp_path / "it"))
    assert len(str(caught.value.message)) < 1000
    assert [] == list(tmp_path.iterdir())


def test_a_folder_keeps_the_files_own_name(c: Connection, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "it").write_text("it")
    (sandbox.home / "a folder").mkdir()

    assert "a folder/it" == c.put(str(tmp_path / "it"), "a folder").remote
    assert f"{tmp_path}/to/it" == c.get("~/a folder/it", f"{tmp_path}/to/").local


def test_streams_serve_as_files(c: Connection) -> None:
    into = io.BytesIO()

    c.put(io.BytesIO(b"content"), "from a stream")
    c.get("from a stream", into)

    assert b"content" == into.getvalue()


def test_a_copy_that_fails_leaves_nothing(c: Connection, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "it").touch()
    with pytest.raises(TransferError, match="No such file"):
        c.get("missing", str(tmp_path / "to" / "missing"))
    with pytest.raises(TransferError, match="cannot read"):
        c.put(str(tmp_path), "a file")
    with pytest.raises(TransferError, match=r"No such file|nonexistent"):
        c.put(str(tmp_path / "it"), "no folder/it")
    with pytest.raises(TransferError, match="cannot write"):
        c.get("/etc/passwd", str(tmp_path / "it" / "below a file"))
    with pytest.raises(ValueError, match="no name"):
        c.put(io.BytesIO(b""))

    assert ([], []) == (list((tmp_path / "to").iterdir()), list(sandbox.home.glob("*.part")))


# Groups -----------------------------------------------------------------------------------------------------


def test_a_group_runs_everywhere_over_openssh(
    sandbox: Sandbox, ssh_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = ssh_config(sandbox, trn1={"SetEnv": "X=1"}, trn2={"SetEnv": "X=2"})
    group = ThreadingGroup("trn1", "trn2", ssh_options=("-F", str(config)))

    said = group.run("echo it", **QUIET)
    group.get("/etc/hostname", f"{tmp_path}/{{host}}/")

    assert {"trn1": "it\n", "trn2": "it\n"} == {each.host: result.stdout for each, result in said.items()}
    assert ["trn1/hostname", "trn2/hostname"] == sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.glob("trn*/*")
    )
    for connection in group:
        connection.master.close()
