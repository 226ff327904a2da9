"""`bench.compare`: compare hosts, runs or days."""

from __future__ import annotations

import sys
import time
from itertools import takewhile
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

from invoke import Context

from remote_tools.tasks._context import JSON, LOCAL_DIR, new_display, print_json, print_table, settings_for
from remote_tools.tasks.made_task import REQUIRED, Flag, MadeTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_tools.runs.compare import Side, WorkloadRow
    from remote_tools.runs.summaries import Best

NAME = "compare"
PAGE = "comparison.html"
SIDE = "a host, a run (its id, a unique part of it, last), a day as 2026-11-22, or a folder of results"


def _sides_typed() -> int:
    """Count the words right after the task's name, at least 2: Invoke needs a parameter for each."""
    at = [number for number, word in enumerate(sys.argv) if word.rpartition(".")[2] == NAME]
    following = takewhile(lambda word: not word.startswith("-"), sys.argv[at[0] + 1 :]) if at else []
    return min(max(2, len(list(following))), len(ascii_lowercase))


def _compare(
    context: Context,
    /,
    *,
    local_dir: str | None = None,
    out: str | None = None,
    json: bool = False,
    **given: str,
) -> None:
    from remote_tools.errors import TransferError, UnavailableError
    from remote_tools.runs.compare import closing, compare, side
    from remote_tools.runs.compare_page import page
    from remote_tools.settings.whole_file import FOR_ALL, write_whole

    settings = settings_for(context, required=(), local_dir=local_dir)
    sides = [side(given[name], settings) for name in sorted(given)]
    rows = compare(sides)
    for fault in (fault for each in sides for fault in each.faults):
        new_display().say(fault)
    if json:
        print_json([row.to_json() for row in rows])
        return
    show(sides, rows)
    for line in closing(sides, rows):
        print(line)
    path = Path(out).expanduser() if out else settings.local_dir / PAGE
    try:
        html = page(sides, rows, time.strftime("%Y-%m-%d %H:%M"))
    except UnavailableError as error:
        if out:
            raise
        new_display().say(str(error.message))  # only the page is missing; the table was printed
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, html.encode(errors="surrogateescape"), FOR_ALL)
    except OSError as error:
        raise TransferError(
            "compare", f"cannot write {path}: {error.strerror}", "name another file with --out"
        ) from error
    new_display().say(f"Wrote {path}")


def show(sides: Sequence[Side], rows: Sequence[WorkloadRow]) -> None:
    """Print the comparison as a table."""
    columns = ["workload", *(each.name for each in sides)]
    for each in sides[1:]:
        columns += [f"{each.name} to {sides[0].name}", ""]
    print_table(
        *columns,
        rows=[
            (
                f"{row.kernel}\n{row.shapes}",
                *(_figures(best) for best in row.best),
                *(text for one in row.ratios for text in ((str(one), one.verdict) if one else ("", ""))),
            )
            for row in rows
        ],
    )
    for each in sides:
        print(f"{each.name}: {each.about}")


def _figures(best: Best | None) -> str:
    from remote_tools.runs.summaries import duration

    return duration(best.median_ms) if best else "none"


def _flags() -> list[Flag]:
    """Return the parameters: one for each side that was typed, and the options."""
    out = f"the file for the page; {PAGE} in the folder of results by default"
    sides = [Flag(name, SIDE, REQUIRED) for name in ascii_lowercase[: _sides_typed()]]
    return [*sides, Flag("local_dir", LOCAL_DIR), Flag("out", out), Flag("json", JSON, False)]


ABOUT = "Compare hosts, runs or days, best config by best config: inv bench.compare A B ..."
compare = MadeTask(_compare, NAME, ABOUT, _flags)
