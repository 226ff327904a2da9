"""When each instruction of a trace runs: engines in order and side by side, DMA queues over one pool.

One pass in program order is exact for engines that work in order: whatever an instruction waits for
stands before it in the program. There are three DMA queues, out of HBM, into it and all others, each in
order. They share the bandwidth of 16 DMA engines: a DMA takes what is left of it from its start on, so
that one that stands earlier in the program is served first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from autotune.nki.timing.costs import ENGINES, LOAD, Price
from autotune.nki.timing.dependencies import Waits
from autotune.nki.trace import Trace

QUEUES = ENGINES.index(LOAD)
"""The lanes from this one on are DMA queues."""


@dataclass(frozen=True)
class Schedule:
    """Hold the time of every instruction, in ns from the kernel's start.

    Args:
        ns: when the last result is there.
        start: when each instruction starts.
        end: when its engine is free for the next one.
        cause: the instruction that each one waited for last, -1 for none; the engine's previous instruction
            is a cause, too.
        busy: for each lane of `ENGINES`, how long it worked.
        last: the instruction whose result comes last, -1 if there is none.
        engines: for each piece of work, the place of its lane in `ENGINES`.
    """

    ns: float
    start: list[float]
    end: list[float]
    cause: list[int]
    busy: list[float]
    last: int
    engines: list[int]


def schedule(trace: Trace, prices: Sequence[Price], waits: Sequence[Waits]) -> Schedule:
    """Return when each instruction of a trace runs.

    Args:
        prices: price of each piece of work of the trace.
        waits: for each instruction those it waits for; see `dependencies.waits`.
    """
    engines = [each.engine for each in prices]
    busy_ns = [each.busy_ns for each in prices]
    done_ns = [each.done_ns for each in prices]
    signal_ns = [each.done_ns + each.signal_ns for each in prices]
    works = [work for work, _, _, _ in trace.instructions]
    free = [0.0] * len(ENGINES)
    before = [-1] * len(ENGINES)
    start: list[float] = []
    end: list[float] = []
    cause: list[int] = []
    ns, last = 0.0, -1
    serve = _Pool().serve
    for number, work in enumerate(works):
        engine = engines[work]
        begin = free[engine]
        why = before[engine]
        for other in waits[number]:
            its = works[other]
            ready = end[other] + (done_ns[its] if engines[its] == engine else signal_ns[its])
            if ready > begin:
                begin, why = ready, other
        stop = begin + busy_ns[work] if engine < QUEUES else serve(engine - QUEUES, begin, busy_ns[work])
        free[engine] = stop
        before[engine] = number
        start.append(begin)
        end.append(stop)
        cause.append(why)
        if stop + done_ns[work] > ns:
            ns, last = stop + done_ns[work], number
    busy = [0.0] * len(ENGINES)
    for work, count in Counter(works).items():
        busy[engines[work]] += count * busy_ns[work]
    return Schedule(ns, start, end, cause, busy, last, engines)


class _Pool:
    """Share the DMA engines between queues: each is served in the time that the others left."""

    def __init__(self) -> None:
        """Start with an idle pool."""
        count = len(ENGINES) - QUEUES
        self.taken: list[list[tuple[float, float]]] = [[] for _ in range(count)]
        self.seen = [[0] * count for _ in range(count)]
        self.until = [0.0] * count

    def serve(self, queue: int, begin: float, takes: float) -> float:
        """Return when a DMA is through that needs the whole pool for a time.

        Args:
            begin: never less than in the queue's call before.
        """
        mine, until = self.taken[queue], self.until
        stop = begin + takes
        until[queue] = begin
        if max(until) > begin:  # else nobody else is served from here on
            stop = self._between(queue, begin, takes)
        until[queue] = stop
        if mine and mine[-1][1] >= begin:
            mine[-1] = (mine[-1][0], stop)
        else:
            mine.append((begin, stop))
        return stop

    def _between(self, queue: int, begin: float, takes: float) -> float:
        """Return when a DMA is through that is served between those of the other queues."""
        now, left = begin, takes
        seen = self.seen[queue]
        while True:
            free_until = inf
            for other, taken in enumerate(self.taken):
                if other == queue or not taken:
                    continue
                place, last = seen[other], len(taken) - 1
                while place < last and taken[place][1] <= now:
                    place += 1
                seen[other] = place  # at most the last one, which may still grow
                low, high = taken[place]
                if low <= now < high:
                    now, free_until = high, now
                    break
                if low > now:
                    free_until = min(free_until, low)
            if free_until < now:  # it was taken: look again from its end on
                continue
            if free_until - now >= left:
                return now + left
            left -= free_until - now
            now = free_until
