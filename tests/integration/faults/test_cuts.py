"""A network that is cut, or flips a bit, at any byte: nothing of a run is lost.

The long form, 100 cuts, and the line for docs/figures.md: `./inv test --long -- tests/integration/faults`.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.proxy import Fault
from remote_tools.sync.push import MANY_FILES
from tests.integration.faults.conftest import Cable

MB = 1_000_000
SENT_BYTES, PRINTED_BYTES, RESULT_BYTES = MB, MB // 2, 3 * MB // 2
JOB = f"""\
import hashlib, os, pathlib, random, sys
sent = pathlib.Path("data.bin").read_bytes()
noise = random.Random(sent)
folder = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"], "kernel", "1x1")
folder.mkdir(parents=True, exist_ok=True)
(folder / "large").write_bytes(noise.randbytes({RESULT_BYTES}))
(folder / "small").write_text(hashlib.sha256(sent).hexdigest())
for number in range({PRINTED_BYTES // 100}):
    print(f"{{number:09}} " + noise.randbytes(45).hex())
print("done", file=sys.stderr)
sys.exit(7)
"""
SHORT, LONG = 4, 34


def numbers() -> list[object]:
    """Return the cuts' numbers; most belong to the long form."""
    return [pytest.param(i, marks=pytest.mark.long if i >= SHORT else ()) for i in range(LONG)]


@dataclass(frozen=True)
class Expected:
    """What a run with these sources prints and writes, wherever it runs."""

    printed: bytes
    files: dict[str, str]

    @classmethod
    def of(cls, sent: bytes) -> Expected:
        """Do what the job does."""
        noise = random.Random(sent)
        large = noise.randbytes(RESULT_BYTES)
        lines = [f"{n:09} " + noise.randbytes(45).hex() + "\n" for n in range(PRINTED_BYTES // 100)]
        small = hashlib.sha256(sent).hexdigest().encode()
        files = {"large": hashlib.sha256(large).hexdigest(), "small": hashlib.sha256(small).hexdigest()}
        return cls("".join(lines).encode(), files)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def survive(cable: Cable, fault: Fault, seed: int) -> None:
    """Push, run and fetch once while the fault strikes, and hold all that arrives against what should."""
    sent = random.Random(seed).randbytes(SENT_BYTES)
    cable.laptop.write("job.py", JOB)
    (cable.laptop.root / "data.bin").write_bytes(sent)
    cable.network.set(fault)

    done = cable.inv("dev", "--auto-fetch", "--", "job.py")

    expected = Expected.of(sent)
    assert (7, b"done") == (done.returncode, b"done" if b"done\n" in done.stderr else done.stderr)
    assert expected.printed == done.stdout
    assert expected.files == digests(cable.laptop.root / "cache" / "kernel" / "1x1")


@pytest.mark.parametrize("number", numbers())
@pytest.mark.parametrize("phase", ["upload", "run", "fetch"])
def test_a_run_cut_at_a_random_byte(cable: Cable, phase: str, number: int) -> None:
    chance = random.Random(f"{phase} {number}")
    fault = {
        "upload": Fault("cut", "up", chance.randrange(SENT_BYTES)),
        "run": Fault("cut", "down", chance.randrange(PRINTED_BYTES)),
        "fetch": Fault("cut", "down", PRINTED_BYTES + chance.randrange(RESULT_BYTES)),
    }[phase]

    survive(cable, fault, number)

    assert cable.network.struck.is_set()


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(i, marks=pytest.mark.long) for i in range(2, 20))])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_bit_flipped_at_a_random_byte(cable: Cable, direction: str, number: int) -> None:
    """Flip it after the handshake: before it, ssh must take it for an attack, and does."""
    chance = random.Random(f"{direction} {number}")
    assert 0 == cable.inv("sync").returncode

    survive(cable, Fault("corrupt", direction, chance.randrange(SENT_BYTES)), number)  # type: ignore[arg-type]


def test_a_run_cut_again_and_again(cable: Cable) -> None:
    cable.laptop.write("lines.py", "for i in range(200000): print(i)\nraise SystemExit(9)\n")
    assert 0 == cable.inv("sync").returncode
    cable.network.set(*[Fault("cut", "down", 200_000)] * 5)

    done = cable.inv("exec", "--", "python", "lines.py")

    assert cable.network.struck.is_set()
    assert 9 == done.returncode
    assert "".join(f"{i}\n" for i in range(200000)).encode() == done.stdout


@pytest.mark.parametrize("number", numbers())
def test_a_push_by_two_rsyncs_cut_at_a_random_byte(cable: Cable, number: int) -> None:
    chance = random.Random(f"two rsyncs {number}")
    count = MANY_FILES + 100
    source = cable.laptop.root / "source"
    source.mkdir()
    for i in range(count):
        (source / f"{i}").write_bytes(chance.randbytes(SENT_BYTES // count))
    cable.network.set(Fault("cut", "up", chance.randrange(SENT_BYTES)))

    pushed, again = cable.inv("sync"), cable.inv("sync")

    assert cable.network.struck.is_set()
    assert (0, 0) == (pushed.returncode, again.returncode), (pushed.stderr, again.stderr)
    assert b"is up to date" in again.stderr
    there = cable.laptop.host.home / cable.laptop.root.parent.name
    assert digests(source) == digests(there / "source")
    assert {"source", "tasks.py", "invoke.yaml"} == {path.name for path in there.iterdir()}
