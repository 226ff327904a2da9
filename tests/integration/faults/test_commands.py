"""Commands that do their worst: what they print and how they end arrives exactly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_tools.setup.sandbox import Sandbox
from tests.integration.faults.conftest import Cable

LIMIT = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def pushed(plug: Callable[[Sandbox], Cable], sandbox: Sandbox) -> Cable:
    """Give a laptop whose workspace is on the host."""
    made = plug(sandbox)
    assert 0 == made.inv("sync").returncode
    return made


@pytest.mark.parametrize(
    ("command", "code", "printed"),
    [
        ("exit 255", 255, b""),
        ("kill -SEGV $$", 139, b""),
        ("kill -KILL $$", 137, b""),
        ("printf 'no newline'", 0, b"no newline"),
        ("seq 1000000", 0, b"".join(b"%d\n" % i for i in range(1, 1_000_001))),
        ("exec >&-; sleep 0.3; exit 5", 5, b""),
        ("exec >&- 2>&-; sleep 0.3; exit 6", 6, b""),
        ("sleep 30 & echo forked; exit 3", 3, b"forked\n"),
        ("trap '' INT; kill -INT 0; echo alive; exit 4", 4, b"alive\n"),
        ("-x", 127, b""),
        ("printf '\\377\\000\\r\\n\\033['", 0, b"\xff\0\r\n\x1b["),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_that_misbehaves(pushed: Cable, command: str, code: int, printed: bytes) -> None:
    done = pushed.inv("exec", "--command", command)

    assert (code, printed) == (done.returncode, done.stdout)


def test_a_command_that_prints_every_byte(pushed: Cable) -> None:
    program = "import os; [os.write(fd, bytes(range(256)) * 999) for fd in (1, 2)]"

    done = pushed.inv("exec", "--", "python", "-c", program)

    assert (0, bytes(range(256)) * 999, bytes(range(256)) * 999) == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


def test_a_child_that_prints_on_does_not_hold_its_parents_end(pushed: Cable) -> None:
    done = pushed.inv("exec", "--command", "(while sleep 0.01; do echo on; done) & exit 8")

    assert 8 == done.returncode
    assert re.search(rb"processes of \S+ still run on", done.stderr)
    assert 0 == pushed.inv("runs.kill").returncode


def test_nobody_reads_our_output(pushed: Cable) -> None:
    """`inv exec ... | head -1`: the run ends as it would in a local pipeline."""
    with subprocess.Popen(
        pushed.laptop.command("inv", "exec", "--command", "yes"),
        cwd=pushed.laptop.root,
        env=pushed.laptop.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert b"y\n" == process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert (b"", 141) == (process.stderr.read(), process.wait())
    assert 128 + signal.SIGPIPE == pushed.inv("runs.attach").returncode


def test_two_runs_at_once_in_one_cache(pushed: Cable) -> None:
    """Each brings what it claimed, although both wrote below the cache root at the same time."""
    write = """
        mkdir -p "$AUTOTUNE_CACHE_DIR/k"; for i in 1 2 3 4 5; do
            printf '%s\\0' "$AUTOTUNE_CACHE_DIR/k/NAME$i" >> "$AUTOTUNE_OUTPUTS"
            echo NAME > "$AUTOTUNE_CACHE_DIR/k/NAME$i"; sleep 0.2
        done"""
    pushed.laptop.write("a.sh", write.replace("NAME", "a"))
    pushed.laptop.write("b.sh", write.replace("NAME", "b"))

    def dev(name: str) -> set[str]:
        words = ["dev", "--auto-fetch", "--local-dir", name, "--", "sh", f"{name}.sh"]
        assert 0 == pushed.inv(*words).returncode
        return {path.name for path in (pushed.laptop.root / name / "k").iterdir()}

    assert 0 == pushed.inv("sync").returncode
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(dev, "ab"))

    assert [{f"{name}{i}" for i in range(1, 6)} for name in "ab"] == found


def test_a_file_that_hits_its_limit_is_the_runs_own_failure(pushed: Cable) -> None:
    done = pushed.inv("exec", "--command", "ulimit -f 8; head -c 100000 /dev/zero > big; echo $?; exit 9")

    assert (9, b"153\n") == (done.returncode, done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
class TestFullDisk:
    """The host's disk fills up: the run's own failure is told from ours."""

    @pytest.fixture
    def small(self, cable: Cable) -> Iterator[Cable]:
        """Give a host whose `~/.cache` is a file system of a few MB."""
        cache = cable.laptop.host.home / ".cache"
        cache.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(cache)]).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            assert 0 == cable.inv("sync").returncode
            yield cable
        finally:
            subprocess.run(["umount", "-l", str(cache)], check=True)

    def test_output_that_fills_the_disk(self, small: Cable) -> None:
        done = small.inv("exec", "--command", "seq 1000000; exit 5")

        assert 5 == done.returncode
        assert b"No space left on device" in done.stderr
        assert b"".join(b"%d\n" % i for i in range(1, 1_000_001)).startswith(done.stdout)
        # How much fits depends on what else is there: the program, and what other processes write meanwhile.
        files = [path for path in (small.laptop.host.home / ".cache").rglob("*") if path.is_file()]
        recorded = max(path.stat().st_size for path in files)  # with a few bytes for each frame
        assert 1_000_000 < len(done.stdout) < recorded < len(done.stdout) + 100_000 < 4 * 1024 * 1024

    def test_output_that_is_lost_is_no_success(self, small: Cable) -> None:
        done = small.inv("exec", "--command", "seq 1000000")

        assert 74 == done.returncode
        assert b"exec: " in done.stderr

    def test_a_disk_that_is_full_before_the_run(self, small: Cable) -> None:
        with (small.laptop.host.home / ".cache" / "filler").open("wb") as file:
            subprocess.run(["head", "-c", "5m", "/dev/zero"], stdout=file, stderr=subprocess.DEVNULL)

        done = small.inv("exec", "--", "true")

        assert 74 == done.returncode
        assert b"No space left on device" in done.stderr
