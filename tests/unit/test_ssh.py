"""OpenSSH's command lines, and what its words mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_tools.errors import (
    ConfigError,
    Dropped,
    NoHostError,
    PermissionDenied,
    RemoteError,
    UnavailableError,
)
from remote_tools.ssh.master import Destination, Master, diagnose, socket_folder


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@@", PermissionDenied),
        ("Host key verification failed.", PermissionDenied),
        ("me@host: Permission denied (publickey).", PermissionDenied),
        ("ssh: Could not resolve hostname nosuch: Name or service not known", NoHostError),
        ("ssh: connect to host h port 22: Connection refused", NoHostError),
        ("ssh: connect to host h port 22: Connection timed out", NoHostError),
        ("kex_exchange_identification: Connection closed by remote host", Dropped),
        ("Timeout, server h not responding.", Dropped),
        ("Corrupted MAC on input.", Dropped),
        ("channel 0: open failed: connect failed: open failed", UnavailableError),
        ("command-line: line 0: Bad configuration option: nosuch", ConfigError),
        ("", UnavailableError),
    ],
)
def test_what_ssh_says_becomes_the_error_it_means(said: str, kind: type[RemoteError]) -> None:
    assert kind is type(diagnose(said, "trn1", "10.0.0.1"))


def test_an_error_quotes_ssh_and_says_what_to_do() -> None:
    error = diagnose("debug\n@ REMOTE HOST IDENTIFICATION HAS CHANGED! @\nmore", "trn1", "10.0.0.1")

    assert "cannot reach trn1: REMOTE HOST IDENTIFICATION HAS CHANGED!" == error.reason
    assert error.hint.endswith("ssh-keygen -R 10.0.0.1")


def test_the_users_own_options_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two values ssh takes the first (ssh_config(5))."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    master = Master(Destination("host", ("-F", "/dev/null", "-o", "ConnectTimeout=7"), timeout_s=30))

    assert [
        *("ssh", "-F", "/dev/null", "-o", "ConnectTimeout=7"),
        *("-o", f'ControlPath="{master.control_path}"', "-o", "ControlMaster=no"),
        *("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
    ] == master.words()


def test_a_control_path_of_the_users_own_is_used(tmp_path: Path) -> None:
    path = tmp_path / "mine-%h"
    master = Master(Destination("host", ("-F", "/dev/null", "-o", f"ControlPath={path}")))

    assert tmp_path / "mine-host" == master.control_path


def test_options_that_lead_elsewhere_have_a_master_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    paths = {
        Master(Destination("host", ("-F", "/dev/null", "-p", port))).control_path for port in ("22", "2222")
    }

    assert 2 == len(paths)


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    socket_folder().chmod(0o755)

    with pytest.raises(PermissionDenied):
        socket_folder()


def test_a_runtime_folder_that_is_not_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))

    assert Path("/tmp") == socket_folder().parent
