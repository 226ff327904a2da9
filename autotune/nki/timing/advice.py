"""What to do next about a kernel: read off its critical path, each point with the time that it is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from autotune.nki.timing.costs import CORES, DMA_ENGINES, ENGINES
from autotune.nki.timing.critical import DMA, SIGNALS, shares
from autotune.nki.timing.estimates import Estimate, Timeline
from autotune.nki.timing.schedule import QUEUES
from autotune.nki.trace import GPSIMD, HBM, PSUM, SCALAR, TENSOR, VECTOR, Trace

LEAST = 0.03
"""Points that are about less than this part of the time are left out."""
LONG_ROW = 2048
"""Bytes that lie together from which on a DMA is near its bandwidth (nki-dma-bandwidth-guide.rst)."""
NAMELESS = "tensor"
"""Name of a tensor that is assigned to no variable where it is made."""
MANY_SIGNALS = 0.2
"""Signals that take more than this part of the time are worth a point."""
LIMIT = 0.85
"""An engine that works for this part of the time is what bounds the kernel."""

SHARED = (
    (
        SCALAR,
        ("tensor_copy", "tensor_scalar"),
        "give ScalarE some of the copies and of the arithmetic with one tensor (nisa.activation).",
    ),
    (
        GPSIMD,
        ("tensor_tensor", "memset", "iota"),
        "give GpSimd some of the arithmetic with two tensors in SBUF (engine=nisa.engine.gpsimd).",
    ),
)
"""What VectorE need not do itself: who else can, which functions, and how."""


@dataclass(frozen=True)
class Advice:
    """Name one thing to change.

    Args:
        us: microseconds of the estimate that it is about; not all of them can be saved.
        text: what to do, and why.
        line: (file, number) of the kernel's line, None if it is about the whole kernel.
    """

    us: float
    text: str
    line: tuple[str, int] | None = None


def advice(estimate: Estimate) -> tuple[Advice, ...]:
    """Return what to do next, the most promising first; one that says so if there is nothing."""
    timeline = estimate.timeline
    if timeline is None or not timeline.path:
        return ()
    found = [
        *_single_buffers(timeline),
        *_single_accumulators(timeline),
        *_dma(estimate, timeline),
        *_engines(estimate, timeline),
        *_ends(timeline),
        *_signals(estimate),
    ]
    worth = [each for each in found if each.us >= LEAST * estimate.us]
    worth.sort(key=lambda each: -each.us)
    if not estimate.fits:
        worth.insert(0, Advice(estimate.us, "It does not fit: make blocks smaller, or free tensors earlier."))
    return tuple(worth) or (Advice(0.0, _nothing_to_do(estimate)),)


def _nothing_to_do(estimate: Estimate) -> str:
    if estimate.bound_by == TENSOR:
        return (
            f"Bound by the tensor engine, at {estimate.mfu:.0%} of its peak: only less arithmetic would help."
        )
    return f"Bound by {estimate.bound_by}; no single line stands out."


def _links(timeline: Timeline) -> Iterator[tuple[int, int, float]]:
    """Yield what waits for what along the critical path, and the ns from one start to the next."""
    start = timeline.schedule.start
    for one, other in zip(timeline.path, timeline.path[1:], strict=False):
        yield one, other, start[other] - start[one]


def _lane(timeline: Timeline, number: int) -> int:
    return timeline.schedule.engines[timeline.trace.instructions[number][0]]


def _tensor_name(trace: Trace, regions: tuple[int, ...]) -> str:
    return _called(trace, trace.regions[regions[0]].tensor) if regions else "what it loads"


def _called(trace: Trace, number: int) -> str:
    """Return what a person knows a tensor by: its name, or the line that made it."""
    tensor = trace.tensors[number]
    if tensor.name != NAMELESS:
        return tensor.name
    file, line = trace.lines[tensor.line]
    return f"the tensor of {PurePath(file).name}:{line}"


def _single_buffers(timeline: Timeline) -> Iterator[Advice]:
    """Find loads that wait until an engine is done with the tile that they fill."""
    trace = timeline.trace
    lost: dict[tuple[int, str, str], float] = defaultdict(float)
    path = timeline.path
    for place, number in enumerate(path[:-1]):
        if place == 0 or _lane(timeline, number) != QUEUES or _lane(timeline, path[place - 1]) >= QUEUES:
            continue
        last = place  # the loads that follow each other in the queue are of the same trip
        while last + 1 < len(path) and _lane(timeline, path[last + 1]) == QUEUES:
            last += 1
        end = timeline.schedule.start[path[last + 1]] if last + 1 < len(path) else timeline.schedule.ns
        _, reads, writes, line = trace.instructions[number]
        key = line, _tensor_name(trace, reads), _tensor_name(trace, writes)
        lost[key] += end - timeline.schedule.start[number]
    for (line, source, tile), ns in lost.items():
        yield Advice(
            ns / 1e3,
            f"Loads of {source} are not doubled: they wait until {tile} is no longer used, and all else "
            f"waits for them. Give {tile} one more buffer.",
            trace.lines[line],
        )


def _single_accumulators(timeline: Timeline) -> Iterator[Advice]:
    """Find matmuls, and zeros for them, that wait until a PSUM tile is drained."""
    trace = timeline.trace
    tensor = ENGINES.index(TENSOR)
    lost: dict[tuple[int, str], float] = defaultdict(float)
    since = 0.0
    for one, other, _ in _links(timeline):
        if _lane(timeline, one) == tensor != _lane(timeline, other):
            since = timeline.schedule.end[one]
        elif _lane(timeline, one) != tensor == _lane(timeline, other) and since:
            _, _, writes, _ = trace.instructions[other]
            _, reads, _, line = trace.instructions[one]
            drained = {trace.regions[each].tensor for each in (*reads, *trace.instructions[one][2])}
            target = trace.regions[writes[0]].tensor if writes else -1
            if target in drained and trace.tensors[target].memory == PSUM:
                name = _called(trace, target)
                lost[line, name] += timeline.schedule.start[other] - since
            since = 0.0
    for (line, name), ns in lost.items():
        yield Advice(
            ns / 1e3,
            f"{name} is not doubled: the tensor engine waits until it is drained. Take two tiles of PSUM in "
            "turn, or make the tile anew for each result.",
            trace.lines[line],
        )


def _dma(estimate: Estimate, timeline: Timeline) -> Iterator[Advice]:
    """Find what keeps the DMA engines busy if they are what bounds the kernel."""
    if estimate.dma.busy < LIMIT and not estimate.bound_by.startswith(DMA):
        return
    yield from _loaded_again(timeline)
    yield from _short_rows(timeline)


def _loaded_again(timeline: Timeline) -> Iterator[Advice]:
    """Find tensors that are loaded more than once."""
    trace = timeline.trace
    loaded: dict[int, int] = defaultdict(int)
    parts: dict[int, set[int]] = defaultdict(set)
    for work, reads, _, _ in trace.instructions:
        if timeline.schedule.engines[work] == QUEUES and reads:
            tensor = trace.regions[reads[0]].tensor
            if trace.tensors[tensor].memory == HBM:
                loaded[tensor] += timeline.prices[work].hbm_bytes
                parts[tensor].add(reads[0])
    for tensor, size in loaded.items():
        regions = [trace.regions[each] for each in parts[tensor]]
        once = sum((each.end - each.begin) * (each.high - each.low) for each in regions)
        if size > 1.5 * once > 0:
            yield Advice(
                (size - once) / _bandwidth(trace) / 1e3,
                f"DMA-bound: {_called(trace, tensor)} is loaded {size / once:.1f} times over, "
                f"{size / 2**20:,.0f} MiB in all. Keep larger blocks of it in SBUF.",
            )


def _short_rows(timeline: Timeline) -> Iterator[Advice]:
    """Find DMAs whose bytes lie in runs too short for the bandwidth."""
    trace = timeline.trace
    lost: dict[tuple[int, int], float] = defaultdict(float)
    for work, _, _, line in trace.instructions:
        price, kind = timeline.prices[work], trace.works[work]
        if price.engine >= QUEUES and price.hbm_bytes:
            sides = [each for each in (kind.dst, *kind.srcs[:1]) if each is not None]
            row = min(each.run * each.itemsize for each in sides)
            if row < LONG_ROW:
                lost[line, row] += price.busy_ns - price.hbm_bytes / _bandwidth(trace)
    for (line, row), ns in lost.items():
        yield Advice(
            ns / 1e3,
            f"DMA-bound: runs of {row:,} bytes are too short for the bandwidth. Move at least {LONG_ROW:,} "
            "bytes a partition at a time.",
            trace.lines[line],
        )


def _bandwidth(trace: Trace) -> float:
    """Return bytes a ns of all DMA engines."""
    return CORES[trace.target].dma_engine_gb_s * DMA_ENGINES


def _engines(estimate: Estimate, timeline: Timeline) -> Iterator[Advice]:
    """Find an engine that bounds the kernel while another could share its work, and matmuls of float32."""
    trace = timeline.trace
    by_name: dict[str, float] = defaultdict(float)
    slow = 0.0
    for work, _, _, _ in trace.instructions:
        price, kind = timeline.prices[work], trace.works[work]
        if ENGINES[price.engine] == VECTOR:
            by_name[kind.name] += price.busy_ns
        if price.flops and kind.srcs[0].dtype == "float32":
            slow += price.busy_ns
    vector = estimate.engines[VECTOR]
    for other, names, how in SHARED:
        movable = sum(by_name[name] for name in names) / 1e3
        idle = (vector - estimate.engines[other]) / 2 * estimate.us
        if vector > LIMIT and min(movable, idle) > 0:
            yield Advice(
                min(movable, idle),
                f"VectorE works for {vector:.0%} of the time: {how}",
            )
    if slow > LIMIT * estimate.us * 1e3:
        yield Advice(slow * 0.75 / 1e3, "Matmuls of float32 take four passes: bfloat16 would take a quarter.")


def _signals(estimate: Estimate) -> Iterator[Advice]:
    """Find out whether engines mostly wait for each other."""
    us = shares(estimate.critical_path).get(SIGNALS, 0.0)
    if us > MANY_SIGNALS * estimate.us:
        yield Advice(
            us,
            "Engines hand results to each other one at a time, and wait for the signals. Take two tiles "
            "through the steps in turn, so that one is worked on while the other waits.",
        )


def _ends(timeline: Timeline) -> Iterator[Advice]:
    """Find a long wait for the first matmul, and a long way from the last one to the end."""
    tensor = ENGINES.index(TENSOR)
    matmuls = [
        number
        for number, (work, _, _, _) in enumerate(timeline.trace.instructions)
        if timeline.schedule.engines[work] == tensor
    ]
    if not matmuls:
        return
    before = timeline.schedule.start[matmuls[0]]
    after = timeline.schedule.ns - timeline.schedule.end[matmuls[-1]]
    yield Advice(
        before / 1e3,
        f"The first matmul starts after {before / 1e3:,.1f} us: load what it needs first, in smaller pieces.",
        timeline.trace.lines[timeline.trace.instructions[matmuls[0]][3]],
    )
    yield Advice(
        after / 1e3,
        f"The kernel goes on for {after / 1e3:,.1f} us after the last matmul: store each result as soon as "
        "it is there.",
        timeline.trace.lines[timeline.trace.instructions[matmuls[-1]][3]],
    )
