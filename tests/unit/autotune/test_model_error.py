"""The report's comparison of a model with measurements; both are made up here, nothing of it was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sample_cache

from autotune.estimating import Estimated, store
from autotune.estimating.prefilter import Compared
from autotune.model.trial import Status
from autotune.nki.timing.costs import MODEL_VERSION
from autotune.report import load_all, write_page
from autotune.report.model_error import error_chart
from autotune.report.scene import Path as Line
from autotune.report.scene import Point

FOLDER = "double/128x64"
MEASURED = {1: 10.0, 2: 40.0, 4: 20.0}
"""Tile -> microseconds."""
ESTIMATED = {1: 12.0, 2: 20.0, 4: 20.0, 8: 80.0}


def cache(
    root: Path,
    *,
    backend: str = "neuron",
    target: str = "trn2",
    prefix: str = "",
    estimated: Mapping[int, float] = ESTIMATED,
    twice: tuple[int, ...] = (),
) -> Path:
    """Write a workload's estimates and measurements; return the summary's path."""
    work = {"flops": 1024, "bytes": 768}
    path = sample_cache.write_workload(root / FOLDER, work, {"tile": [*MEASURED, 16]}, 2, failing=0)
    record = json.loads(path.read_text())
    context = {"backend": backend, "fingerprint": {"target": target, "device": "trn2.3xlarge"}}
    record |= {"backend": backend, "contexts": {backend: context}}
    for trial in record["trials"]:
        us = MEASURED.get(trial["config"]["tile"], 30.0)
        trial |= {"metrics": sample_cache.metrics(us / 1e3, work), "confirmed": None}
        trial["path"] = f"{prefix}{trial['path']}"
    record |= {"best": record["trials"][0]["path"], "ties": []}
    path.write_text(json.dumps(record))
    write_estimates(
        root, [said(tile, us) for tile, us in estimated.items()] + [said(tile, 9) for tile in twice]
    )
    return path


def said(tile: int, us: float) -> Estimated:
    """Return an estimate."""
    made = Estimated({"tile": tile}, Status.OK, f"{tile} {us}", "", us, us, us, {"nominal": us}, checked=True)
    return replace(made, target="trn2", model=MODEL_VERSION)


def write_estimates(root: Path, estimates: list[Estimated]) -> None:
    """Write `estimates.json`."""
    header = {"kernel": "double", "shapes": "128x64", "target": "trn2", "profiles": ["nominal"]}
    store.write(root / FOLDER, root, header, estimates)


def section(root: Path) -> str:
    """Return the page's section of estimates."""
    workloads, faults = load_all(root)
    assert [] == faults
    page = write_page(workloads, root, root / "plots").read_text()
    return page.partition("<h2>Estimates</h2>")[2].partition("<h2>")[0]


def rows(html: str) -> list[list[str]]:
    """Return the cells of the table of errors."""
    table = html.partition("the fastest by measurement first")[2].partition("</table>")[0]
    lines = re.findall("<tr>(.*?)</tr>", table)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?</td>", line)] for line in lines[1:]]


@pytest.mark.parametrize("prefix", ["", "backend=neuron,"])
def test_every_config_with_both_is_shown_in_the_order_of_measurement(tmp_path: Path, prefix: str) -> None:
    cache(tmp_path, prefix=prefix)
    html = section(tmp_path)
    assert [
        ["12.0", "10.0", "+20.0%", "tile=1"],
        ["20.0", "20.0", "+0.0%", "tile=4"],
        ["20.0", "40.0", "-50.0%", "tile=2"],
    ] == rows(html)
    told = "the model against 3 measured configs: off by 20.0% in the median, 50.0% at most."
    assert f"128x64 · trn2 · trn2.3xlarge: {told}" in html
    assert "<title>tile=2: 20.0 us estimated, 40.0 us measured (-50.0%)</title>" in html


@pytest.mark.parametrize(
    "other",
    [
        {"backend": "c"},
        {"prefix": "backend=numpy,"},
        {"estimated": {8: 80.0}},
        {"target": "trn1"},
        {"twice": (1, 2, 4)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_without_both_there_is_no_comparison(tmp_path: Path, other: dict[str, Any]) -> None:
    cache(tmp_path, **other)
    html = section(tmp_path)
    assert "estimated us" in html
    assert ("<svg" in html, "measured us" in html, "the model against" in html) == (False, False, False)
    assert ("Measured on trn1, estimated for trn2: not compared." in html) == ("target" in other)
    assert ("3 of 4 measured configs." in html) == ("twice" in other)


def test_a_config_of_several_estimates_is_left_out_alone(tmp_path: Path) -> None:
    cache(tmp_path, twice=(2,))
    html = section(tmp_path)
    assert ["tile=1", "tile=4"] == [row[-1] for row in rows(html)]
    assert "1 of 4 measured configs." in html


@pytest.mark.parametrize("us", [-1.0, 1e-300, 1e300, float("nan"), True])
def test_an_estimate_that_is_no_time_spoils_no_page(tmp_path: Path, us: object) -> None:
    cache(tmp_path)
    path = tmp_path / FOLDER / store.ESTIMATES
    path.write_text(path.read_text().replace('"estimated_us": 12.0', f'"estimated_us": {json.dumps(us)}'))
    assert "" == section(tmp_path)


def test_the_lines_are_where_the_error_is_20_percent() -> None:
    found = [
        Compared({"tile": us}, estimated, us) for us, estimated in ((50.0, 40.0), (50.0, 60.0), (9.0, 9.0))
    ]
    scene = error_chart(found)
    short, long, exact = [(mark.x, mark.y) for mark in scene.marks if isinstance(mark, Point)]
    lines = [mark.points for mark in scene.marks if isinstance(mark, Line) and mark.width == 1.2]
    assert [False, True, True] == [m.dashed for m in scene.marks if isinstance(m, Line) and m.width == 1.2]
    for point, ((x, y), (right, top)) in zip((exact, short, long), lines, strict=True):
        at = y + (top - y) * (point[0] - x) / (right - x)  # straight, as both axes are logarithmic
        assert at == pytest.approx(point[1])
        assert (top - y) / (right - x) == pytest.approx(-(390 - 24) / (414 - 48))


def test_estimates_of_an_earlier_model_or_another_target_are_not_shown(tmp_path: Path) -> None:
    cache(tmp_path)
    mine = said(1, 10.0)
    write_estimates(
        tmp_path, [mine, replace(said(2, 5.0), model="older"), replace(said(3, 4.0), target="trn1")]
    )
    (kept,) = store.kept(tmp_path)
    assert (mine,) == kept.estimates
