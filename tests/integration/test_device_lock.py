"""`device_lock: true`: one benchmark at a time on a host's accelerator, whoever starts it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

LOCKED = {"INVOKE_REMOTE_DEVICE_LOCK": "true"}
# Says that it has the accelerator, and works until it is told to stop.
USE = """\
import pathlib, sys, time
print("in use", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


@pytest.fixture
def two(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> tuple[Laptop, Laptop]:
    """Give two people's laptops and their one host."""
    laptops = make_laptop(sandbox), make_laptop(sandbox)
    for name, laptop in zip(("ann", "bob"), laptops, strict=True):
        laptop.write("use.py", USE)
        laptop.env["USER"] = f"{name}-{laptop.root.parent.name}"
        config = laptop.root / ".remote_config"
        config.write_text(config.read_text().replace("~/project", f"~/{laptop.env['USER']}"))
    return laptops


@contextmanager
def started(laptop: Laptop, stop: Path) -> Iterator[subprocess.Popen[str]]:
    """Run use.py on the host until the file `stop` is there."""
    process = subprocess.Popen(
        laptop.command("inv", "dev", "--", "use.py", str(stop)),
        cwd=laptop.root,
        env={**laptop.env, **LOCKED},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        stop.touch()  # the run outlives its client, and the lock is everybody's here
        process.kill()
        process.communicate()


def line_with(part: str, stream: IO[str] | None) -> str:
    """Read lines up to the one that holds a part."""
    assert stream is not None
    return next((line for line in stream if part in line), "")


def held(host: Sandbox) -> bool:
    """Tell whether anybody holds the lock."""
    with (host.root / "device.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def record_of(laptop: Laptop) -> dict[str, Any]:
    """Return the host's record of the laptop's run."""
    (path,) = laptop.host.home.glob(f".cache/remote-tools/{laptop.env['USER']}-*/runs/*/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_second_waits_and_is_told_for_whom(two: tuple[Laptop, Laptop], tmp_path: Path) -> None:
    ann, bob = two
    with started(ann, tmp_path / "stop") as first:
        line_with("in use", first.stdout)
        with started(bob, tmp_path / "stop") as second:
            said = line_with("; waiting", second.stderr)
            (tmp_path / "stop").touch()

            run_id = record_of(ann)["id"]
            user = ann.env["USER"]
            who = rf"device: the accelerator is in use by {user}@\S+ for \d+ s now: {run_id}, here as "
            assert re.match(who, said), said
            assert re.match(r"device: the accelerator is free, after \d+ s", line_with("free", second.stderr))
            assert ((0, 0), "in use\n") == ((first.wait(), second.wait()), second.communicate()[0])


def test_ctrl_c_ends_the_waiting(two: tuple[Laptop, Laptop], tmp_path: Path) -> None:
    ann, bob = two
    with started(ann, tmp_path / "stop") as first:
        line_with("in use", first.stdout)
        with started(bob, tmp_path / "stop") as second:
            line_with("; waiting", second.stderr)

            second.send_signal(signal.SIGINT)

            assert ("", 130) == (second.communicate(timeout=60)[0], second.returncode)


@pytest.mark.parametrize("victims", [["pid"], ["owner", "pid"]])
def test_a_killed_holder_holds_nothing(
    two: tuple[Laptop, Laptop], tmp_path: Path, victims: list[str]
) -> None:
    ann, bob = two
    with started(ann, tmp_path / "stop") as first:
        line_with("in use", first.stdout)
        with started(bob, tmp_path / "stop") as second:
            line_with("; waiting", second.stderr)

            record = record_of(ann)
            for victim in ([record["owner"][0]] if "owner" in victims else []) + [record["pid"]]:
                os.kill(victim, signal.SIGKILL)

            assert "in use\n" == line_with("in use", second.stdout), second.communicate()[1]


@pytest.mark.parametrize("victim", ["client", "owner"])
def test_a_command_that_lives_on_keeps_the_accelerator(
    two: tuple[Laptop, Laptop], tmp_path: Path, victim: str
) -> None:
    ann = two[0]
    with started(ann, tmp_path / "stop") as first:
        line_with("in use", first.stdout)
        record = record_of(ann)

        os.kill(first.pid if victim == "client" else record["owner"][0], signal.SIGKILL)
        first.wait(timeout=60)

        assert held(ann.host)
        os.kill(record["pid"], signal.SIGKILL)


def test_only_what_is_asked_to_takes_the_lock(laptop: Laptop) -> None:
    laptop.write("see.py", "import os; print(os.listdir('/proc/self/fd').count('100'))\n")

    said = [
        laptop.inv("dev", "--", "see.py").stdout,
        laptop.inv("dev", "--", "see.py", **LOCKED).stdout,
        laptop.inv("exec", "--", "python3", "see.py", **LOCKED).stdout,
    ]

    assert ["0\n", "1\n", "0\n"] == said


def test_words_and_exit_code_pass_the_lock(laptop: Laptop) -> None:
    laptop.write("end.py", "import sys; print(sys.argv[1:]); sys.exit(7)\n")

    done = laptop.inv("dev", "--", "end.py", "two words", "$HOME", **LOCKED)

    assert (7, "['two words', '$HOME']\n", "") == (done.returncode, done.stdout, device_lines(done.stderr))


def device_lines(said: str) -> str:
    return "".join(line for line in said.splitlines() if line.startswith("device:"))
