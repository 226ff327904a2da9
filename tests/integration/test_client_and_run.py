"""What happens to the client, its disk and its streams decides neither the exit code nor the run's life."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remote_tools.host.owner import MIN_LEASE_S
from tests.integration.conftest import Laptop

SEVEN = "print('ran')\nraise SystemExit(7)\n"
FOREVER = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(1)\n"


def _start(laptop: Laptop, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start `inv` with its output in pipes."""
    return subprocess.Popen(
        [*prefix, *laptop.command("inv", *words)],
        cwd=laptop.root,
        env=laptop.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _shell(laptop: Laptop, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `inv` with a shell's redirection."""
    line = f"{shlex.join(laptop.command('inv', *words))} {redirection}"
    return subprocess.run(
        ["bash", "-c", line], cwd=laptop.root, env=laptop.env, capture_output=True, text=True, timeout=120
    )


# Our disk and our streams -----------------------------------------------------------------------------------


@pytest.fixture
def mounted() -> Iterator[Callable[[Path, str], None]]:
    """Mount a small file system over a folder; skip if nobody may."""
    with ExitStack() as stack:

        def mount(folder: Path, options: str) -> None:
            folder.mkdir(exist_ok=True)
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "it", str(folder)])
            if done.returncode:
                pytest.skip("nobody may mount here")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)

        yield mount


@pytest.mark.parametrize("options", ["ro", "size=16k", "size=1m,nr_inodes=2"])
def test_a_record_that_cannot_be_written_does_not_decide(
    laptop: Laptop, mounted: Callable[[Path, str], None], options: str
) -> None:
    mounted(laptop.root / ".remote", options)
    if options == "size=16k":
        with pytest.raises(OSError, match="No space left"):
            (laptop.root / ".remote" / "filler").write_bytes(b"x" * 100_000)
    laptop.write("seven.py", SEVEN)

    first = laptop.inv("dev", "--", "seven.py")
    laptop.write("seven.py", SEVEN.replace("ran", "ran again"))
    second = laptop.inv("dev", "--auto-fetch", "--", "seven.py")

    assert [(7, "ran\n"), (7, "ran again\n")] == [(each.returncode, each.stdout) for each in (first, second)]
    for each in (first, second):
        assert "Traceback" not in each.stderr
        assert "the record of this run cannot be written" in each.stderr
    assert "kept as" not in second.stderr  # the host knows this checkout again


@pytest.mark.parametrize(
    ("redirection", "printed"),
    [
        (">&-", ""),
        ("2>&-", "ran\n"),
        (">&- 2>&-", ""),
        ("2>/dev/full", "ran\n"),
        (">/dev/full", ""),
        ("<&-", "ran\n"),
    ],
)
def test_a_stream_that_is_closed_or_full_does_not_decide(
    laptop: Laptop, redirection: str, printed: str
) -> None:
    laptop.write("seven.py", SEVEN)

    done = _shell(laptop, redirection, "dev", "--", "seven.py")

    assert (7, printed) == (done.returncode, done.stdout), done.stderr
    assert "Traceback" not in done.stderr


def test_lost_output_is_no_success(laptop: Laptop) -> None:
    laptop.write("hello.py", "print('hello')\n")

    done = _shell(laptop, ">/dev/full", "dev", "--", "hello.py")

    assert (74, True) == (done.returncode, "could not be written here" in done.stderr), done.stderr


# Who reads the output ---------------------------------------------------------------------------------------


def test_an_unread_pager_does_not_end_a_leased_run(laptop: Laptop) -> None:
    lines = "for _ in range(40): print('x' * 100_000, flush=True)\n"
    laptop.write("lines.py", f"{lines}import time; time.sleep(3)\n")
    with _start(laptop, "dev", "--on-disconnect", "kill", "--lease-s", "1", "--", "lines.py") as client:
        time.sleep(MIN_LEASE_S + 5)  # a person reads the first page

        printed, said = client.communicate()

    assert (0, 40 * 100_001) == (client.returncode, len(printed)), said
    assert "lease" not in said


def test_a_client_whose_output_is_unread_still_takes_signals(laptop: Laptop) -> None:
    laptop.write("lines.py", "while True: print('x' * 100_000, flush=True)\n")
    with _start(laptop, "dev", "--", "lines.py") as client:
        assert client.stdout is not None
        client.stdout.read(10)
        time.sleep(1)

        client.send_signal(signal.SIGTERM)
        code = client.wait()
        client.communicate()

    assert 143 == code
    assert 0 == laptop.inv("runs.kill").returncode


# A client that is ended -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("pty", [(), ("--pty",)])
def test_an_ended_client_says_how_to_come_back(
    laptop: Laptop, number: signal.Signals, pty: tuple[str, ...]
) -> None:
    laptop.write("forever.py", FOREVER)
    # The suite may itself be run under nohup.
    default = ("env", f"--default-signal={number.name[3:]}")
    with _start(laptop, "dev", *pty, "--", "forever.py", prefix=default) as client:
        assert client.stdout is not None
        client.stdout.readline()

        client.send_signal(number)
        _, said = client.communicate()
    (run,) = json.loads(laptop.inv("runs.list", "--json").stdout)

    assert (128 + number, "running") == (client.returncode, run["state"]), said
    assert (True, True) == (f"inv runs.attach {run['id']}" in said, f"inv runs.kill {run['id']}" in said)
    assert 0 == laptop.inv("runs.kill", "--signal", "KILL").returncode


def test_nohup_still_holds(laptop: Laptop) -> None:
    laptop.write(
        "wait.py",
        "import pathlib, time\nprint('ready', flush=True)\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.05)\nraise SystemExit(7)\n",
    )
    with _start(laptop, "dev", "--", "wait.py", prefix=("env", "--ignore-signal=HUP")) as client:
        assert client.stdout is not None
        client.stdout.readline()

        client.send_signal(signal.SIGHUP)
        (laptop.there / "go").touch()

        assert 7 == client.wait()


# A terminal there and none here -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_run_with_a_terminal_gets_what_stdin_holds_and_its_end(laptop: Laptop, size: int) -> None:
    """A terminal takes 4,095 bytes before it is read, so the rest must wait for a busy program."""
    laptop.write(
        "read.py",
        "import sys, time\ntime.sleep(1)\nprint('got', sum(map(len, sys.stdin)))\nraise SystemExit(7)\n",
    )
    lines = ("x" * 99 + "\n") * (size // 100) or "y" * size

    done = subprocess.run(
        laptop.command("inv", "dev", "--pty", "--", "read.py"),
        cwd=laptop.root,
        env=laptop.env,
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
    )

    told = re.sub(r"[xy\n]", "", done.stdout)  # the terminal echoes what is typed, amid the output too
    assert (7, True) == (done.returncode, told.endswith(f"got {len(lines)}")), (
        done.stdout[-80:],
        done.stderr,
    )


def test_the_end_of_stdin_is_told_to_a_program_that_asks_twice(laptop: Laptop) -> None:
    laptop.write(
        "twice.py",
        "for _ in range(2):\n    try: input()\n    except EOFError: print('no answer')\n"
        "import getpass\ntry: getpass.getpass()\nexcept EOFError: print('no password')\n",
    )

    done = laptop.inv("dev", "--pty", "--", "twice.py")

    assert 0 == done.returncode, done.stderr
    assert (2, 1) == (done.stdout.count("no answer"), done.stdout.count("no password"))
