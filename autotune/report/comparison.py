"""The page of a comparison, made from the figures as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TypedDict

from autotune.model.errors import DataError
from autotune.report.document import cell, document, heading
from autotune.report.markup import Markup, element, joined
from autotune.report.scene import Path, Point, Scene, to_svg
from autotune.report.units import duration, figures

_WIDTH, _HEIGHT = 160.0, 18.0  # of an interval's drawing
_ROLES = {"faster": "best", "same": "muted", "unclear": "muted", "slower": "baseline"}
_CELLS = {"faster": "n wins interval", "same": "n note interval", "slower": "n loses interval"}
_CELLS["unclear"] = _CELLS["same"]
_NOTE = (
    "A ratio is the first side's time divided by the other side's: above 1 the other is faster. The 95 % "
    "interval joins the intervals of both medians; if it is within 5 % of 1, the two are "
    "the same, and if it contains 1 and is wider, the measurement does not tell. It covers the "
    "noise within a measurement, not what changed on a machine between two measurements."
)


class Side(TypedDict):
    """One side of the comparison: its name, and the source of its figures."""

    name: str
    about: str


class Best(TypedDict):
    """The best config of a workload on one side; `gflops` is null if the work is unknown."""

    config: str
    median_ms: float
    gflops: float | None


class Ratio(TypedDict):
    """The first side's time divided by another's, its 95 % interval, and faster, same or slower."""

    value: float
    low: float
    high: float
    verdict: str


class Row(TypedDict):
    """One workload: the best of each side, and the ratio of each side but the first; null if missing."""

    kernel: str
    shapes: str
    best: list[Best | None]
    ratios: list[Ratio | None]


class Comparison(TypedDict):
    """The content of a page; `lines` is the comparison in words."""

    made_at: str
    sides: list[Side]
    lines: list[str]
    rows: list[Row]


def comparison_page(text: str) -> str:
    """Return the page of a comparison.

    Args:
        text: a `Comparison` as JSON.

    Raises:
        DataError: the text is not a comparison.
    """
    try:
        return _page(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as fault:
        raise DataError(f"stdin: not a comparison: {fault!r}; `inv bench.compare` writes one") from None


def _page(found: Comparison) -> str:
    sides = found["sides"]
    first = sides[0]["name"]
    title = " / ".join(side["name"] for side in sides)
    versus = [f"{side['name']} to {first}" for side in sides[1:]]
    names = [side["name"] for side in sides]
    heads = [heading(name, False) for name in ("kernel", "shapes")]
    heads += [heading(name, True) for name in (*names, *versus)]
    bounds = [
        bound
        for row in found["rows"]
        for ratio in row["ratios"]
        if ratio
        for bound in (ratio["low"], ratio["high"])
    ]
    reach = max(0.01, *(abs(math.log(bound)) for bound in bounds)) if bounds else 1.0
    rows = (element("tbody", element("tr", *_cells(row, names, versus, reach))) for row in found["rows"])
    return document(
        title,
        element("h1", title),
        element("p", found["made_at"], class_="note"),
        *(element("p", element("strong", side["name"]), f" {side['about']}") for side in sides),
        element("ul", *(element("li", line) for line in found["lines"])),
        element(
            "div",
            element("table", element("thead", element("tr", *heads)), *rows, class_="stacked"),
            class_="card",
        ),
        element("p", _NOTE, class_="note"),
    )


def _cells(row: Row, names: list[str], versus: list[str], reach: float) -> Iterator[Markup]:
    yield cell("kernel", row["kernel"], "wide")
    yield cell("shapes", row["shapes"], "wide")
    for name, best in zip(names, row["best"], strict=True):
        yield cell(name, _best(best), "n")
    for name, ratio in zip(versus, row["ratios"], strict=True):
        yield _ratio(name, ratio, reach)


def _best(best: Best | None) -> str:
    if best is None:
        return "none"
    median = element("span", duration(best["median_ms"]), title=best["config"])
    if not best["gflops"]:
        return median
    return joined(median, element("br"), element("span", f"{figures(best['gflops'])} GFLOP/s", class_="note"))


def _ratio(name: str, ratio: Ratio | None, reach: float) -> Markup:
    if ratio is None:
        return cell(name, "", "n")
    text = f"{ratio['value']:.3g}x [{ratio['low']:.3g}, {ratio['high']:.3g}] {ratio['verdict']}"
    return cell(name, joined(text, to_svg(_drawing(ratio, reach))), _CELLS[ratio["verdict"]])


def _drawing(ratio: Ratio, reach: float) -> Scene:
    """Draw an interval on a logarithmic axis with 1 in its middle; `reach` is its half width."""
    low, value, high = (
        _WIDTH / 2 * (1 + 0.95 * math.log(each) / reach)
        for each in (ratio["low"], ratio["value"], ratio["high"])
    )
    middle, role = _HEIGHT / 2, _ROLES[ratio["verdict"]]
    marks = (
        Path(((_WIDTH / 2, 0), (_WIDTH / 2, _HEIGHT)), "muted"),
        Path(((low, middle), (high, middle)), role, 3),
        Point(value, middle, role, 4),
    )
    return Scene(_WIDTH, _HEIGHT, ratio["verdict"], marks)
