"""A drawing as a list of marks in pixels; SVG and PNG are both made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from autotune.report.markup import Markup, element
from autotune.report.visible import visible

FONT = 12.0
"""Default text height in pixels; a scene has about as many pixels as a phone's page."""
WIDTH = 420.0
"""Width of every chart in pixels; charts of one width have text of one size on a page."""
_CELL = 0.6
"""Width of a character divided by the text's height: enough for the usual sans-serif fonts."""


@dataclass(frozen=True)
class Label:
    """Text; `y` is its baseline, and `anchor` the part that is at `x` (start, middle, end)."""

    x: float
    y: float
    text: str
    role: str = "ink"
    size: float = FONT
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Bar:
    """A filled rectangle; `title` appears when the pointer is on it."""

    x: float
    y: float
    width: float
    height: float
    role: str
    title: str = ""


@dataclass(frozen=True)
class Path:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    role: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Point:
    """A marker; `shape` is circle, diamond or cross."""

    x: float
    y: float
    role: str
    radius: float = 3.0
    shape: str = "circle"
    title: str = ""


Mark = Label | Bar | Path | Point


@dataclass(frozen=True)
class Scene:
    """A chart: its marks, and a title, which screen readers read out."""

    width: float
    height: float
    title: str
    marks: tuple[Mark, ...]


def fit(text: str, width: float, size: float = FONT) -> str:
    """Cut a text that is wider than `width` pixels, and end it with an ellipsis."""
    text = visible(text)
    cells = max(1, int(width / (_CELL * size)))
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def text_width(text: str, size: float = FONT) -> float:
    """Return the approximate width of a text in pixels."""
    return cell_len(text) * _CELL * size


def sheet(title: str, subtitle: str, scenes: list[Scene], columns: int = 2) -> Scene:
    """Put charts on one sheet under a title, each in the column that is shortest so far."""
    gap, top = 28.0, 64.0
    heights = [top] * columns
    marks: list[Mark] = []
    for scene in scenes:
        at = heights.index(min(heights))
        dx = gap + at * (WIDTH + gap)
        marks.append(Label(dx, heights[at] + 14, scene.title, size=14, bold=True))
        marks.extend(_shifted(mark, dx, heights[at] + 26) for mark in scene.marks)
        heights[at] += scene.height + 26 + gap
    width = gap + columns * (WIDTH + gap)
    marks.append(Label(gap, 30, fit(title, width - 2 * gap, 18), size=18, bold=True))
    marks.append(Label(gap, 50, fit(subtitle, width - 2 * gap, 11), "muted", size=11))
    return Scene(width, max(heights), title, tuple(marks))


def _shifted(mark: Mark, dx: float, dy: float) -> Mark:
    if isinstance(mark, Path):
        return replace(mark, points=tuple((x + dx, y + dy) for x, y in mark.points))
    return replace(mark, x=mark.x + dx, y=mark.y + dy)


def to_svg(scene: Scene) -> Markup:
    """Return the scene as an inline SVG; the page's classes give it its colours."""
    return element(
        "svg",
        *_svg_marks(scene),
        viewBox=f"0 0 {scene.width:g} {scene.height:g}",
        role="img",
        aria_label=scene.title,
        font_size=FONT,
    )


def _svg_marks(scene: Scene) -> Iterator[Markup]:
    for mark in scene.marks:
        if isinstance(mark, Label):
            yield _svg_label(mark)
        elif isinstance(mark, Path):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            dash = {"stroke_dasharray": "5 4"} if mark.dashed else {}
            yield element("polyline", class_=mark.role, points=points, stroke_width=mark.width, **dash)
        elif isinstance(mark, Bar):
            yield element(
                "rect",
                *_hover(mark.title),
                class_=mark.role,
                x=f"{mark.x:.1f}",
                y=f"{mark.y:.1f}",
                width=f"{mark.width:.1f}",
                height=f"{mark.height:.1f}",
                rx=min(2.0, mark.width / 2),
            )
        else:
            yield _svg_point(mark)


def _svg_label(mark: Label) -> Markup:
    extra: dict[str, str | float] = {}
    if mark.size != FONT:
        extra["font_size"] = mark.size
    if mark.anchor != "start":
        extra["text_anchor"] = mark.anchor
    if mark.bold:
        extra["font_weight"] = 600
    return element("text", mark.text, class_=mark.role, x=f"{mark.x:.1f}", y=f"{mark.y:.1f}", **extra)


def _svg_point(mark: Point) -> Markup:
    x, y, r = mark.x, mark.y, mark.radius
    if mark.shape == "circle":
        return element(
            "circle", *_hover(mark.title), class_=mark.role, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{r:g}"
        )
    if mark.shape == "diamond":
        outline = f"M{x:.1f} {y - r:.1f}l{r:g} {r:g}l{-r:g} {r:g}l{-r:g} {-r:g}z"
        return element("path", *_hover(mark.title), class_=mark.role, d=outline)
    cross = f"M{x - r:.1f} {y - r:.1f}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}"
    return element("path", *_hover(mark.title), class_=f"{mark.role} stroke", d=cross)


def _hover(title: str) -> tuple[Markup, ...]:
    return (element("title", title),) if title else ()
