"""The colours by their meaning, for light and dark pages; colour-blind readers can tell them apart.

Blue against orange is the pair of Okabe and Ito's palette that every kind of colour vision separates
(https://jfly.uni-koeln.de/color/). Nearly all other colours are greys. No chart relies on colour alone: the
best is a circle, the baseline a diamond or a dashed line, a failure a cross.
"""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """A meaning's colour on a light and on a dark page, and its opacity."""

    light: str
    dark: str
    opacity: float = 1.0


ROLES = {
    "ink": Colour("#1b2330", "#e8ecf2"),
    "muted": Colour("#5d6878", "#9aa7b8"),
    "grid": Colour("#dfe4ea", "#2d3744"),
    "page": Colour("#f6f7f9", "#0f141b"),
    "card": Colour("#ffffff", "#171e28"),
    "best": Colour("#0068a8", "#56b4e9"),
    "baseline": Colour("#ac5400", "#f0a43c"),
    "trial": Colour("#6b7a8d", "#8b9bb0", 0.45),
    "spread": Colour("#c3d5e4", "#2c4a63"),
    "failed": Colour("#a3326b", "#e58ab8"),
}


def stylesheet() -> str:
    """Return the CSS that gives each role's class its colour, dark if the reader prefers that."""
    light = "".join(f"--{name}:{colour.light};" for name, colour in ROLES.items())
    dark = "".join(f"--{name}:{colour.dark};" for name, colour in ROLES.items())
    classes = "".join(
        f"svg .{name}{{color:var(--{name});opacity:{colour.opacity:g}}}" for name, colour in ROLES.items()
    )
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}"
