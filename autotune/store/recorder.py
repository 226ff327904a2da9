"""Recorder: writes beside the measuring, one task after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_BEHIND = 4  # tasks that may wait, two for each trial: what a kill can lose


class Recorder:
    """One thread that runs tasks in order: some file systems take milliseconds to create a file."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "recorder")
        self._tasks: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Have a task run after those before it; wait where too many do already.

        Raises:
            Exception: what an earlier task raised; nothing after it was run.
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
            Exception: what a task raised.
        """
        while self._tasks:
            self._tasks.popleft().result()

    def close(self) -> None:
        """Run what is left, and end the thread.

        Raises:
            Exception: what a task raised.
        """
        try:
            self.drain()
        finally:
            self._pool.shutdown()
