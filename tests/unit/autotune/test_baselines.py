"""A baseline is NumPy as a user would set it up, and no ratio is told of what was unsteady."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sample_cache
import tuned
from threadpoolctl import ThreadpoolController
from vector_add import INPUTS, KERNEL

from autotune.backends.c import CBackend
from autotune.model.statistics import metrics
from autotune.model.timing import Timing
from autotune.model.trial import Metrics, Status
from autotune.report.best_table import against
from autotune.report.records import load
from autotune.sites.local import LocalSite
from autotune.sites.site import RunOutcome
from autotune.store import journal
from autotune.store.ledger import Known, _merge_record, merge
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
        with LocalSite(kernel, INPUTS, CBackend(), BRIEF) as workers:
            assert Status.OK is workers.baseline("threads", count).status


def test_a_ratio_of_steady_readings_is_told_and_no_other() -> None:
    assert 2.0 == speedup(reading(*[2.0] * 6), reading(*[1.0] * 6))
    assert None is speedup(reading(20, 59, 31, 40, 22, 25), reading(*[1.0] * 6))
    assert None is speedup(reading(*[2.0] * 6), reading(1, 3, 1, 3, 1, 3))


def add(a, b):
    return a + b


def add_slowly(a, b):
    return np.array([x + y for x, y in zip(a, b, strict=True)], a.dtype)


def add_slowly_again(a, b):
    return np.array([y + x for x, y in zip(a, b, strict=True)], a.dtype)


def of_other_shape(a, _b):
    return a[:1]


def kept(folder: Path) -> Known:
    return merge(journal.read_all(folder / "add/index"), "1000_1000")


def test_several_baselines_are_measured_and_kept_and_the_table_names_the_fastest(tmp_path: Path) -> None:
    baselines = {"slow": add_slowly, "NumPy": add, "short": of_other_shape}
    results = tuned.run(tmp_path, tuned.space("good"), baseline=baselines)
    rounds = len(kept(tmp_path).rounds)
    again = tuned.run(tmp_path, tuned.space("good"), baseline=baselines)
    told = against(load(tmp_path / "add/1000_1000/perf_metrics.json"))

    assert ["slow", "NumPy"] == [each.name.partition(",")[0] for each in results.baselines]
    assert results.baseline and results.baseline.name.startswith("NumPy")
    assert [True] == [
        "baseline short ended with error: ValueError: returned shape (1," in n for n in results.notes
    ][:1]
    assert told.startswith("against NumPy") and "(slower: slow" in told
    assert (0, again.baselines, rounds) == (again.measured, results.baselines, len(kept(tmp_path).rounds))


def test_a_baseline_whose_code_has_changed_is_measured_again(tmp_path: Path) -> None:
    tuned.run(tmp_path, tuned.space("good"), baseline=add_slowly)
    first = kept(tmp_path)
    changed = tuned.run(tmp_path, tuned.space("good"), baseline={"add_slowly": add_slowly_again})

    assert ["add_slowly"] == [each.name.partition(",")[0] for each in changed.baselines]
    assert (1, 2) == (len(first.rounds), len(kept(tmp_path).rounds))
    assert [*first.baselines.values()] != [*kept(tmp_path).baselines.values()]


def test_retuning_measures_everything_again_and_loses_nothing(tmp_path: Path) -> None:
    tuned.run(tmp_path, tuned.space("good", "wrong"), baseline={})
    again = tuned.run(tmp_path, tuned.space("good", "wrong"), baseline={}, retune=True)
    later = tuned.run(tmp_path, tuned.space("good", "wrong"), baseline={})

    assert (2, 0, ()) == (again.measured, later.measured, again.baselines)
    assert [2, 2] == [len(records) for records in kept(tmp_path).measured.values()]


def test_the_one_reference_of_earlier_files_is_read_as_a_baseline(tmp_path: Path) -> None:
    path = sample_cache.write_workload(tmp_path / "k/8", {"flops": 8, "bytes": 8}, {"a": [1, 2]}, 2.0, 0)
    now = load(path)
    plain = json.loads(path.read_text())
    older = {**plain, "schema": 1, "reference": plain.pop("baselines")[0]}
    path.write_text(json.dumps({**older, "others": [{**older, "reference": None}]}))
    record = {"record": "reference", "context": "c", **older["reference"]}
    context = {"record": "context", "workload": "8", "digest": "c", "context": {"backend": "c"}}
    known = Known()
    for each in (context, record):
        _merge_record(known, each, "8")

    assert now.baselines == load(path).baselines == known.baselines["c"]
    assert [()] == [each.baselines for each in load(path).others]
