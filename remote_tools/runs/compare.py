"""Compare the best configs of hosts, runs or days: the speed-up, and whether it is more than noise."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_tools.errors import UsageError
from remote_tools.runs import summaries
from remote_tools.runs.arrivals import display_path
from remote_tools.runs.records import Record, Records, match
from remote_tools.runs.summaries import Best
from remote_tools.settings.settings import Settings

CLOSE = 1.05
"""A ratio whose interval is within this factor of 1 is no difference to anybody."""
VERDICTS = ("faster", "same", "unclear", "slower")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Side:
    """The results of one side of a comparison.

    Args:
        name: as typed.
        about: the source of the results, in words.
        found: the best config of each workload.
        faults: files that could not be read, a line each.
    """

    name: str
    about: str
    found: dict[tuple[str, str], Best]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """The speed-up of another side: the first side's time divided by its time.

    Args:
        value: above 1 if the other side is faster.
        low, high: the 95 % interval.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`faster` or `slower` if the interval excludes 1; `same` if it is close to 1; else `unclear`."""
        if self.low > 1:
            return "faster"
        if self.high < 1:
            return "slower"
        return "same" if 1 / CLOSE <= self.low and self.high <= CLOSE else "unclear"

    def __str__(self) -> str:
        """Return it as `1.25x [1.21, 1.29]`."""
        return f"{self.value:.3g}x [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class WorkloadRow:
    """One workload.

    Args:
        kernel, shapes: the workload.
        best: the best config of every side; None if a side has no result.
        ratios: of every side but the first; None if one of the two has no result.
    """

    kernel: str
    shapes: str
    best: tuple[Best | None, ...]
    ratios: tuple[Ratio | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return {
            "kernel": self.kernel,
            "shapes": self.shapes,
            "best": [best and vars(best) for best in self.best],
            "ratios": [ratio and {**vars(ratio), "verdict": ratio.verdict} for ratio in self.ratios],
        }


# Finding the results of a side ------------------------------------------------------------------------------


def side(name: str, settings: Settings) -> Side:
    """Find the results for a name.

    If several runs measured one workload, the newest counts.

    Args:
        name: a host, whose results are in `<local_dir>/<host>` or in its runs; any folder of results; a day
            as 2026-11-22, in local time; or a run: its id, a unique part of it, or `last`.
        settings: of this checkout.

    Raises:
        UsageError: the name is unknown here, or has no results.
    """
    for folder in (settings.local_dir / name, Path(name)):
        paths = summaries.below(folder)
        if paths:
            return _read(name, display_path(folder), paths)
    runs, about = _runs(name, Records(settings.root))
    records = Records(settings.root)
    paths = [path for run in runs for path in summaries.below(records.folder(run["id"]) / summaries.KEPT)]
    if not paths:
        hint = "inv dev --auto-fetch and bench tasks keep the results of their runs"
        raise UsageError("compare", f"{name}: {about} left no results here", hint)
    return _read(name, about, paths)


def _read(name: str, about: str, paths: Sequence[Path]) -> Side:
    found, faults = summaries.read_all(paths)
    machines = sorted({best.where for best in found.values()} - {""})
    return Side(name, "; ".join([about, *machines]), found, tuple(faults))


def _runs(name: str, records: Records) -> tuple[list[Record], str]:
    """Return the runs for a name, oldest first, and a phrase for all of them."""
    runs: list[Record] = [{**records.read(run_id), "id": run_id} for run_id in records.ids()]
    if _DATE.fullmatch(name):
        of_day = [
            run for run in runs if time.strftime("%Y-%m-%d", time.localtime(run.get("started", 0))) == name
        ]
        return of_day, f"the runs of {name}"
    of_host = [run for run in runs if run.get("host") == name]
    if of_host:
        return of_host, f"the runs on {name}"
    if not runs:
        raise UsageError(
            "compare", f"{name}: no run was started from here", "inv bench.gemm --hosts trn1,trn2"
        )
    run_id = runs[-1]["id"] if name == "last" else match(name, [run["id"] for run in runs])
    return [run for run in runs if run["id"] == run_id], f"run {run_id}"


# Comparing --------------------------------------------------------------------------------------------------


def ratio(base: Best, other: Best) -> Ratio:
    """Divide two medians, with a 95 % interval.

    The variance of a quotient of medians has no formula. So the interval is computed from both intervals by
    the square-and-add rule, on logarithms (Zou and Donner, Statistics in Medicine 27, 2008: MOVER).
    """
    value = base.median_ms / other.median_ms
    down = math.hypot(math.log(base.median_ms / base.low_ms), math.log(other.high_ms / other.median_ms))
    up = math.hypot(math.log(base.high_ms / base.median_ms), math.log(other.median_ms / other.low_ms))
    return Ratio(value, value * math.exp(-down), value * math.exp(up))


def compare(sides: Sequence[Side]) -> list[WorkloadRow]:
    """Compare every side with the first, workload by workload."""
    rows = []
    for workload in sorted({workload for each in sides for workload in each.found}):
        best = tuple(each.found.get(workload) for each in sides)
        first = best[0]
        ratios = tuple(ratio(first, other) if first and other else None for other in best[1:])
        rows.append(WorkloadRow(*workload, best, ratios))
    return rows


def closing(sides: Sequence[Side], rows: Sequence[WorkloadRow]) -> list[str]:
    """Return a line for each side but the first: how many workloads are faster, the same, slower."""
    lines = []
    for number, each in enumerate(sides[1:]):
        found = [ratio for row in rows if (ratio := row.ratios[number])]
        if not found:
            lines.append(f"{each.name} and {sides[0].name} have no workload in common")
            continue
        mean = math.exp(sum(math.log(one.value) for one in found) / len(found))
        counts = ", ".join(
            f"{[one.verdict for one in found].count(word)} {word}"
            for word in VERDICTS
            if word != "unclear" or "unclear" in [one.verdict for one in found]
        )
        lines.append(f"{each.name} to {sides[0].name}: {counts}; {mean:.3g}x in the geometric mean")
    return lines
