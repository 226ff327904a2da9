"""Fabric's API over the user's own OpenSSH, against a real sshd."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.exceptions import UnexpectedExit

from remote_tools.errors import NoHostError, PermissionDenied, TransferError
from remote_tools.setup.sandbox import Sandbox
from remote_tools.ssh.connection import Connection, ThreadingGroup
from tests.integration.conftest import SandboxMaker

QUIET = {"hide": True, "in_stream": False}


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
