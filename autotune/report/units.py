"""Numbers for people: three significant figures, and the unit that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autotune.model.space import Value
from autotune.model.trial import Metrics
from autotune.report.visible import visible


def figures(value: float, digits: int = 3) -> str:
    """Round to `digits` significant figures, without an exponent: 0.0412, 3.10, 128, 12800."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def duration(milliseconds: float) -> str:
    """Write a kernel's time: `85.0 ns`, `31.0 µs`, `4.12 ms`, `1.30 s`."""
    if milliseconds < 1e-3:
        return f"{figures(milliseconds * 1e6)} ns"
    if milliseconds < 0.1:
        return f"{figures(milliseconds * 1e3)} µs"
    if milliseconds < 1e3:
        return f"{figures(milliseconds)} ms"
    return f"{figures(milliseconds / 1e3)} s"


def interval(low_ms: float, high_ms: float) -> str:
    """Write two times, with the unit only once if it is the same: `27.1–27.6 ms`."""
    low, unit = duration(low_ms).split(" ")
    high = duration(high_ms)
    return f"{low}–{high}" if high.endswith(f" {unit}") else f"{low} {unit}–{high}"


def elapsed(seconds: float) -> str:
    """Write how long something took or will take: `4.2 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(value: float) -> str:
    """Write a speed-up or slowdown: `1.32×`, `12.4×`."""
    return f"{value:.2f}×" if value < 10 else f"{figures(value)}×"


def throughput(metrics: Metrics) -> tuple[float, str]:
    """Return a kernel's rate and its unit.

    It is of the bytes moved if the kernel does no arithmetic (a transpose), or if its FLOP are unknown.
    """
    return (metrics.gflops, "GFLOP/s") if metrics.gflops else (metrics.gbytes_per_s, "GB/s")


def rate_text(metrics: Metrics) -> str:
    """Write a kernel's rate; empty if the work of a call is unknown, as of an imported trial."""
    value, unit = throughput(metrics)
    return f"{figures(value)} {unit}" if value else ""


def config_text(config: Mapping[str, Value]) -> str:
    """Write a config in one line: `BLOCK=2, order=MNK`."""
    return visible(", ".join(f"{name}={value}" for name, value in config.items()))
