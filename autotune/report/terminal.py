"""Print the best configs to a wide terminal, a narrow one, or a pipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autotune.report.best_table import COLUMNS, against, best_config, endings, headline, telling
from autotune.report.visible import encodable, visible
from autotune.store.summary import Summary

_UNBOUND = 10_000
"""Columns of a pipe: a row is always one line, so that grep and awk get all of it."""
_STYLES = {"kernel": "bold", "best config": "cyan", "baseline": "dim"}
_BELOW = {"ok trials", "spent"}
"""Columns that are printed below the table."""
_WIDE = {"backend", "best config"}
"""Columns that are printed there too if the terminal is not wide enough."""


def say(line: str, stream: TextIO) -> None:
    """Print a line: control characters become visible, whoever wrote them, and the stream can encode it."""
    print(encodable(visible(line), stream.encoding or "ascii"), file=stream)


def print_workloads(workloads: Sequence[Summary], stream: TextIO, width: int | None = None) -> None:
    """Print the best config of each workload, and how all its trials ended.

    A terminal that is too narrow for the table gets a few lines for each workload. Only a terminal gets
    colours. Characters that `stream` cannot encode are replaced.

    Args:
        workloads: printed in this order.
        stream: where to print.
        width: columns, instead of the terminal's.
    """
    console = console_of(stream, width)
    encoding = stream.encoding or "ascii"
    tables = (_table(workloads, encoding, below) for below in (_BELOW, _BELOW | _WIDE))
    unbound = console.options.update_width(_UNBOUND)
    fitting = (each for each in tables if Measurement.get(console, unbound, each).minimum <= console.width)
    print_body(next(fitting, None) or _cards(workloads, encoding), console, stream)


def console_of(stream: TextIO, width: int | None = None) -> Console:
    """Return a console that is as wide as the terminal in which the stream ends; a file has no width.

    The output of a remote run is a pipe that ends in a terminal: $COLUMNS has that terminal's width.
    """
    known = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(file=stream, width=width or (None if known else _UNBOUND), highlight=False, emoji=False)


def print_body(body: RenderableType, console: Console, stream: TextIO) -> None:
    """Print a table without the empty lines and the blanks around it."""
    with console.capture() as captured:
        console.print(body)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    stream.write("\n".join(lines).strip("\n") + "\n")


def _table(workloads: Sequence[Summary], encoding: str, below: set[str]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    columns: list[list[Text]] = []
    for column in telling([column for column in COLUMNS if column.heading not in below], workloads):
        cells = [encodable(column.cell(workload), encoding) for workload in workloads]
        folds = column.heading == "best config"
        table.add_column(
            column.heading,
            style=_STYLES.get(column.heading, ""),
            justify="right" if column.numeric else "left",
            no_wrap=not folds,
            overflow="fold",
            min_width=28 if folds else max(map(cell_len, (column.heading, *cells))),
        )
        styles = [_style(workload) if column.heading == "speed-up" else "" for workload in workloads]
        columns.append(list(map(Text, cells, styles)))
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    lines = [
        _line(f"{workload.kernel} {workload.shapes}: {told}", encoding)
        for workload in workloads
        for told in [
            "; ".join(filter(None, (*_facts(workload, below), endings(workload), against(workload))))
        ]
    ]
    return Group(table, *lines)


def _facts(workload: Summary, below: set[str]) -> list[str]:
    """Return the part of a workload's row that is printed below the table."""
    return [column.cell(workload) for column in COLUMNS if column.heading in below & _WIDE]


def _style(workload: Summary) -> str:
    """Return the style of a speed-up: green if it beats the baseline."""
    return "yellow" if workload.speedup is not None and workload.speedup < 1 else "bold green"


def _cards(workloads: Sequence[Summary], encoding: str) -> RenderableType:
    parts: list[RenderableType] = []
    for workload in workloads:
        name = visible(f"{workload.kernel}  {workload.shapes}  ({workload.backend})")
        parts.append(Text(encodable(name, encoding), "bold", overflow="fold"))
        lines = (
            (headline(workload), _style(workload)),
            (best_config(workload), "cyan"),
            (endings(workload), "dim"),
            (against(workload) if workload.speedup is None else "", "dim"),
        )
        parts.extend(
            Padding(Text(encodable(text, encoding), style, overflow="fold"), (0, 0, 0, 2))
            for text, style in lines
            if text
        )
    return Group(*parts)


def _line(text: str, encoding: str) -> Text:
    return Text(encodable(visible(text), encoding), "dim", overflow="fold")
