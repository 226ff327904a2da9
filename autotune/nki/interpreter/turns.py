"""Two cores of one kernel take turns: one runs until it has to wait for the other.

The order is always the same, so that a kernel that lacks a barrier fails in every run, not in some.
"""

from __future__ import annotations

import threading
from typing import Any

from autotune.nki.errors import NkiError, kernel_line


class Abandoned(Exception):
    """Another core of the kernel has failed; this one ends quietly."""


class Turns:
    """Decide which core runs, and let the cores meet.

    Args:
        cores: how many there are.
    """

    def __init__(self, cores: int) -> None:
        """Give core 0 the first turn."""
        self.cores = cores
        self.turn = 0
        self.ended: set[int] = set()
        self.failed = False
        self.met: dict[object, dict[int, Any]] = {}
        self.visits: dict[tuple[int, object], int] = {}
        self.waits: dict[int, tuple[object, str]] = {}
        self.meetings = [0] * cores
        self.changed = threading.Condition()

    def begin(self, core: int) -> None:
        """Wait for the first turn of a core."""
        with self.changed:
            self._until_turn(core)

    def _until_turn(self, core: int) -> None:
        while self.turn != core and not self.failed:
            self.changed.wait()
        if self.failed:
            raise Abandoned

    def _pass_on(self, core: int) -> bool:
        """Give the turn to a core that can go on; tell whether there is one."""
        for step in range(1, self.cores):
            other = (core + step) % self.cores
            waits = self.waits.get(other)
            if other not in self.ended and (waits is None or len(self.met[waits[0]]) == self.cores):
                self.turn = other
                self.changed.notify_all()
                return True
        return False

    def meet(self, core: int, point: object, gift: Any, what: str) -> dict[int, Any]:
        """Wait until every core has come to a point; return what each brought.

        Raises:
            NkiError: another core has ended, or waits elsewhere, so that none can go on.
        """
        with self.changed:
            visit = self.visits[core, point] = self.visits.get((core, point), 0) + 1
            key = (point, visit)
            gifts = self.met.setdefault(key, {})
            gifts[core] = gift
            self.meetings[core] += 1
            if len(gifts) < self.cores:
                self.waits[core] = (key, f"{what} at {':'.join(map(str, kernel_line()))}")
                if not self._pass_on(core):
                    raise self._stuck(core)
                self._until_turn(core)
                if len(gifts) < self.cores:  # woken up because nobody else is left
                    raise self._stuck(core)
                del self.waits[core]
            return gifts

    def _stuck(self, core: int) -> NkiError:
        others = [
            f"core {other} {'waits in ' + self.waits[other][1] if other in self.waits else 'has ended'}"
            for other in range(self.cores)
            if other != core
        ]
        return NkiError(
            f"core {core} waits in {self.waits[core][1]}, and {', '.join(others)}: neither can go on"
        )

    def end(self, core: int) -> None:
        """Note that a core has ended, and let another run; one that waits for this core fails."""
        with self.changed:
            self.ended.add(core)
            if not self._pass_on(core) and len(self.ended) < self.cores:
                self.turn = next(other for other in range(self.cores) if other not in self.ended)
                self.changed.notify_all()

    def fail(self) -> None:
        """Let every other core end."""
        with self.changed:
            self.failed = True
            self.changed.notify_all()
