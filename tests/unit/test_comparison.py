"""Side by side: which differences are more than noise, and what a hostile summary can do (nothing)."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from autotune.model import trial as autotune_trial
from autotune.model.statistics import metrics
from autotune.store import summary as autotune_summary
from remote_tools.errors import RemoteError, UnavailableError
from remote_tools.runs import reporting, summaries
from remote_tools.runs.compare import Ratio, Side, closing, compare, ratio, side
from remote_tools.runs.compare_page import page
from remote_tools.runs.summaries import Best
from remote_tools.settings.settings import Settings


def best(median_ms: float, spread: float = 0.02, kernel: str = "gemm", shapes: str = "8x8_8x8") -> Best:
    low_ms, high_ms = median_ms * (1 - spread), median_ms * (1 + spread)
    return Best(kernel, shapes, "x=1", median_ms, low_ms, high_ms, None, "")


def summary(median_ms: float, **changes: Any) -> dict[str, Any]:
    reading = {
        "median_ms": median_ms,
        "ci95_low_ms": median_ms * 0.98,
        "ci95_high_ms": median_ms * 1.02,
        "gflops": 1.5,
    }
    trial = {"status": "ok", "path": "x=1", "metrics": reading, "confirmed": None}
    failed = {"status": "crash", "path": "x=2", "metrics": None, "confirmed": None}
    return {
        "kernel": "gemm",
        "shapes": "8x8_8x8",
        "environment": {"host": "trn", "cpu": "EPYC"},
        "trials": [failed, trial],
        **changes,
    }


def put(folder: Path, content: object, kernel: str = "gemm") -> Path:
    path = folder / kernel / "8x8_8x8" / summaries.SUMMARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# Figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours_ms", "spread", "verdict"),
    [(1.0, 0.02, "faster"), (4.0, 0.02, "slower"), (2.02, 0.02, "same"), (1.5, 0.4, "unclear")],
)
def test_a_difference_counts_where_it_exceeds_the_noise(ours_ms: float, spread: float, verdict: str) -> None:
    assert verdict == ratio(best(2.0, spread), best(ours_ms, spread)).verdict


def test_the_interval_of_a_ratio_turns_over_with_it() -> None:
    there, back = ratio(best(2.0, 0.1), best(3.0)), ratio(best(3.0), best(2.0, 0.1))

    assert [pytest.approx(1 / number) for number in (there.value, there.high, there.low)] == [
        back.value,
        back.low,
        back.high,
    ]


def test_the_interval_holds_the_true_ratio_nineteen_times_in_twenty() -> None:
    draw = random.Random(0)

    def measured(true_ms: float) -> Best:
        samples = sorted(true_ms * math.exp(draw.gauss(0, 0.1)) for _ in range(60))
        # The order statistics of a median's 95 % interval: 30 -+ 1.96 * sqrt(60) / 2.
        return Best("", "", "", statistics.median(samples), samples[22], samples[37], None, "")

    found = [ratio(measured(1.3), measured(1.0)) for _ in range(1000)]

    held = sum(one.low <= 1.3 <= one.high for one in found)
    assert 930 <= held <= 985


def test_a_workload_of_one_side_has_no_ratio() -> None:
    ours, theirs = best(1.0), best(2.0, kernel="softmax")
    sides = [Side("a", "", {ours.workload: ours}), Side("b", "", {theirs.workload: theirs})]

    rows = compare(sides)

    assert [("gemm", (ours, None), (None,)), ("softmax", (None, theirs), (None,))] == [
        (row.kernel, row.best, row.ratios) for row in rows
    ]
    assert ["b and a have no workload in common"] == closing(sides, rows)


def test_the_closing_line_counts() -> None:
    figures = {"gemm": (1.0, 2.0), "softmax": (1.0, 1.0), "transpose": (2.0, 1.0)}
    sides = [
        Side(name, "", {(kernel, "8x8_8x8"): best(ms[i], kernel=kernel) for kernel, ms in figures.items()})
        for i, name in enumerate("ab")
    ]

    assert ["b to a: 1 faster, 1 same, 1 slower; 1x in the geometric mean"] == closing(sides, compare(sides))


# Summaries --------------------------------------------------------------------------------------------------


def test_the_confirmed_reading_counts(tmp_path: Path) -> None:
    content = summary(1.0)
    content["trials"][1]["confirmed"] = {**content["trials"][1]["metrics"], "median_ms": 1.01}

    found = summaries.read(put(tmp_path, content))

    assert Best("gemm", "8x8_8x8", "x=1", 1.01, 0.98, 1.02, 1.5, "trn, EPYC") == found


def test_a_summary_without_a_success_has_no_best(tmp_path: Path) -> None:
    assert summaries.read(put(tmp_path, summary(1.0, trials=[]))) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        summary(float("nan")),
        summary(float("inf")),
        summary(-1.0),
        summary(0.0),
        summary(1.0, trials=[{"status": "ok"}]),
        summary(1.0, trials=5),
        summary(1.0, environment="x"),
        summary(1.0, environment="[" * 99),
        json.dumps(summary(1.0)).replace("1.5", "9" * 400),
        json.dumps(summary(1.0)).replace("1.5", "true"),
        summary(1e300),
        summary(1e-300),
        summary(1.0, kernel=7),
        summary(1.0, shapes=None),
        summary(1.0, kernel=["x"] * 99),
        summary(1.0, trials={}),
        summary(1.0, trials=[[]]),
        summary(1.0, trials=[{"status": "ok", "path": "x", "metrics": "x", "confirmed": None}]),
        summary(1.0, trials=[{"status": "ok", "path": 1, "metrics": {}, "confirmed": True}]),
    ],
)
def test_what_is_no_summary_is_said_and_passed_over(tmp_path: Path, content: object) -> None:
    found, faults = summaries.read_all([put(tmp_path, content)])

    assert ({}, 1, True) == (found, len(faults), "not a readable summary" in faults[0])


def test_figures_at_the_bounds_are_compared(tmp_path: Path) -> None:
    found = []
    for name, median_ms in (("low", 1e-17), ("high", 1e17)):
        content = summary(median_ms)
        content["trials"][1]["metrics"] |= {"ci95_low_ms": 1e-18, "ci95_high_ms": 1e18}
        found.append(Side(name, "", summaries.read_all([put(tmp_path / name, content)])[0]))

    assert ["unclear"] == [each and each.verdict for row in compare(found) for each in row.ratios]


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a folder", "a link to itself", "a large file"])
def test_what_is_no_plain_file_is_said_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, "")
    path.unlink()
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a large file":
        path.touch()
        os.truncate(path, 1 << 30)
    else:
        path.symlink_to("/dev/zero" if kind == "a device" else path)

    found, faults = summaries.read_all([path])

    assert ({}, 1, True) == (found, len(faults), "not a readable summary" in faults[0])


def test_names_from_a_host_cannot_write_to_the_terminal_or_the_page(tmp_path: Path) -> None:
    evil = "\x1b[2J<script>alert(1)</script>"
    put(tmp_path, summary(1.0, kernel=evil, shapes=evil, environment={"host": evil}))
    (one,) = summaries.read_all(summaries.below(tmp_path))[0].values()
    sides = [Side(evil, one.where, {one.workload: one})] * 2

    text = page(sides, compare(sides), evil)

    seen: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, _attrs: object) -> None:
            seen.append(tag)

    Tags().feed(text)
    assert (True, False) == (
        all(part.isprintable() for part in (one.kernel, one.shapes, one.where)),
        "script" in seen,
    )


def test_without_the_tuner_the_page_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "NEEDED", ("json", "no_such_package"))
    with pytest.raises(UnavailableError) as caught:
        page([], [], "today")
    advice = "next: pip install 'remote-autotune[autotune]'"
    assert f"compare: no page: no_such_package is not installed\n  {advice}" == caught.value.message


# Sides ------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give a checkout with runs of two days on two hosts."""
    runs = {"20261120-100000-gemm-aaaa": ("trn1", 4.0), "20261120-110000-gemm-bbbb": ("trn2", 2.0)}
    runs["20261121-100000-gemm-cccc"] = ("trn1", 1.0)
    for run_id, (host, median_ms) in runs.items():
        folder = tmp_path / ".remote" / "runs" / run_id
        put(folder / summaries.KEPT, summary(median_ms))
        started = time.mktime(time.strptime(run_id[:15], "%Y%m%d-%H%M%S"))
        (folder / "run.json").write_text(json.dumps({"id": run_id, "host": host, "started": started}))
    put(tmp_path / "cache" / "fetched", summary(8.0))
    return Settings(root=tmp_path, local_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "median_ms"),
    [
        ("trn1", 1.0),
        ("trn2", 2.0),
        ("2026-11-20", 2.0),
        ("2026-11-21", 1.0),
        ("aaaa", 4.0),
        ("20261120-110000-gemm-bbbb", 2.0),
        ("last", 1.0),
        ("fetched", 8.0),
    ],
)
def test_a_name_stands_for_a_host_a_day_a_run_or_a_folder(
    settings: Settings, name: str, median_ms: float
) -> None:
    assert [median_ms] == [one.median_ms for one in side(name, settings).found.values()]


@pytest.mark.parametrize("name", ["2020-01-01", "nowhere", "2026112"])
def test_a_name_that_stands_for_nothing_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(RemoteError) as caught:
        side(name, settings)
    assert 64 == caught.value.code


def test_a_run_keeps_its_summaries_when_the_next_one_replaces_them(tmp_path: Path) -> None:
    path = put(tmp_path / "cache", summary(1.0))
    name = str(path.relative_to(tmp_path / "cache"))
    summaries.keep(tmp_path / "run", tmp_path / "cache", [name, "gemm/8x8_8x8/x=1/performance_result.pkl"])
    fresh = path.with_name("fresh")
    fresh.write_text(json.dumps(summary(2.0)))
    fresh.replace(path)

    (kept,) = summaries.below(tmp_path / "run" / summaries.KEPT)

    assert summary(1.0) == json.loads(kept.read_text())


def test_a_ratio_reads_as_one() -> None:
    assert "1.25x [1.21, 1.29]" == str(Ratio(1.25, 1.21, 1.29))


def test_the_tuner_writes_every_field_that_is_read_here(tmp_path: Path) -> None:
    trial = autotune_trial.Trial({}, autotune_trial.Status.OK, "", "default", metrics=metrics([1.0], 0, 1))
    written = autotune_summary.Summary(
        folder=tmp_path,
        kernel="k",
        shapes="8x8",
        backend="c",
        inputs=(),
        outputs=(),
        work=autotune_summary.Work(0, 1),
        environment={"host": "trn"},
        roofline=None,
        timing={},
        search=autotune_summary.Search("exhaustive", 0, 1),
        baselines=(),
        best_path="default",
        tie_paths=(),
        trials=(trial,),
    )
    autotune_summary.write(written)
    file = json.loads((tmp_path / summaries.SUMMARY).read_text())
    (entry,) = file["trials"]
    assert summaries.Summary.__annotations__.keys() <= file.keys()
    assert summaries.Trial.__annotations__.keys() <= entry.keys()
    assert summaries.Reading.__annotations__.keys() <= entry["metrics"].keys()
    assert Best("k", "8x8", "default", 1.0, 1.0, 1.0, None, "trn") == summaries.read(
        tmp_path / summaries.SUMMARY
    )


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.000085, "85.0 ns"),
        (0.003493, "3.49 µs"),
        (0.3589, "0.359 ms"),
        (41.2, "41.2 ms"),
        (1300.0, "1.30 s"),
    ],
)
def test_times_have_the_units_of_the_tuners_report(milliseconds: float, text: str) -> None:
    assert text == summaries.duration(milliseconds)
