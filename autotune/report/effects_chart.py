"""The chart of each parameter's effect: for each of its values, the times of the configs that have it."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.model.space import Config, Value
from autotune.report.axes import slowdown_axis, spread_row
from autotune.report.scale import Scale, spanning
from autotune.report.scene import WIDTH, Label, Mark, Point, Scene, fit
from autotune.report.spread import Effect

ROWS = 48
"""Most rows in the chart; the parameters that matter least are left out."""
VALUES = 10
"""Most values of one parameter in the chart; the fastest are kept."""
_GUTTER = 128.0
_PITCH = 19.0


def effects_chart(every: list[Effect], best: Config, best_ms: float) -> Scene:
    """Draw each parameter's effect, as slowdown against the best.

    Args:
        every: at least one effect; the parameter that matters most comes first.
        best: the winner's config, whose values are marked.
        best_ms: the winner's first reading, because all other readings are first ones too.
    """
    slowdowns = [time / best_ms for times in every[0].groups.values() for time in times]
    scale = spanning([1.0, *slowdowns], _GUTTER, WIDTH - 8, log=True, margin=0.02)
    marks: list[Mark] = []
    bands: list[tuple[float, float]] = []
    top, shown = 0.0, _most_telling(every)
    for effect in shown:
        values = _natural_order(list(effect.groups)[:VALUES])
        marks.extend(_heading(effect, len(values), top))
        bands.append((top + 22, top + 22 + _PITCH * len(values)))
        for row, value in enumerate(values):
            y = top + 22 + _PITCH * (row + 0.5)
            marks.extend(_row(effect, value, best_ms, scale, y))
            room = 66 if value in effect.failures else _GUTTER - 16
            chosen = best.get(effect.name) == value
            marks.append(
                Label(8, y + 4, fit(str(value), room, 11), "best" if chosen else "ink", 11, bold=chosen)
            )
            if chosen:
                marks.append(Point(scale(1), y, "best", 4.5, title="the best config's value"))
        top = bands[-1][1] + 6
    marks.append(Label(0, top + 10, "time over best's", "muted", 10.5))
    if len(shown) < len(every):
        top += 18
        marks.append(Label(0, top + 10, f"{len(every) - len(shown)} more that matter less", "muted", 10.5))
    return Scene(WIDTH, top + 14, "Effect of each parameter", (*slowdown_axis(scale, bands), *marks))


def _most_telling(every: list[Effect]) -> list[Effect]:
    """Return the effects that fit in the chart; the first is always among them."""
    rows = 0
    shown: list[Effect] = []
    for effect in every:
        rows += min(VALUES, len(effect.groups))
        if shown and rows > ROWS:
            break
        shown.append(effect)
    return shown


def _heading(effect: Effect, drawn: int, top: float) -> Iterator[Mark]:
    some = "" if drawn == len(effect.groups) else f"fastest {drawn} of {len(effect.groups)} values, "
    yield Label(0, top + 14, fit(effect.name, WIDTH * 0.45), bold=True)
    yield Label(WIDTH, top + 14, f"{some}explains {effect.explained:.0%}", "muted", 10.5, "end")


def _row(effect: Effect, value: Value, best_ms: float, scale: Scale, y: float) -> Iterator[Mark]:
    if value in effect.failures:
        yield Label(_GUTTER - 8, y + 4, f"{effect.failures[value]} failed", "failed", 9.5, "end")
    yield from spread_row([time / best_ms for time in effect.groups[value]], scale, y)


def _natural_order(values: list[Value]) -> list[Value]:
    """Return a sort key: numbers by size, then texts by name."""
    numbers = sorted(value for value in values if not isinstance(value, str))
    return [*numbers, *sorted(value for value in values if isinstance(value, str))]
