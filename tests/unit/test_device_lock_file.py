"""The lock's file stands where anybody can write: what else may stand there is refused."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_tools.host import device_lock

HOLDER = {"run": "20261122-091530-gemm-7c1e", "for": "ann@laptop"}
THEIRS = shutil.which("python3", path="/usr/bin") or ""  # ours may stand where another user may not go


def under_lock(path: Path, *command: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    words = [THEIRS if user else sys.executable, *device_lock.guarded(command, HOLDER)[1:]]
    env = {"PATH": os.environ["PATH"], device_lock.PATH_VARIABLE: str(path)}
    return subprocess.run(words, env=env, capture_output=True, text=True, user=user)


def test_the_command_runs_under_the_lock_and_leaves_its_holders_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    done = under_lock(path, "sh", "-c", "flock -n $REMOTE_DEVICE_LOCK true; echo $?; exit 3")

    assert (3, "1\n", "") == (done.returncode, done.stdout, done.stderr)
    assert HOLDER == {name: json.loads(path.read_text())[name] for name in HOLDER}
    assert 0o666 == path.stat().st_mode & 0o777


def listen(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path, victim: path.symlink_to(victim), "Too many levels of symbolic links"),
        (lambda path, victim: path.hardlink_to(victim), "is not a regular file with one link"),
        (lambda path, _victim: os.mkfifo(path), "is not a regular file with one link"),
        (lambda path, _victim: path.mkdir(), "Is a directory"),
        (lambda path, _victim: listen(path), "No such device or address"),
        (lambda path, _victim: path.symlink_to("/dev/null"), "Too many levels of symbolic links"),
    ],
)
def test_nothing_but_a_plain_file_is_written_to(
    tmp_path: Path, make: Callable[[Path, Path], None], why: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    make(tmp_path / "lock", victim)

    done = under_lock(tmp_path / "lock", "echo", "ran")

    assert (69, "", True) == (done.returncode, done.stdout, why in done.stderr), done.stderr
    assert "precious" == victim.read_text()


@pytest.mark.skipif(os.getuid() != 0 or not THEIRS, reason="only root can be several users")
def test_every_user_of_the_host_shares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # others may not enter tmp_path
        Path(folder).chmod(0o1777)
        program = Path(folder) / "device_lock.py"
        shutil.copy(device_lock.__file__, program)
        program.chmod(0o644)
        monkeypatch.setattr(device_lock, "__file__", str(program))

        done = [under_lock(Path(folder) / "lock", "true", user=user) for user in (65534, None, 65533, 65534)]

    assert [(0, "")] * 4 == [(each.returncode, each.stderr) for each in done]


def test_a_file_that_was_cleaned_away_is_made_anew(tmp_path: Path) -> None:
    fd = device_lock.open_shared(str(tmp_path / "lock"))
    (tmp_path / "lock").unlink()

    assert not device_lock.still_there(fd, str(tmp_path / "lock"))
    os.close(fd)


def test_a_forged_holder_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    forged = {"for": "\x1b[2Jann", "run": "r" * 500, "user": "u", "pid": os.getpid(), "since": 0}
    path.write_text(json.dumps(forged))
    fd = device_lock.open_shared(str(path))

    said = device_lock.held_by(fd)

    os.close(fd)
    assert (True, True) == (said.isprintable(), len(said) < 300)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"for": 1}',
        "\xff",
        '{"since": "x"}',
        "[" * 4000,
        "9" * 4000,
        "\0" * 4000,
        '"\\ud800"',
    ],
)
def test_a_holder_without_a_name_is_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text, encoding="latin-1")
    fd = device_lock.open_shared(str(path))

    assert "the accelerator is in use" == device_lock.held_by(fd)
    os.close(fd)


def test_a_lock_that_cannot_be_created_is_told(tmp_path: Path) -> None:
    done = under_lock(tmp_path / "no folder" / "lock", "echo", "ran")

    assert (69, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines())), done.stderr
    assert "cannot be created: No such file or directory" in done.stderr


def test_a_lock_in_a_folder_of_its_owner_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o1777)

    assert [False, True] == [
        device_lock.is_shared(str(folder / "x")) for folder in (tmp_path, tmp_path / "all")
    ]
