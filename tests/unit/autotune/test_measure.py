"""Statistics against their definitions, and the sampling loop against programs whose time is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.errors import UsageError
from autotune.model.statistics import median_interval, metrics, quantile, summarize
from autotune.model.timing import Timing
from autotune.model.trial import Metrics
from autotune.sites.sampling import Run, sample

SAMPLES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200)


def coverage(count: int, low: int, high: int) -> float:
    """Return the probability that the median lies between two order statistics."""
    return sum(math.comb(count, below) for below in range(low + 1, high + 1)) / 2**count


@pytest.mark.parametrize("count", [6, 7, 10, 25, 60, 100])
def test_the_interval_is_the_narrowest_that_covers_95_percent(count: int) -> None:
    low, high = median_interval(count)
    assert coverage(count, low, high) >= 0.95 > coverage(count, low + 1, high - 1)


@pytest.mark.parametrize("count", [101, 200, 500])
def test_for_many_samples_the_interval_covers_about_95_percent(count: int) -> None:
    assert coverage(count, *median_interval(count)) == pytest.approx(0.955, abs=0.012)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_samples_give_the_whole_range(count: int) -> None:
    assert (0, count - 1) == median_interval(count)


@given(SAMPLES, st.floats(0, 1))
def test_quantiles_are_numpys(samples: list[float], fraction: float) -> None:
    assert float(np.quantile(samples, fraction)) == pytest.approx(quantile(sorted(samples), fraction))


@given(SAMPLES)
def test_a_summary_is_in_order(samples: list[float]) -> None:
    found = summarize(samples)
    line = [found.minimum, found.ci95_low, found.median, found.ci95_high, max(samples)]
    slack = 1e-9 * max(samples)  # interpolating may round
    assert all(a <= b + slack for a, b in itertools.pairwise(line))


def test_outliers_are_counted_and_kept() -> None:
    samples = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 50.0]
    assert (1, 1.0, 0.9) == (
        summarize(samples).outliers,
        summarize(samples).median,
        summarize(samples).minimum,
    )


def test_rates_are_of_the_median_and_the_roof_is_the_lower_of_two() -> None:
    found = metrics([2.0] * 6, 4_000_000, 1_000_000, 100.0, 10.0, device_gflops=20.0)
    expected = Metrics(
        min_ms=2.0,
        median_ms=2.0,
        p95_ms=2.0,
        ci95_low_ms=2.0,
        ci95_high_ms=2.0,
        repeats=6,
        outliers=0,
        gflops=2.0,
        gbytes_per_s=0.5,
        arithmetic_intensity=4.0,
        roofline_fraction=0.05,
        mfu=0.1,
    )
    assert expected == found


def test_a_kernel_without_flops_is_held_against_the_bandwidth() -> None:
    assert 0.25 == metrics([1.0], 0, 2_500_000, 100.0, 10.0).roofline_fraction


def test_nothing_moved_has_no_intensity() -> None:
    assert (0.0, 0.01) == (
        metrics([1.0], 1_000_000, 0, 100.0, 10.0).arithmetic_intensity,
        metrics([1.0], 1_000_000, 0, 100.0, 10.0).roofline_fraction,
    )


def program(times_ns: Sequence[int], asked: list[tuple[int, int, bool]]) -> Run:
    """Return a program whose calls take these times in turn."""
    calls_made = 0

    def run(calls: int, samples: int, cold: bool) -> list[int]:
        nonlocal calls_made
        asked.append((calls, samples, cold))
        taken = []
        for _ in range(samples):
            taken.append(sum(times_ns[(calls_made + i) % len(times_ns)] for i in range(calls)))
            calls_made += calls
        return taken

    return run


def test_a_steady_program_is_measured_no_longer_than_asked() -> None:
    asked: list[tuple[int, int, bool]] = []
    taken = sample(program([1_000_000], asked), Timing(warmup_s=0.005, min_repeats=7), 1e6)
    assert ([1_000_000] * 7, 1) == (taken.nanoseconds, taken.calls)
    assert [(4, 1, False), (1, 7, False)] == asked


def test_short_calls_are_batched_to_what_the_clock_resolves() -> None:
    taken = sample(program([100], []), Timing(min_sample_ns=50_000, warmup_s=0), 100)
    assert (500, 50_000) == (taken.calls, taken.nanoseconds[0])


def test_a_restless_program_is_repeated_until_the_interval_is_narrow() -> None:
    taken = sample(
        program([80_000, 100_000, 120_000], []), Timing(target_ci=0.01, warmup_s=0, max_repeats=400), 1e5
    )
    found = summarize(taken.nanoseconds)
    assert len(taken.nanoseconds) > 10
    assert len(taken.nanoseconds) == 400 or found.ci95_high - found.ci95_low <= 0.01 * found.median


def test_time_ends_the_samples_before_the_repeats_do() -> None:
    taken = sample(program([90_000_000, 130_000_000], []), Timing(max_s=1.0, target_ci=0.0, warmup_s=0), 9e7)
    assert 10 == len(taken.nanoseconds)


def test_a_very_slow_program_gets_fewer_than_the_least_repeats() -> None:
    taken = sample(program([400_000_000], []), Timing(max_s=1.0, min_repeats=10, warmup_s=0), 4e8)
    assert [400_000_000] * 2 == taken.nanoseconds


def test_cold_samples_are_of_one_call() -> None:
    asked: list[tuple[int, int, bool]] = []
    taken = sample(program([100], asked), Timing(caches="cold", warmup_s=0, min_repeats=6), 100)
    assert (1, (1, 6, True)) == (taken.calls, asked[-1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"caches": "hot"}, "timing: caches is 'warm' or 'cold', not 'hot'"),
        ({"min_repeats": 9, "max_repeats": 8}, "timing: 1 <= min_repeats <= max_repeats, not 9 and 8"),
    ],
)
def test_a_timing_that_cannot_be_meant_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Timing(**wrong)  # type: ignore[arg-type]
    assert message == str(refusal.value)
