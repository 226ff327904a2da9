"""Which instructions a kernel's time is made of: the chain from its end back to its start."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from autotune.nki.timing.costs import ENGINES, LOAD, MOVE, STORE
from autotune.nki.timing.schedule import QUEUES, Schedule
from autotune.nki.trace import GPSIMD, SCALAR, TENSOR, VECTOR, Trace

DMA, DMA_LATENCY, SIGNALS = "DMA", "DMA latency", "signals"
SHARES = {TENSOR: TENSOR, VECTOR: VECTOR, SCALAR: SCALAR, GPSIMD: GPSIMD, LOAD: DMA, STORE: DMA, MOVE: DMA}


@dataclass(frozen=True)
class Step:
    """Sum up what the instructions of one line spend on the critical path.

    Args:
        line: (file, number) of the kernel's line.
        name: function of `nki.isa`.
        lane: engine or DMA queue, of `costs.ENGINES`.
        times: instructions of this line on the path.
        work_us: how long they work while all else waits for them.
        wait_us: how long the next one then waits for their result: latency, and signals between engines.
    """

    line: tuple[str, int]
    name: str
    lane: str
    times: int
    work_us: float
    wait_us: float


def chain(schedule: Schedule) -> list[int]:
    """Return the instructions of the critical path, from the first to the last."""
    if not schedule.end:
        return []
    number = schedule.last
    path = []
    while number >= 0:
        path.append(number)
        number = schedule.cause[number]
    return path[::-1]


def steps(trace: Trace, schedule: Schedule, path: list[int]) -> tuple[Step, ...]:
    """Sum up the critical path by line, the longest first."""
    work: dict[tuple[int, int], float] = defaultdict(float)
    wait: dict[tuple[int, int], float] = defaultdict(float)
    times: dict[tuple[int, int], int] = defaultdict(int)
    start, end = schedule.start, schedule.end
    after = schedule.ns
    for number in reversed(path):
        kind, _, _, line = trace.instructions[number]
        key = line, kind
        stop = end[number]
        if stop < after:
            wait[key] += after - stop
            work[key] += stop - start[number]
        else:
            work[key] += after - start[number]
        times[key] += 1
        after = start[number]
    merged: dict[tuple[int, str, int], list[tuple[int, int]]] = defaultdict(list)
    for line, kind in times:
        merged[line, trace.works[kind].name, schedule.engines[kind]].append((line, kind))
    found = [
        Step(
            trace.lines[line],
            name,
            ENGINES[lane],
            sum(times[key] for key in keys),
            sum(work[key] for key in keys) / 1e3,
            sum(wait[key] for key in keys) / 1e3,
        )
        for (line, name, lane), keys in merged.items()
    ]
    return tuple(sorted(found, key=lambda step: -(step.work_us + step.wait_us)))


def shares(path: tuple[Step, ...]) -> dict[str, float]:
    """Return how many us of the critical path each engine, the DMA, its latency and signals take."""
    found: dict[str, float] = defaultdict(float)
    for step in path:
        found[SHARES[step.lane]] += step.work_us
        found[DMA_LATENCY if ENGINES.index(step.lane) >= QUEUES else SIGNALS] += step.wait_us
    return dict(found)


def bound_by(path: tuple[Step, ...]) -> str:
    """Return what the most time of the critical path goes to."""
    found = shares(path)
    return max(found, key=found.__getitem__) if found else "nothing"
