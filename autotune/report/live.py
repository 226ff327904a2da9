"""The line that shows the progress of a search while it runs, and its best result so far."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from tqdm import tqdm

from autotune.model.trial import Status, Trial
from autotune.report.units import duration, elapsed
from autotune.report.visible import encodable, visible

PERIOD_S = 10.0
"""Seconds between two lines in a log: often enough to show progress, and the log stays short."""
_FACTS = 52
"""Columns that the count, the bar and the facts need; a longer name is cut."""


class Live:
    """One tqdm line in a terminal; anywhere else (CI, pipes, files) a plain line now and then.

    Args:
        name: kernel and shapes.
        total: how many trials there will be; None if only a time budget ends the search.
        budget_s: seconds after which the search ends; None if it has no time budget.
        stream: the output; stderr by default, so that stdout carries only results.
    """

    def __init__(
        self, name: str, total: int | None, budget_s: float | None = None, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._name = visible(name)
        self._total = total
        self._budget_s = budget_s
        self._done = self._failed = 0
        self._best_ms: float | None = None
        self._started = self._told = time.monotonic()
        self._closed = False
        self._bar = self._new_bar() if _is_window(self._stream) else None

    def __enter__(self) -> Live:
        """Return itself: `with Live(...) as live`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print the last state, after success and after failure."""
        self.close()

    def trial(self, trial: Trial) -> None:
        """Count one more trial, a new one or one from the cache."""
        self._done += 1
        self._failed += trial.status is not Status.OK
        reading = trial.best_reading
        if reading and (self._best_ms is None or reading.median_ms < self._best_ms):
            self._best_ms = reading.median_ms
        if self._bar is not None:
            self._bar.bar_format = self._bar_format()
            self._bar.update()
        elif time.monotonic() - self._told >= PERIOD_S:
            self._tell()

    def close(self) -> None:
        """Print the last state, once."""
        if self._closed:
            return
        self._closed = True
        if self._bar is None:
            self._tell()
        else:
            self._bar.bar_format = self._bar_format()
            self._bar.refresh()
            self._bar.close()

    def _new_bar(self) -> tqdm:  # type: ignore[type-arg]  # tqdm is generic in its stubs only
        room = max(8, os.get_terminal_size(self._stream.fileno()).columns - _FACTS)
        name = self._name if cell_len(self._name) <= room else set_cell_size(self._name, room - 1) + "…"
        return tqdm(
            total=self._total,
            desc=self._encodable(name),
            file=self._stream,
            dynamic_ncols=True,
            bar_format=self._bar_format(),
        )

    def _bar_format(self) -> str:
        bar = "/{total_fmt} |{bar}|" if self._total else ""
        return self._encodable(f"{{desc}} {{n_fmt}}{bar} {self._facts()}")

    def _tell(self) -> None:
        self._told = time.monotonic()
        count = f"{self._done}/{self._total}" if self._total else str(self._done)
        line = self._encodable(f"{self._name}: {count} trials, {self._facts()}")
        print(line, file=self._stream, flush=True)

    def _facts(self) -> str:
        facts = [f"best {duration(self._best_ms)}" if self._best_ms else "no result yet"]
        if self._failed:
            facts.append(f"{self._failed} failed")
        left = self._left_s()
        facts.append(
            f"{elapsed(left)} left" if left is not None else elapsed(time.monotonic() - self._started)
        )
        return ", ".join(facts)

    def _left_s(self) -> float | None:
        """Return the seconds left by the trials so far or by the budget, the smaller; None if it is over."""
        spent = time.monotonic() - self._started
        ends = [] if self._budget_s is None else [self._budget_s - spent]
        if self._total and self._done:
            ends.append(spent / self._done * (self._total - self._done))
        return min(ends) if ends and min(ends) > 0 and not self._closed else None

    def _encodable(self, text: str) -> str:
        return encodable(text, self._stream.encoding or "utf-8")


def _is_window(stream: TextIO) -> bool:
    """Return whether the stream can rewrite a line; a terminal without a size cannot (`ssh -tt` in a job)."""
    return stream.isatty() and min(os.get_terminal_size(stream.fileno())) > 0
