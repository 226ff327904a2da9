"""The threads of a candidate: they outlive a call, but neither a fork nor the library."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from candidates import Array, compiled, draw

from autotune.kernels import softmax

THREADS = 3


@dataclass
class Candidate:
    """A softmax on three threads, loaded."""

    library: ctypes.CDLL
    x: Array

    def is_right(self) -> bool:
        """Call it, and say whether every row was computed."""
        y = np.full_like(self.x, np.nan)
        self.library.softmax(ctypes.c_void_p(self.x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
        return np.allclose(softmax.golden(self.x)[0], y, atol=1e-6)

    def unload(self) -> None:
        """Unload the library."""
        _ctypes.dlclose(self.library._handle)


@pytest.fixture
def candidate(tmp_path: Path) -> Iterator[Candidate]:
    (x,) = draw(softmax.inputs(64, 100).specs)
    config = {"variant": "online", "vector_bytes": 16, "unroll": 2, "threads": THREADS}
    yield Candidate(ctypes.CDLL(compiled(softmax.kernel, config, [x], tmp_path).path), x)


def thread_count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def states() -> list[str]:
    """Return the state of each of this process's threads: R where it runs, S where it sleeps."""
    return [
        Path(task, "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path("/proc/self/task").iterdir()
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_call_after_call_is_right_on_the_same_threads(candidate: Candidate) -> None:
    before = thread_count()
    assert all(candidate.is_right() for _ in range(500))
    assert before + THREADS - 1 == thread_count()


def test_idle_threads_sleep_and_wake(candidate: Candidate) -> None:
    assert candidate.is_right()
    for _ in range(3):
        wait_until(lambda: states().count("R") <= 1)
        assert candidate.is_right()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is no other core")
def test_a_woken_thread_is_kept_off_the_core_of_its_waker(candidate: Candidate) -> None:
    allowed = len(os.sched_getaffinity(0))
    before = set(Path("/proc/self/task").iterdir())
    assert candidate.is_right()
    wait_until(lambda: states().count("R") <= 1)
    assert candidate.is_right()
    workers = set(Path("/proc/self/task").iterdir()) - before
    assert [allowed - 1] * (THREADS - 1) == [len(os.sched_getaffinity(int(task.name))) for task in workers]


def test_a_forked_process_starts_its_own_threads(candidate: Candidate) -> None:
    assert candidate.is_right()
    child = os.fork()
    if child == 0:
        right = all(candidate.is_right() for _ in range(10))
        os._exit(0 if right and thread_count() == THREADS else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert candidate.is_right()


def test_the_threads_end_when_the_library_is_unloaded(candidate: Candidate) -> None:
    before = thread_count()
    assert candidate.is_right()
    candidate.unload()
    assert before == thread_count()


def test_a_forked_process_unloads_what_its_parent_still_uses(candidate: Candidate) -> None:
    assert candidate.is_right()
    child = os.fork()
    if child == 0:
        candidate.unload()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert candidate.is_right()


def test_one_core_is_enough(candidate: Candidate) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for _ in range(3):
            assert candidate.is_right()
            wait_until(lambda: states().count("R") <= 1)
    finally:
        os.sched_setaffinity(0, allowed)
