"""A baseline is NumPy as a user would set it up, and no ratio is told of what was unsteady."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController
from vector_add import INPUTS, KERNEL

from autotune.backends.c import CBackend
from autotune.model.statistics import metrics
from autotune.model.timing import Timing
from autotune.model.trial import Metrics, Status
from autotune.sites.workers import RunOutcome, Workers
from autotune.store.results import speedup
from autotune.tuning.confirm import TURNS, at_its_best, thread_counts

BRIEF = Timing(warmup_s=0, min_repeats=3, max_repeats=3, max_s=0.02)


def gauge(samples_ms: Sequence[float]) -> Metrics:
    return metrics(samples_ms, flops=1, bytes_moved=1)


def reading(*samples_ms: float) -> Metrics:
    return gauge(samples_ms)


def turns(*medians_ms: float) -> list[RunOutcome]:
    return [RunOutcome(Status.OK, samples_ms=(median_ms,)) for median_ms in medians_ms]


def test_a_baseline_is_the_faster_of_one_thread_and_all() -> None:
    small = at_its_best("NumPy", {1: turns(*[0.18] * TURNS), 2: turns(20, 59, 31, 40, 22, 25)}, gauge)
    large = at_its_best("NumPy", {1: turns(*[9.0] * TURNS), 2: turns(*[5.0] * TURNS)}, gauge)
    assert small and large
    assert ("NumPy, 1 thread", 0.18) == (small.name, small.metrics.median_ms)
    assert ("NumPy, 2 threads", 5.0) == (large.name, large.metrics.median_ms)


def test_threads_that_make_no_difference_are_not_named() -> None:
    alike = {1: turns(*range(10, 16)), 2: turns(*range(9, 15))}
    best = at_its_best("NumPy", alike, gauge)
    assert best and ("NumPy", 11.5) == (best.name, best.metrics.median_ms)


def test_a_way_that_fails_leaves_the_other() -> None:
    failed = [RunOutcome(Status.TIMEOUT, "did not return within 30 s")]
    best = at_its_best("NumPy", {1: turns(*[2.0] * TURNS), 2: failed}, gauge)
    assert best and 2.0 == best.metrics.median_ms
    assert None is at_its_best("NumPy", {1: failed, 2: failed}, gauge)


@pytest.mark.skipif(thread_counts() == (0,), reason="one core, or no BLAS whose threads can be set")
def test_the_threads_of_the_blas_are_set_where_a_baseline_runs() -> None:
    def count_threads(a, _b):
        return np.full_like(a, ThreadpoolController().lib_controllers[0].num_threads)

    def expect_threads(count, a, _b):
        return np.full_like(a, count)

    for count in thread_counts():
        golden = partial(expect_threads, count)
        kernel = replace(KERNEL, baselines={"threads": count_threads}, golden=golden)
        with Workers(kernel, INPUTS, CBackend(), BRIEF) as workers:
            assert Status.OK is workers.baseline("threads", count).status


def test_a_ratio_of_steady_readings_is_told_and_no_other() -> None:
    assert 2.0 == speedup(reading(*[2.0] * 6), reading(*[1.0] * 6))
    assert None is speedup(reading(20, 59, 31, 40, 22, 25), reading(*[1.0] * 6))
    assert None is speedup(reading(*[2.0] * 6), reading(1, 3, 1, 3, 1, 3))
