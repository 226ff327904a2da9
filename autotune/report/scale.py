"""Axes: they turn values into pixels, and choose the round numbers to print."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autotune.report.units import figures


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Args:
        low: the value at `start`.
        high: the value at `end`; above `low`.
        start: pixels.
        end: pixels; smaller than `start` if the axis points upwards.
        log: whether the axis is logarithmic; `low` must then be above zero.
        whole: whether to print only whole numbers, for counts.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; for a value outside the axis, the nearer end."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, max(value, self.low)))
        return self.start + (self.end - self.start) * min(1.0, (at - low) / (high - low))

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Return about `most` round values inside the axis, or fewer, each with its text."""
        if self.log and self.high / self.low > 4:
            values = _log_ticks(self.low, self.high, most)
        else:
            values = _linear_ticks(self.low, self.high, most, self.whole)
        return [(value, _label(value)) for value in values]


def spanning(
    values: Iterable[float], start: float, end: float, log: bool = False, margin: float = 0.05
) -> Scale:
    """Return the smallest scale for `values`, with a margin (a fraction of the axis) at both ends."""
    known = list(values)
    low, high = min(known), max(known)
    if log:
        spread = max((high / low) ** margin, 1.05)
        return Scale(low / spread, high * spread, start, end, log)
    spread = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(low - spread, high + spread, start, end)


def _linear_ticks(low: float, high: float, most: int, whole: bool) -> list[float]:
    rough = max((high - low) / most, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def _label(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{round(value, 9):g}" if abs(value) < 1e5 else figures(value)
