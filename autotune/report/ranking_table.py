"""A ranking by estimates in the terminal: never among what was measured, and told as what it is."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autotune.estimating import Estimated, Ranking
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.report.lane_names import NAMES
from autotune.report.terminal import say
from autotune.report.units import config_text

TOP = 10
"""Configs in the table."""
_PIPE = 10_000
"""Columns of a pipe: a row is one line."""


def print_ranking(ranking: Ranking, stream: TextIO) -> None:
    """Print the ten fastest by estimate, how the others ended, and what a person should know."""
    say(f"{ranking.kernel} {ranking.shapes} on {ranking.target}: {DISCLAIMER} ({ranking.model})", stream)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("estimated us", "range", "MFU", "MBU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("bound by", "outputs", "config"):
        table.add_column(heading)
    for each in [each for each in ranking.estimates if each.estimated_us is not None][:TOP]:
        table.add_row(*map(Text, _row(each, ranking)))
    width = None if stream.isatty() else _PIPE
    Console(file=stream, width=width, soft_wrap=not stream.isatty(), highlight=False).print(table)
    for line in endings(ranking):
        say(line, stream)


def _row(each: Estimated, ranking: Ranking) -> tuple[str, ...]:
    checked = "right" if each.checked else each.status.value.replace("ok", "not checked").replace("_", " ")
    return (
        f"{each.us:,.1f}{' *' if each is ranking.best else ''}",
        f"{each.low_us or 0:,.1f} to {each.high_us or 0:,.1f}",
        f"{each.mfu:.1%}",
        f"{each.mbu:.1%}",
        NAMES.get(each.bound_by, each.bound_by),
        checked,
        config_text(each.config),
    )


def endings(ranking: Ranking) -> list[str]:
    """Return in plain words what is beside the table."""
    lines = []
    if ranking.best:
        lines.append(
            f"* the fastest whose outputs are right; {len(ranking.ties)} others are so close that the model "
            "cannot tell"
        )
    messages: dict[str, list[str]] = {}
    for each in ranking.estimates:
        if each.estimated_us is None or each.message:
            first = each.message.splitlines()[0] if each.message else ""
            messages.setdefault(each.status.value, []).append(first)
    for status, told in messages.items():
        lines.append(f"{len(told)} {status.replace('_', ' ')}: {told[0]}")
    return lines + [note for note in ranking.notes if not note.startswith("estimated by")]
