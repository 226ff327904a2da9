"""How a program is timed, and what its samples say; it runs in the candidate's process, without NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autotune.model.errors import UsageError
from autotune.model.trial import Metrics


@dataclass(frozen=True)
class Timing:
    """How each candidate is timed.

    Args:
        caches: "warm": calls follow each other; "cold": the caches are swept before each sample, of one call.
        warmup_s: seconds of untimed calls before the first sample.
        min_repeats: samples taken at the least, where `max_s` allows.
        max_repeats: samples taken at the most.
        target_ci: stop once the median's 95 % interval is narrower than this fraction of the median.
        max_s: seconds of samples after which none is begun.
        min_sample_ns: calls are batched until a sample lasts this long: a thousand times what the clock
            resolves.
    """

    caches: str = "warm"
    warmup_s: float = 0.01
    min_repeats: int = 10
    max_repeats: int = 500
    target_ci: float = 0.01
    max_s: float = 0.5
    min_sample_ns: int = 50_000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.caches not in ("warm", "cold"):
            raise UsageError(f"timing: caches is 'warm' or 'cold', not {self.caches!r}")
        if not 1 <= self.min_repeats <= self.max_repeats:
            raise UsageError(
                f"timing: 1 <= min_repeats <= max_repeats, not {self.min_repeats} and {self.max_repeats}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as they are recorded."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """What a series of samples says, in the samples' unit; `ci95_*` bound the median."""

    minimum: float
    median: float
    p95: float
    ci95_low: float
    ci95_high: float
    outliers: int


@functools.lru_cache(maxsize=2048)
def median_interval(count: int) -> tuple[int, int]:
    """Return the ranks, from 0, of the sorted samples that bound the median with 95 % confidence.

    The number of samples below the true median is binomial(count, 1/2) whatever their distribution: exact up
    to 100, normal beyond. Fewer than 6 samples cannot give 95 %: then it is all of them.
    """
    if count > 100:
        low = math.floor((count - 1 - 1.96 * math.sqrt(count)) / 2)
        return low, count - 1 - low
    below, tail = 0, 1
    while tail * 40 <= 2**count:
        below += 1
        tail += math.comb(count, below)
    low = max(below - 1, 0)
    return low, count - 1 - low


def summarize(samples: Sequence[float]) -> Summary:
    """Return minimum, median, its interval, 95th percentile and the count of outliers.

    An outlier lies further than 1.5 interquartile ranges outside the quartiles (Tukey); it is counted, never
    dropped.
    """
    ordered = sorted(samples)
    low, high = median_interval(len(ordered))
    first, third = quantile(ordered, 0.25), quantile(ordered, 0.75)
    reach = 1.5 * (third - first)
    return Summary(
        minimum=ordered[0],
        median=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        ci95_low=ordered[low],
        ci95_high=ordered[high],
        outliers=sum(not first - reach <= sample <= third + reach for sample in ordered),
    )


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Return a quantile of sorted samples, linear between neighbours (Hyndman and Fan's definition 7)."""
    place = fraction * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def metrics(
    samples_ms: Sequence[float],
    flops: int,
    bytes_moved: int,
    peak_gflops: float | None = None,
    bandwidth_gbytes_per_s: float | None = None,
    device_gflops: float | None = None,
) -> Metrics:
    """Return a trial's figures from its samples.

    Rates are of the median. The roofline is min(peak, intensity x bandwidth) (Williams, Waterman and
    Patterson, 2009); a kernel without FLOPs is measured against the bandwidth alone.

    Args:
        samples_ms: milliseconds of each repeat.
        flops: floating-point operations of one call.
        bytes_moved: bytes one call must move at the least.
        peak_gflops: measured peak of this machine, None where unknown.
        bandwidth_gbytes_per_s: measured memory bandwidth of this machine, None where unknown.
        device_gflops: the data sheet's peak, for MFU; None where unknown.
    """
    summary = summarize(samples_ms)
    gflops = flops / summary.median / 1e6
    gbytes_per_s = bytes_moved / summary.median / 1e6
    intensity = flops / bytes_moved if bytes_moved else 0.0
    fraction = None
    if peak_gflops and bandwidth_gbytes_per_s:
        roof = min(peak_gflops, intensity * bandwidth_gbytes_per_s or peak_gflops)
        fraction = gflops / roof if flops else gbytes_per_s / bandwidth_gbytes_per_s
    return Metrics(
        min_ms=summary.minimum,
        median_ms=summary.median,
        p95_ms=summary.p95,
        ci95_low_ms=summary.ci95_low,
        ci95_high_ms=summary.ci95_high,
        repeats=len(samples_ms),
        outliers=summary.outliers,
        gflops=gflops,
        gbytes_per_s=gbytes_per_s,
        arithmetic_intensity=intensity,
        roofline_fraction=fraction,
        mfu=gflops / device_gflops if device_gflops else None,
    )


Run = Callable[[int, int, bool], list[int]]
"""(calls, samples, cold) -> nanoseconds of each sample, of that many calls back to back."""


@dataclass(frozen=True)
class Samples:
    """Repeats of one program: nanoseconds of each sample, of `calls` calls."""

    nanoseconds: list[int]
    calls: int


def sample(run: Run, timing: Timing) -> Samples:
    """Time a program: warm up, then repeat until the median is known well enough or the time is up."""
    cold = timing.caches == "cold"
    once_ns = _warm_up(run, timing.warmup_s * 1e9)
    calls = 1 if cold else max(1, math.ceil(timing.min_sample_ns / once_ns))
    taken: list[int] = []
    left_ns = timing.max_s * 1e9
    want = max(1, min(timing.min_repeats, int(left_ns // (once_ns * calls))))
    while want > 0:
        taken += (block := run(calls, want, cold))
        left_ns -= sum(block)
        if _narrow_enough(taken, timing):
            break
        # Blocks grow with what there is: sorting after every sample would cost more than a small kernel.
        affordable = int(left_ns // (sum(taken) / len(taken)))
        want = min(max(1, len(taken) // 4), timing.max_repeats - len(taken), affordable)
    return Samples(taken, calls)


def _warm_up(run: Run, budget_ns: float) -> float:
    """Call the program for so long, at least once; return the nanoseconds of a call."""
    spent, calls, once = 0.0, 1, math.inf
    while True:
        (took,) = run(calls, 1, False)
        spent += took
        once = min(once, max(took, 1) / calls)
        if spent >= budget_ns:
            return once
        calls = max(1, min(calls * 10, int((budget_ns - spent) / once)))


def _narrow_enough(taken: list[int], timing: Timing) -> bool:
    if len(taken) < max(timing.min_repeats, 6):
        return False
    ordered = sorted(taken)
    low, high = median_interval(len(ordered))
    return ordered[high] - ordered[low] <= timing.target_ci * quantile(ordered, 0.5)
