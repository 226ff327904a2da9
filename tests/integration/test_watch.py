"""`inv dev --watch` as a user sees it: a save runs again, waits for a run, or stops it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.conftest import Laptop


@contextmanager
def watching(laptop: Laptop, *flags: str) -> Iterator[Callable[[str], None]]:
    """Start a watch; give what waits until its output holds a text for the first time after the last one."""
    log = laptop.root.parent / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            laptop.command("inv", "dev", "--watch", *flags, "--", "script.py"),
            cwd=laptop.root,
            env=laptop.env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    position = 0

    def wait_for(text: str) -> None:
        nonlocal position
        deadline = time.monotonic() + 60
        while (found := log.read_text().find(text, position)) < 0:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[position:]
            time.sleep(0.02)
        position = found + len(text)

    try:
        yield wait_for
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(30)
    finally:
        process.kill()
        process.wait()


def save(path: Path, text: str) -> None:
    """Write as editors do: beside, then renamed over."""
    beside = path.with_suffix(".swp")
    beside.write_text(text)
    beside.replace(path)


def test_a_save_runs_again(laptop: Laptop) -> None:
    script = laptop.write("script.py", "print('first')\n")

    with watching(laptop) as wait_for:
        wait_for("first")
        wait_for("Waiting for a save")
        save(script, "print('second')\n")
        wait_for("second")
        wait_for("Waiting for a save")


def test_a_save_during_a_run_waits_for_its_end(laptop: Laptop) -> None:
    wait = "while not pathlib.Path('go').exists(): time.sleep(0.05)"
    script = laptop.write(
        "script.py", f"import pathlib, time\nprint('first', flush=True)\n{wait}\nprint('whole')\n"
    )

    with watching(laptop) as wait_for:
        wait_for("first")
        save(script, "print('second')\n")
        wait_for("saved: it runs again when this run has ended")
        (laptop.there / "go").touch()
        wait_for("whole")
        wait_for("second")
        wait_for("Waiting for a save")


def test_with_restart_a_save_stops_the_run(laptop: Laptop) -> None:
    script = laptop.write("script.py", "import time\nprint('first')\ntime.sleep(300)\n")

    with watching(laptop, "--restart") as wait_for:
        wait_for("first")
        save(script, "print('second')\n")
        wait_for("ended with 143")
        wait_for("second")
        wait_for("Waiting for a save")


def test_a_script_that_fails_does_not_end_the_watch(laptop: Laptop) -> None:
    script = laptop.write("script.py", "raise SystemExit(3)\n")

    with watching(laptop) as wait_for:
        wait_for("ended with 3")
        wait_for("Waiting for a save")
        save(script, "print('mended')\n")
        wait_for("mended")
        wait_for("Waiting for a save")
