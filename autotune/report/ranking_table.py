"""A ranking by estimates in the terminal: never among what was measured, and told as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from autotune.estimating import Estimated, Ranking
from autotune.estimating.store import Kept
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.report.lane_names import NAMES
from autotune.report.terminal import console_of, print_body, say
from autotune.report.units import config_text
from autotune.report.visible import encodable

NUMBERS = ("estimated us", "range", "MFU", "MBU")
HEADINGS = (*NUMBERS, "bound by", "outputs", "config")
TOP = 10
"""Configs in the table."""


def print_ranking(ranking: Ranking, stream: TextIO) -> None:
    """Print the ten fastest by estimate, how the others ended, and what a person should know."""
    _table(ranking, stream)
    if ranking.best:
        say(
            f"* the best whose outputs are right; {len(ranking.ties)} others are so close that the model "
            "cannot tell",
            stream,
        )
    for line in (*endings(ranking.estimates), *ranking.notes[1:]):  # the first one stands above the table
        say(line, stream)


def print_kept(kept: Kept, stream: TextIO) -> None:
    """Print what a cache has of one workload's estimates."""
    _table(kept, stream)
    for line in endings(kept.estimates):
        say(line, stream)


def _table(ranking: Ranking | Kept, stream: TextIO) -> None:
    say(f"{ranking.kernel} {ranking.shapes} on {ranking.target}: {DISCLAIMER} ({ranking.model})", stream)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        folds = heading == "config"
        table.add_column(
            heading,
            justify="right" if heading in NUMBERS else "left",
            no_wrap=not folds,
            overflow="fold",
            min_width=28 if folds else None,
        )
    for each in fastest(ranking):
        table.add_row(
            *(Text(encodable(cell, stream.encoding or "ascii")) for cell in row(each, ranking.best))
        )
    print_body(table, console_of(stream), stream)


def fastest(ranking: Ranking | Kept) -> list[Estimated]:
    """Return the configs in the table."""
    return [each for each in ranking.estimates if each.estimated_us is not None][:TOP]


def row(each: Estimated, best: Estimated | None) -> tuple[str, ...]:
    """Return the cells of a config, in the order of `HEADINGS`."""
    checked = "right" if each.checked else each.status.value.replace("ok", "not checked").replace("_", " ")
    return (
        f"{each.us:,.1f}{' *' if each is best else ''}",
        f"{each.low_us or 0:,.1f} to {each.high_us or 0:,.1f}",
        f"{each.mfu:.1%}",
        f"{each.mbu:.1%}",
        NAMES.get(each.bound_by, each.bound_by),
        checked,
        config_text(each.config),
    )


def endings(estimates: Sequence[Estimated]) -> list[str]:
    """Say how the configs ended that are not ok, with the first message of each kind."""
    messages: dict[str, list[str]] = {}
    for each in estimates:
        if each.estimated_us is None or each.message:
            first = each.message.splitlines()[0] if each.message else ""
            messages.setdefault(each.status.value, []).append(first)
    return [f"{len(told)} {status.replace('_', ' ')}: {told[0]}" for status, told in messages.items()]
