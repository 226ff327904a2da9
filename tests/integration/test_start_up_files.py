"""Whatever the start-up files of the host's shell do, the loop works, or reports what they printed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_tools.runs.client import INLINE_BYTES
from remote_tools.ssh.connection import Connection
from tests.integration.conftest import Laptop

BIG = os.urandom(300_000)
NOISY = "echo 'Welcome to node17'; printf 'no newline'"
QUIET_S = {"INVOKE_REMOTE_TIMEOUT_S": "8", "INVOKE_REMOTE_CONNECT_TIMEOUT_S": "3"}


def _start_up(laptop: Laptop, lines: str) -> None:
    """Have the host do this before every command."""
    enter = laptop.host.root / "enter"
    enter.write_text(f"{lines}\n{enter.read_text()}")


def test_rsync_works_past_what_they_print_both_ways(laptop: Laptop) -> None:
    _start_up(laptop, NOISY)
    (laptop.root / "data.bin").write_bytes(BIG)
    laptop.write(
        "save.py",
        "import os, pathlib, shutil\n"
        "folder = pathlib.Path(os.environ['AUTOTUNE_CACHE_DIR'], 'kernel', '1x1')\n"
        "folder.mkdir(parents=True)\n"
        f"(folder / 'big').write_bytes(b'x' * {INLINE_BYTES + 1})\n"
        "print(os.path.getsize('data.bin'))\n",
    )

    done = laptop.inv("dev", "--auto-fetch", "--", "save.py")

    assert (0, f"{len(BIG)}\n") == (done.returncode, done.stdout), done.stderr
    assert BIG == (laptop.there / "data.bin").read_bytes()
    assert INLINE_BYTES + 1 == (laptop.root / "cache/kernel/1x1/big").stat().st_size


def test_what_they_print_is_no_part_of_a_copied_file(laptop: Laptop, tmp_path: Path) -> None:
    _start_up(laptop, NOISY)
    there = Connection(laptop.host.host_alias, ("-F", str(laptop.host.ssh_config)))
    got = io.BytesIO()
    try:
        there.put(io.BytesIO(BIG), "data.bin")
        there.get("data.bin", got)
        there.get("data.bin", str(tmp_path / "copy"))
    finally:
        there.master.close()

    assert [BIG, BIG] == [got.getvalue(), (tmp_path / "copy").read_bytes()]


@pytest.mark.parametrize("option", ["--checksum", "--rsync-path='env rsync'"])
def test_options_for_rsync_hold_past_what_they_print(laptop: Laptop, option: str) -> None:
    _start_up(laptop, NOISY)
    (laptop.root / "data.bin").write_bytes(BIG)

    done = laptop.inv("sync", INVOKE_REMOTE_RSYNC_OPTIONS=option)

    assert (0, BIG) == (done.returncode, (laptop.there / "data.bin").read_bytes()), done.stderr


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("echo 'Please login as ubuntu.'; exit 142", 69),
        ("printf 'This account is\\33[1m closed.\\nPlease login as ubuntu.'; exit 1", 69),
        ("echo 'Please login as ubuntu.' >&2; exit 254", 69),
        ("echo 'Please login as ubuntu.'; exit 255", 69),
    ],
)
def test_a_refusal_in_words_is_shown(laptop: Laptop, lines: str, code: int) -> None:
    _start_up(laptop, lines)

    done, doctor = laptop.inv("sync"), laptop.inv("doctor")

    assert (code, code) == (done.returncode, doctor.returncode)
    assert ["connect: "] == [line[:9] for line in done.stderr.splitlines() if "login as ubuntu" in line]
    assert "Please login as ubuntu." in doctor.stdout
    assert "\33" not in done.stderr + doctor.stdout


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("exec bash -i", "login shell"),
        ("exec sh", "login shell"),
        ("exec sleep 60", "login shell"),
        ("exec cat", "login shell"),
        ("read line", "reads the input"),
        ("cat >/dev/null", "reads the input"),
    ],
)
def test_one_that_keeps_the_command_is_no_fault_of_the_network(laptop: Laptop, lines: str, said: str) -> None:
    _start_up(laptop, lines)

    done = laptop.inv("sync", **QUIET_S)

    assert (69, True) == (done.returncode, said in done.stderr), done.stderr
    assert "connecting again" not in done.stderr


@pytest.mark.parametrize("code", [1, 127])
def test_an_rsync_that_is_dead_is_no_fault_of_the_network(laptop: Laptop, code: int) -> None:
    broken = laptop.host.root / "bin" / "rsync"
    broken.parent.mkdir()
    version, failure = "echo rsync  version 3.2.7", f"echo no libpopt >&2; exit {code}"
    broken.write_text(f'#!/bin/sh\ncase "$1" in --version) {version};; *) {failure}; esac\n')
    broken.chmod(0o700)
    _start_up(laptop, f"PATH={broken.parent}:$PATH")
    (laptop.root / "data.bin").write_bytes(BIG)

    done = laptop.inv("sync")

    assert (69, True) == (done.returncode, "no libpopt" in done.stderr), done.stderr
    assert done.stderr.count("connecting again") <= 1


# Python -----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_python(laptop: Laptop) -> Callable[[str], Laptop]:
    """Give a host with all of this machine's programs on PATH but a Python; put one at a path there."""

    def make(place: str) -> Laptop:
        folder = laptop.host.root / "bin"
        folder.mkdir()
        for each in ("sh", "bash", "env", "printenv", "tail", "rsync", "cat", "mkdir"):
            found = shutil.which(each)
            assert found is not None
            (folder / each).symlink_to(found)
        _start_up(laptop, f"PATH={folder}")
        path = laptop.host.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shutil.which("python3", path=os.defpath)} "$@"\n')
        path.chmod(0o700)
        return laptop

    return make


@pytest.mark.parametrize(
    ("place", "env"),
    [
        ("venv/bin/python", {"INVOKE_REMOTE_VENV_PATH": "~/venv"}),
        ("it's my/python3.12", {"INVOKE_REMOTE_PYTHON": "~/it's my/python3.12"}),
        ("miniconda3/bin/python3", {}),
    ],
)
def test_a_python_that_only_the_settings_name(
    without_python: Callable[[str], Laptop], place: str, env: dict[str, str]
) -> None:
    laptop = without_python(place)
    laptop.write("hello.py", "print('hello')\n")

    done = laptop.inv("dev", "--", "hello.py", **env)

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr


def test_a_python_on_the_path_of_login_shells_alone(without_python: Callable[[str], Laptop]) -> None:
    laptop = without_python("tools/python3")
    (laptop.host.home / ".profile").write_text("echo hello from .profile; PATH=$PATH:$HOME/tools\n")
    (laptop.host.home / ".bash_profile").symlink_to(".profile")
    laptop.write("hello.py", "print('hello')\n")

    done = laptop.inv("dev", "--", "hello.py")

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr


def test_a_python3_that_is_too_old_is_passed_over(without_python: Callable[[str], Laptop]) -> None:
    laptop = without_python("venv/bin/python")
    old = laptop.host.root / "bin" / "python3"
    old.write_text("#!/bin/sh\necho Python 3.6.8 is too old >&2; exit 127\n")
    old.chmod(0o700)
    laptop.write("hello.py", "print('hello')\n")

    done = laptop.inv("dev", "--", "hello.py", INVOKE_REMOTE_VENV_PATH="~/venv")

    assert (0, "hello\n") == (done.returncode, done.stdout), done.stderr
