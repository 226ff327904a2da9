"""What a user or a host sets up for people who type: it neither reaches our sessions nor is it taken away."""

from __future__ import annotations

import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import Laptop

ESCAPES = b"\r~C\n~B\n~.\n" * 30_000
"""Larger than what travels inside a request: rsync brings it, and ssh would obey it on a terminal."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _with(laptop: Laptop, *options: str) -> Path:
    """Put options before the sandbox's own; return the configuration."""
    first, _, rest = laptop.host.ssh_config.read_text().partition("\n")
    path = laptop.root.parent / "ssh_config"
    path.write_text("\n".join([first, *(f"    {option}" for option in options), rest]))
    laptop.env["INVOKE_REMOTE_SSH_OPTIONS"] = shlex.join(["-F", str(path)])
    return path


def test_options_of_a_session_that_one_types_in_reach_neither_ours_nor_rsync(laptop: Laptop) -> None:
    """Each of them alone would break our sessions, so one that reaches them is seen beside the others too."""
    _with(
        laptop,
        "RemoteCommand tmux new-session -A -s main",
        "RequestTTY force",
        "StdinNull yes",
        "SessionType none",
    )
    (laptop.root / "data.bin").write_bytes(ESCAPES)
    laptop.write("size.py", "import os; print(os.path.getsize('data.bin'))\n")

    done = laptop.inv("dev", "--", "size.py")
    doctor = laptop.inv("doctor")

    assert (0, f"{len(ESCAPES)}\n") == (done.returncode, done.stdout), done.stderr
    assert 0 == doctor.returncode, doctor.stdout


def test_a_local_command_is_not_run_for_us(laptop: Laptop) -> None:
    mark = laptop.root.parent / "local command"
    _with(laptop, "PermitLocalCommand yes", f"LocalCommand echo noise; touch '{mark}'")
    (laptop.root / "data.bin").write_bytes(ESCAPES)

    done = laptop.inv("sync")

    assert (0, False) == (done.returncode, mark.exists()), done.stderr


@pytest.mark.parametrize("kind", ["LocalForward", "DynamicForward"])
def test_a_forward_stays_free_for_the_users_own_session(laptop: Laptop, kind: str) -> None:
    port = _free_port()
    target = " localhost:9" if kind == "LocalForward" else ""
    _with(laptop, f"{kind} {port}{target}", "ExitOnForwardFailure yes")

    done = laptop.inv("sync")
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", port))  # the shared connection is still open
        theirs.listen()
        again = laptop.inv("sync")

    assert (0, 0) == (done.returncode, again.returncode), done.stderr + again.stderr


def test_a_forward_in_ssh_options_is_ours(laptop: Laptop) -> None:
    port = _free_port()
    words = ["-F", str(laptop.host.ssh_config), "-L", f"{port}:127.0.0.1:{laptop.host.port}"]

    done = laptop.inv("sync", INVOKE_REMOTE_SSH_OPTIONS=shlex.join(words))

    assert 0 == done.returncode, done.stderr
    with socket.create_connection(("127.0.0.1", port)) as through:
        assert through.recv(4) == b"SSH-"


def test_a_master_of_the_users_is_never_ended(laptop: Laptop) -> None:
    socket_path = laptop.root.parent / "master"
    config = _with(laptop, "ControlMaster auto", f"ControlPath {socket_path}", "ControlPersist 60")
    ssh = ["ssh", "-F", str(config)]
    subprocess.run([*ssh, laptop.host.host_alias, "true"], check=True, stderr=subprocess.DEVNULL)
    dies = laptop.host.root / "rsync-that-dies"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    laptop.env["INVOKE_REMOTE_RSYNC_OPTIONS"] = f"--rsync-path={dies}"
    laptop.write("hello.py", "print('hello')\n")
    (laptop.root / "data.bin").write_bytes(ESCAPES)

    done = laptop.inv("dev", "--", "hello.py")
    checked = subprocess.run([*ssh, "-O", "check", laptop.host.host_alias], stderr=subprocess.DEVNULL)
    subprocess.run([*ssh, "-O", "exit", laptop.host.host_alias], stderr=subprocess.DEVNULL)

    assert 0 != done.returncode
    assert 0 == checked.returncode, done.stderr
