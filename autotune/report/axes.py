"""Parts that charts share: axes, legends, and the row that shows a spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from autotune.report.scale import Scale
from autotune.report.scene import Bar, Label, Mark, Path, Point, text_width
from autotune.report.spread import spread
from autotune.report.units import ratio

Item = TypeVar("Item")

POINTS = 800
"""Most trials that a chart draws one by one; of more it draws an even sample, which keeps the page small."""


def axes(x: Scale, y: Scale, x_name: str, y_name: str) -> Iterator[Mark]:
    """Draw a grid with its numbers, and each axis's name at its end."""
    for value, label in y.ticks():
        yield Path(((x.start, y(value)), (x.end, y(value))), "grid")
        yield Label(x.start - 6, y(value) + 4, label, "muted", 10.5, "end")
    for value, label in x.ticks():
        yield Path(((x(value), y.start), (x(value), y.start + 4)), "muted")
        yield Label(x(value), y.start + 16, label, "muted", 10.5, "middle")
    yield Path(((x.start, y.start), (x.end, y.start)), "muted")
    yield Label(x.end, y.start + 30, x_name, "muted", 10.5, "end")
    yield Label(0, 10, y_name, "muted", 10.5)


def legend(y: float, entries: list[tuple[str, str, str]]) -> Iterator[Mark]:
    """Draw a line of (role, shape, text), its baseline at `y`."""
    x = 5.0
    for role, shape, text in entries:
        yield Point(x, y - 4, role, {"circle": 4.5, "diamond": 5.5, "cross": 3}[shape], shape)
        yield Label(x + 9, y, text, "muted", 10.5)
        x += text_width(text, 10.5) + 30


def sampled(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most `most` of the items, evenly spaced and with the first."""
    return items[:: -(-len(items) // most)] if len(items) > most else items


def slowdown_axis(scale: Scale, bands: Sequence[tuple[float, float]]) -> Iterator[Mark]:
    """Draw a slowdown axis: grid lines inside the bands (top, bottom), numbers below the last band."""
    for value, label in scale.ticks(7):
        at = scale(value)
        yield from (Path(((at, top), (at, bottom)), "grid") for top, bottom in bands)
        yield Label(at, bands[-1][1] + 16, f"{label}×", "muted", size=10.5, anchor="middle")


def spread_row(values: Sequence[float], scale: Scale, y: float) -> Iterator[Mark]:
    """Draw one row of a spread: a line from 5 % to 95 %, a box of the middle half, a tick at the median."""
    if len(values) < 5:
        yield from (Point(scale(value), y, "trial", 3.5, title=ratio(value)) for value in values)
        return
    here = spread(values)
    yield Path(((scale(here.low), y), (scale(here.high), y)), "trial", 1.5)
    left, right = scale(here.quarter), scale(here.three_quarters)
    half = f"{ratio(here.quarter)} to {ratio(here.three_quarters)}"
    title = f"{here.count} configs: median {ratio(here.middle)}, half of them {half}"
    yield Bar(left, y - 5, max(2.0, right - left), 10, "spread", title)
    yield Path(((scale(here.middle), y - 6), (scale(here.middle), y + 6)), "ink", 2)
