"""Recorder: a thread that writes while the tuner measures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_BEHIND = 4  # queued tasks, two for each trial: a kill loses no more than these


class Recorder:
    """One thread that runs tasks in order, since some file systems take milliseconds to create a file."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "recorder")
        self._tasks: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task; wait if too many are queued.

        Raises:
            Exception: an earlier task raised it; no task after that one was run.
        """
        while self._tasks and (self._tasks[0].done() or len(self._tasks) > _BEHIND):
            self._tasks.popleft().result()
        self._tasks.append(self._pool.submit(self._run, task))

    def _run(self, task: Callable[[], None]) -> None:
        if self._failed:
            return
        self._failed = True
        task()
        self._failed = False

    def drain(self) -> None:
        """Wait until every task has run.

        Raises:
            Exception: a task raised it.
        """
        while self._tasks:
            self._tasks.popleft().result()

    def close(self) -> None:
        """Run the queued tasks, and end the thread.

        Raises:
            Exception: a task raised it.
        """
        try:
            self.drain()
        finally:
            self._pool.shutdown()
