"""Draw a scene as a PNG; only this module imports matplotlib, when it draws the first PNG."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autotune.model.errors import UnavailableError
from autotune.report.palette import ROLES
from autotune.report.scene import Bar, Label, Mark, Path, Point, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 144
"""Two dots for each of a scene's pixels (1/72 inch): sharp on today's screens."""
_LONGEST = 30_000
"""Most dots of an image's side: a kernel may have thousands of shapes."""
_MARKERS = {"circle": "o", "diamond": "D", "cross": "x"}
_ALIGNED = {"start": "left", "middle": "center", "end": "right"}


def png(scene: Scene) -> bytes:
    """Return the content of a PNG file of `scene`, drawn in the light colours.

    Raises:
        UnavailableError: matplotlib is not installed.
    """
    try:
        with _elsewhere():
            from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(
            "PNG plots need matplotlib; install it with: pip install 'remote-autotune[autotune]'"
        ) from error
    dpi = min(DPI, 72 * _LONGEST / max(scene.width, scene.height))
    figure = Figure(figsize=(scene.width / 72, scene.height / 72), dpi=dpi, facecolor=ROLES["card"].light)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.set_axis_off()
    # One call draws neighbours of one kind: one call for each point takes matplotlib seconds.
    for order, (_, marks) in enumerate(itertools.groupby(scene.marks, key=_kind)):
        _draw(axes, list(marks), order)
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            image, format="png", metadata={"Software": "autotune"}, pil_kwargs={"compress_level": 3}
        )
    return image.getvalue()


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Leave the current folder, in which matplotlib looks for settings, some of which it evaluates.

    It may be a folder of results, which came from a host.
    """
    try:
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it was removed, or may not be read
        here = -1
    os.chdir("/")
    try:
        yield
    finally:
        if here >= 0:
            os.fchdir(here)
            os.close(here)


def _kind(mark: Mark) -> tuple[object, ...]:
    if isinstance(mark, Point):
        return Point, mark.role, mark.radius, mark.shape
    return (mark,)


def _draw(axes: Axes, marks: list[Mark], order: int) -> None:
    from matplotlib.patches import Rectangle

    mark = marks[0]
    colour = ROLES[mark.role]
    if isinstance(mark, Point):
        axes.plot(
            [point.x for point in marks if isinstance(point, Point)],
            [point.y for point in marks if isinstance(point, Point)],
            linestyle="",
            marker=_MARKERS[mark.shape],
            # matplotlib measures a diamond along its side, a scene measures it along its diagonal.
            markersize=2 * mark.radius * (0.71 if mark.shape == "diamond" else 1),
            markeredgewidth=1.2 if mark.shape == "cross" else 0,
            color=colour.light,
            alpha=colour.opacity,
            zorder=order,
        )
    elif isinstance(mark, Path):
        axes.plot(
            [x for x, _ in mark.points],
            [y for _, y in mark.points],
            linewidth=mark.width,
            linestyle=(0, (5, 4)) if mark.dashed else "-",
            color=colour.light,
            alpha=colour.opacity,
            zorder=order,
        )
    elif isinstance(mark, Bar):
        axes.add_patch(
            Rectangle(
                (mark.x, mark.y),
                mark.width,
                mark.height,
                color=colour.light,
                alpha=colour.opacity,
                zorder=order,
                lw=0,
            )
        )
    else:
        _draw_label(axes, mark, order)


def _draw_label(axes: Axes, mark: Label, order: int) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        mark.x,
        mark.y,
        mark.text,
        fontsize=mark.size,
        fontweight="bold" if mark.bold else "normal",
        horizontalalignment=_ALIGNED[mark.anchor],
        verticalalignment="baseline",
        color=ROLES[mark.role].light,
        zorder=order,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.5, foreground=ROLES["card"].light)],
    )
