"""Take the samples of one program. The keeper imports this module without NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autotune.model.statistics import median_interval, quantile
from autotune.model.timing import Timing

_LONG_NS = 1_000_000

Run = Callable[[int, int, bool], list[int]]
"""(calls, samples, cold) -> nanoseconds of each sample, of that many calls back to back."""


@dataclass(frozen=True)
class Samples:
    """Repeats of one program: nanoseconds of each sample, of `calls` calls."""

    nanoseconds: list[int]
    calls: int


def sample(run: Run, timing: Timing, once_ns: float, restore_ns: float = 0.0) -> Samples:
    """Time a program: warm up, then repeat until the median is known well enough or the time is up.

    Args:
        run: calls the program.
        timing: how to time it.
        once_ns: nanoseconds that its first call took.
        restore_ns: nanoseconds that restoring its data takes before each sample, of one call then; 0 for a
            program that does not change its data.
    """
    cold = timing.caches == "cold"
    once_ns = _warm_up(run, timing.warmup_s * 1e9, once_ns, restore_ns)
    calls = 1 if cold or restore_ns else max(1, math.ceil(timing.min_sample_ns / once_ns))
    taken: list[int] = []
    left_ns = timing.max_s * 1e9
    want = max(1, min(timing.min_repeats, int(left_ns // (once_ns * calls + restore_ns))))
    while want > 0:
        taken += (block := run(calls, want, cold))
        left_ns -= sum(block) + restore_ns * len(block)
        if _narrow_enough(taken, timing):
            break
        # Blocks grow with the samples taken: sorting after every sample would cost more than a small kernel.
        affordable = int(left_ns // (sum(taken) / len(taken) + restore_ns))
        want = min(max(1, len(taken) // 4), timing.max_repeats - len(taken), affordable)
    return Samples(taken, calls)


def _warm_up(run: Run, budget_ns: float, once_ns: float, restore_ns: float) -> float:
    """Call the program for so long; return the nanoseconds of a call.

    The first call counts if it was long. A short one was mostly spent on loading code and data.
    """
    spent, calls = (once_ns, 1) if once_ns >= _LONG_NS else (0.0, 0)
    while spent < budget_ns or not calls:
        calls = max(1, min(calls * 10, int((budget_ns - spent) / (once_ns + restore_ns))))
        taken = run(1, calls, False) if restore_ns else run(calls, 1, False)
        spent += sum(taken) + restore_ns * len(taken)
        once_ns = min(once_ns, max(sum(taken), 1) / (len(taken) if restore_ns else calls))
    return once_ns


def _narrow_enough(taken: list[int], timing: Timing) -> bool:
    if len(taken) < max(timing.min_repeats, 6):
        return False
    ordered = sorted(taken)
    low, high = median_interval(len(ordered))
    return ordered[high] - ordered[low] <= timing.target_ci * quantile(ordered, 0.5)
