"""How long a kernel takes on a NeuronCore, and why: an estimate from a trace, never a measurement.

A trace is priced under several profiles, since some figures of the machine are not published. The first
profile gives the estimate, all of them together its range. docs/nki-model.md has what others measured beside
what this says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.nki.launch import Kernel, Recorded, jit, record
from autotune.nki.machine import MACHINES, PARTITIONS
from autotune.nki.timing.costs import (
    CORES,
    ENGINES,
    LOAD,
    MODEL_VERSION,
    PROFILES,
    STORE,
    Price,
    Profile,
    peak_tflops,
    price,
)
from autotune.nki.timing.critical import Step, bound_by, chain, steps
from autotune.nki.timing.dependencies import place, waits
from autotune.nki.timing.renaming import renamed
from autotune.nki.timing.schedule import QUEUES, Schedule, schedule
from autotune.nki.timing.shortening import few_trips
from autotune.nki.trace import PSUM, SBUF, TENSOR, TooLong, Trace, at_most

DISCLAIMER = "estimated by a model; nothing was run on a NeuronCore"
LONG = 5_000
"""Instructions from which on a kernel is not traced whole if a few trips of its outermost loop will do."""
TIE = 0.2
"""Estimates of one task that differ by less than this share of the smaller are a tie: docs/nki-model.md."""


@dataclass(frozen=True)
class DmaUse:
    """Say what the DMA engines do.

    Args:
        busy: fraction of the time that the 16 DMA engines move bytes.
        loaded_bytes: bytes read from HBM.
        stored_bytes: bytes written to HBM.
        count: DMAs started.
    """

    busy: float
    loaded_bytes: int
    stored_bytes: int
    count: int


@dataclass(frozen=True)
class Timeline:
    """Hold what the lanes are drawn from: a trace, its prices and schedule under the first profile."""

    trace: Trace
    prices: list[Price]
    schedule: Schedule
    path: list[int]


@dataclass(frozen=True)
class Estimate:
    """Say how long a kernel takes on one core of a target, by the model.

    Args:
        us: estimated microseconds, under the first profile.
        low_us: the least of all profiles.
        high_us: the most of all profiles.
        by_profile: estimated microseconds by the name of the profile.
        target: "trn1", "trn2" or "trn3".
        model: version of the model.
        engines: fraction of the time that each engine works.
        dma: what the DMA engines do.
        critical_path: the lines that the time is made of, the longest first; see `critical.Step`.
        bound_by: what most of the critical path goes to: an engine, "DMA", "DMA latency" or "signals".
        mfu: fraction of the tensor engine's peak that the matmuls reach.
        mbu: fraction of the core's share of HBM bandwidth.
        peak_sbuf_bytes: most bytes of SBUF alive at once, over all partitions.
        peak_psum_bytes: the same of PSUM.
        sbuf_bytes: all of SBUF.
        psum_bytes: all of PSUM.
        fits: whether both are within the core's memory; if not, the compiler spills or refuses, and the
            time says nothing.
        confidence: "fair": products like it came out within 20 %; "low": within a factor of two.
        timeline: what the lanes are drawn from.
        trips: of a kernel of more than 5,000 instructions, how many trips of its outermost loop were traced,
            of how many; the rest is extrapolated, and the critical path and the lanes are of the traced ones.
            None if all was traced.
    """

    us: float
    low_us: float
    high_us: float
    by_profile: dict[str, float]
    target: str
    engines: dict[str, float]
    dma: DmaUse
    critical_path: tuple[Step, ...]
    bound_by: str
    mfu: float
    mbu: float
    peak_sbuf_bytes: int
    peak_psum_bytes: int
    sbuf_bytes: int
    psum_bytes: int
    fits: bool
    confidence: str
    model: str = MODEL_VERSION
    trips: tuple[int, int] | None = None
    timeline: Timeline | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """Return one line for people."""
        size = "" if self.fits else ", does not fit"
        if self.trips:
            size += f", from {self.trips[0]} of {self.trips[1]} trips of its outermost loop"
        return (
            f"estimated {self.us:,.1f} us ({self.low_us:,.1f} to {self.high_us:,.1f}) on {self.target}, "
            f"bound by {self.bound_by}, MFU {self.mfu:.1%}, {self.confidence} confidence{size}; {DISCLAIMER}"
        )


def estimate(
    kernel: Any,
    *operands: Any,
    target: str | None = None,
    profiles: Sequence[Profile] = PROFILES,
    renames: bool = False,
    **keywords: Any,
) -> Estimate:
    """Return how long a kernel takes on a NeuronCore, and why, without running or computing anything.

    Args:
        kernel: a function, or what `nki.jit` made of one; of `kernel[2]`, the core that takes longer is told,
            as if the two never waited for each other.
        operands: arrays, of which only shape and dtype matter, or pairs such as ((2048, 2048), "bfloat16").
        target: "trn1", "trn2" or "trn3"; without it NEURON_PLATFORM_TARGET_OVERRIDE, else "trn2".
        profiles: what the trace is priced under; the first one gives the estimate.
        renames: the kernel is compiled with `enable-linear-scan-allocation=false`; see `renaming`.
        keywords: what goes to the kernel by name.

    Raises:
        NkiError: the kernel asks for something that the target does not do, or for more memory than it has.
    """
    how = (profiles, renames)
    try:
        with at_most(LONG):
            return _of_cores(record(kernel, operands, keywords, target), *how)
    except TooLong:
        few = _from_few_trips(kernel, operands, keywords, target, *how)
        return few or _of_cores(record(kernel, operands, keywords, target), *how)


def _of_cores(cores: Sequence[Recorded], profiles: Sequence[Profile], renames: bool) -> Estimate:
    """Return the estimate of the core that takes longest."""
    found = []
    for core in cores:
        its = estimate_trace(core.trace, profiles, renames=renames)
        sbuf, psum = core.sbuf.bytes * PARTITIONS, core.psum.bytes * PARTITIONS
        fits = core.sbuf.fits and core.psum.fits
        confidence = its.confidence if fits else "low"
        found.append(
            replace(its, peak_sbuf_bytes=sbuf, peak_psum_bytes=psum, fits=fits, confidence=confidence)
        )
    return max(found, key=lambda each: each.us)


def _from_few_trips(
    kernel: Any,
    operands: Sequence[Any],
    keywords: dict[str, Any],
    target: str | None,
    profiles: Sequence[Profile],
    renames: bool,
) -> Estimate | None:
    """Return the estimate that follows from two and from three trips of the long outermost loop.

    None if its trips need more and more memory, or if there are several such loops of different lengths: then
    only the whole trace tells.
    """
    jitted: Kernel = jit(kernel)
    if jitted.grid:
        return None
    runs = []
    for keep in (2, 3):
        with few_trips(jitted.function.__globals__, keep) as few:
            try:
                runs.append(_of_cores(record(jitted, operands, keywords, target), profiles, renames))
            except Exception:  # noqa: BLE001  whatever a kernel does without its other trips; the whole one tells
                return None
        if not few.trips:  # that was the whole kernel
            return runs[0]
    two, three = runs
    alike = two.peak_sbuf_bytes == three.peak_sbuf_bytes and two.peak_psum_bytes == three.peak_psum_bytes
    if len(set(few.trips)) != 1 or not alike:
        return None
    return _extrapolated(two, three, few.trips[0])


def _extrapolated(two: Estimate, three: Estimate, trips: int) -> Estimate:
    """Return an estimate of all trips of a loop from those of two and of three."""

    def all_trips(of_two: float, of_three: float) -> float:
        return of_three + (trips - 3) * (of_three - of_two)

    times = {name: all_trips(two.by_profile[name], us) for name, us in three.by_profile.items()}
    us = all_trips(two.us, three.us)

    def share(of_two: float, of_three: float) -> float:
        return all_trips(of_two * two.us, of_three * three.us) / us

    def count(of_two: int, of_three: int) -> int:
        return round(all_trips(of_two, of_three))

    mfu = share(two.mfu, three.mfu)
    more = us / three.us
    return replace(
        three,
        us=us,
        low_us=min(times.values()),
        high_us=max(times.values()),
        by_profile=times,
        engines={name: share(two.engines[name], busy) for name, busy in three.engines.items()},
        dma=DmaUse(
            share(two.dma.busy, three.dma.busy),
            count(two.dma.loaded_bytes, three.dma.loaded_bytes),
            count(two.dma.stored_bytes, three.dma.stored_bytes),
            count(two.dma.count, three.dma.count),
        ),
        critical_path=tuple(
            replace(
                step,
                times=round(step.times * more),
                work_us=step.work_us * more,
                wait_us=step.wait_us * more,
            )
            for step in three.critical_path
        ),
        mfu=mfu,
        mbu=share(two.mbu, three.mbu),
        confidence=three.confidence if mfu > 0.5 else "low",
        trips=(3, trips),
    )


def estimate_trace(
    trace: Trace, profiles: Sequence[Profile] = PROFILES, *, renames: bool = False
) -> Estimate:
    """Return how long a traced kernel takes on one core.

    Args:
        profiles: what the trace is priced under; the first one gives the estimate.
        renames: the kernel is compiled with `enable-linear-scan-allocation=false`; see `renaming`.
    """
    if renames:
        trace = renamed(trace)
    core, machine = CORES[trace.target], MACHINES[trace.target]
    room = {SBUF: machine.sbuf_bytes, PSUM: machine.psum_bytes}
    priced = [[price(work, core, profile) for work in trace.works] for profile in profiles]
    taken = place(trace, room)
    waiting = waits(trace, [each.engine for each in priced[0]], taken)
    schedules = [schedule(trace, prices, waiting) for prices in priced]
    first = schedules[0]
    times = {profile.name: each.ns / 1e3 for profile, each in zip(profiles, schedules, strict=True)}
    path = chain(first)
    summed = steps(trace, first, path)
    mfu, moved = _use(trace, priced[0])
    ns = max(first.ns, 1e-9)
    bound = bound_by(summed)
    return Estimate(
        us=first.ns / 1e3,
        low_us=min(times.values()),
        high_us=max(times.values()),
        by_profile=times,
        target=trace.target,
        engines={name: first.busy[number] / ns for number, name in enumerate(ENGINES[:QUEUES])},
        dma=DmaUse(sum(first.busy[QUEUES:]) / ns, moved[0], moved[1], moved[2]),
        critical_path=summed,
        bound_by=bound,
        mfu=mfu / ns,
        mbu=(moved[0] + moved[1]) / ns / core.hbm_gb_s,
        peak_sbuf_bytes=taken.peak.get(SBUF, 0) * PARTITIONS,
        peak_psum_bytes=taken.peak.get(PSUM, 0) * PARTITIONS,
        sbuf_bytes=room[SBUF] * PARTITIONS,
        psum_bytes=room[PSUM] * PARTITIONS,
        fits=taken.fits,
        confidence="fair" if bound == TENSOR and mfu / ns > 0.5 and taken.fits else "low",
        timeline=Timeline(trace, priced[0], first, path),
    )


def _use(trace: Trace, prices: Sequence[Price]) -> tuple[float, tuple[int, int, int]]:
    """Return the ns that all matmuls need at peak, and bytes loaded, bytes stored and the number of DMAs."""
    core = CORES[trace.target]
    counts = [0] * len(trace.works)
    for work, _, _, _ in trace.instructions:
        counts[work] += 1
    at_peak, loaded, stored, dmas = 0.0, 0, 0, 0
    for kind, its, count in zip(trace.works, prices, counts, strict=True):
        if its.flops:
            at_peak += count * its.flops / peak_tflops(core, kind) / 1e3
        dmas += count if its.engine >= QUEUES else 0
        if its.engine == ENGINES.index(LOAD):
            loaded += count * its.hbm_bytes
        elif its.engine == ENGINES.index(STORE):
            stored += count * its.hbm_bytes
    return at_peak, (loaded, stored, dmas)


def tied(one: Estimate, other: Estimate) -> bool:
    """Tell whether two kernels for one task are too close for the model to say which is faster."""
    return abs(one.us - other.us) < TIE * min(one.us, other.us)


def leads(one: Estimate, others: Sequence[Estimate]) -> bool:
    """Tell whether no other kernel for the same task is faster under any profile."""
    return all(one.by_profile[name] <= other.by_profile[name] for other in others for name in one.by_profile)
