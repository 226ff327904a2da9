"""Statistics of timing samples. The keeper imports this module without NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.model.trial import Metrics


@dataclass(frozen=True)
class Statistics:
    """Statistics of samples, in the samples' unit; `ci95_*` bound the median."""

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


def summarize(samples: Sequence[float]) -> Statistics:
    """Return minimum, median, its interval, 95th percentile and the count of outliers.

    An outlier lies further than 1.5 interquartile ranges outside the quartiles (Tukey); it is counted, never
    dropped.
    """
    ordered = sorted(samples)
    low, high = median_interval(len(ordered))
    first, third = quantile(ordered, 0.25), quantile(ordered, 0.75)
    reach = 1.5 * (third - first)
    return Statistics(
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
    flops: int | None,
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
        flops: floating-point operations of one call; None leaves out the figures that need them.
        bytes_moved: bytes one call must move at the least.
        peak_gflops: measured peak of this machine; None if unknown.
        bandwidth_gbytes_per_s: measured memory bandwidth of this machine; None if unknown.
        device_gflops: the data sheet's peak, for MFU; None if unknown.
    """
    summary = summarize(samples_ms)
    gflops = None if flops is None else flops / summary.median / 1e6
    gbytes_per_s = bytes_moved / summary.median / 1e6
    intensity = None if flops is None else flops / bytes_moved if bytes_moved else 0.0
    fraction = None
    if peak_gflops and bandwidth_gbytes_per_s and gflops is not None and intensity is not None:
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
        mfu=gflops / device_gflops if device_gflops and gflops is not None else None,
    )
