"""A fork for each candidate against one process for the device: the same search, a third of it hostile.

    python benchmarks/isolation.py [--configs 90] [--rounds 3]

Both search the same configs in NumPy, in turns. The hostile ones crash, end their process, raise, use up the
memory, or are wrong; none hangs, since that costs the time limit in both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

from autotune import Status, tune
from autotune.backends import Isolation
from autotune.backends.numpy import NumpyBackend
from autotune.testing import PYTHON_SOURCES, Candidates
from autotune.testing.candidates import INPUTS

HOSTILE = ("crash", "abort", "kill", "exit", "quick_exit", "exception", "memory", "wrong", "nan", "tail")


def sources(configs: int, hostile: bool) -> dict[str, str]:
    """Return so many sources, of which every third is hostile, if any is to be."""
    names = [
        HOSTILE[number // 3 % len(HOSTILE)] if hostile and number % 3 == 0 else "right"
        for number in range(configs)
    ]
    return {f"{name}{number}": f"{PYTHON_SOURCES[name]}# {number}\n" for number, name in enumerate(names)}


def search(process: Isolation, configs: int, hostile: bool) -> float:
    """Return the seconds of one search."""
    backend = NumpyBackend(process=process)
    candidates = Candidates(backend, sources(configs, hostile))
    with tempfile.TemporaryDirectory() as cache:
        begin = time.monotonic()
        found = tune(candidates.kernel(), INPUTS, backend=backend, cache_dir=cache)
        took = time.monotonic() - begin
    right = sum(trial.status is Status.OK for trial in found.trials)
    expected = sum(name.startswith("right") for name in candidates.sources)
    assert (configs, expected) == (len(found.trials), right), [trial.message for trial in found.trials]
    return took


def main() -> None:
    """Print the medians."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--configs", type=int, default=90)
    flags.add_argument("--rounds", type=int, default=3)
    given = flags.parse_args()
    ways: list[tuple[Isolation, bool]] = [
        ("fork", True),
        ("device", True),
        ("fork", False),
        ("device", False),
    ]
    taken: dict[tuple[Isolation, bool], list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for process, hostile in ways:
            taken[process, hostile].append(search(process, given.configs, hostile))
    for (process, hostile), seconds in taken.items():
        what = "a third hostile" if hostile else "none hostile"
        each = ", ".join(f"{second:.2f}" for second in seconds)
        print(f"{process:7} {what:16} {statistics.median(seconds):6.2f} s of {each}")


if __name__ == "__main__":
    main()
