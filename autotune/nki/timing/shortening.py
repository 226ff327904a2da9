"""Trace a few trips of a kernel's long outermost loops instead of all, for kernels too big to trace whole.

A kernel is Python, and its loops are `range`. While `few_trips` is on, an outermost `for` over a long range
yields its first trips and its last one. From the times of two such runs, of two trips and of three, all trips
follow if each costs the same. `estimates` asks for that, and takes the whole trace wherever it is not so.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from autotune.nki import language

LEAST = 8
"""Loops of fewer trips are traced whole."""
_NAMES = ("range", "affine_range", "sequential_range", "static_range")
_FILLERS = ("CACHE", "PRECALL", "EXTENDED_ARG")
_loops: dict[tuple[CodeType, int], bool] = {}


class FewTrips:
    """Stand for `range` in a kernel's module.

    Attributes:
        keep: trips of a loop that are run.
        trips: trips that each shortened loop has.
    """

    def __init__(self, keep: int) -> None:
        """Run that many trips of each long outermost loop."""
        self.keep = keep
        self.trips: list[int] = []
        self._inside = False

    def __call__(self, *bounds: Any) -> Iterable[int]:
        """Return a range, or the first trips of it and the last if it is of a long outermost loop."""
        whole = range(*(int(each) for each in bounds))
        frame = sys._getframe(1)
        if self._inside or len(whole) < 2 or not _is_loop(frame.f_code, frame.f_lasti):
            return whole
        if len(whole) < LEAST:
            return self._outermost(whole)
        self.trips.append(len(whole))
        return self._outermost([*whole[: self.keep - 1], whole[-1]])

    def _outermost(self, trips: Iterable[int]) -> Iterator[int]:
        """Yield the trips of a loop, within which no other one is shortened."""
        self._inside = True
        try:
            yield from trips
        finally:  # also if the kernel leaves the loop early
            self._inside = False


def _is_loop(code: CodeType, call: int) -> bool:
    """Tell whether what a call returns is what a `for` statement goes over."""
    found = _loops.get((code, call))
    if found is None:
        after = [each.opname for each in dis.get_instructions(code) if each.offset > call]
        names = [name for name in after if name not in _FILLERS][:2]
        found = _loops[code, call] = names == ["GET_ITER", "FOR_ITER"]
    return found


@contextmanager
def few_trips(module: dict[str, Any], keep: int) -> Iterator[FewTrips]:
    """Let long loops of a module's functions run a few trips only.

    Args:
        module: the globals of a kernel.
        keep: trips of each outermost loop, at least two.
    """
    few = FewTrips(keep)
    spaces = [module, vars(language), vars(sys.modules.get("nki.language", language))]
    before = [{name: space[name] for name in _NAMES if name in space} for space in spaces]
    for space, names in zip(spaces, before, strict=True):
        space.update(dict.fromkeys(names, few))
    module["range"] = few
    try:
        yield few
    finally:
        for space, names in zip(spaces, before, strict=True):
            space.update(names)
        if module.get("range") is few:
            del module["range"]
