"""The table of best configs as text, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from autotune.report.records import Workload, statuses
from autotune.report.units import config_text, duration, elapsed, figures, ratio, throughput
from autotune.report.visible import visible

NOTHING = "–"


class Column(NamedTuple):
    """One column of the table."""

    heading: str
    cell: Callable[[Workload], str]
    numeric: bool = False


def _time(workload: Workload) -> str:
    return duration(workload.best_reading.median_ms) if workload.best_reading else NOTHING


def _reference(workload: Workload) -> str:
    return duration(workload.reference.median_ms) if workload.reference else NOTHING


def _speedup(workload: Workload) -> str:
    return ratio(workload.speedup) if workload.speedup is not None else NOTHING


def _throughput(workload: Workload) -> str:
    if workload.best_reading is None:
        return NOTHING
    value, unit = throughput(workload.best_reading)
    return f"{figures(value)} {unit}"


def _roofline(workload: Workload) -> str:
    reading = workload.best_reading
    return (
        NOTHING
        if reading is None or reading.roofline_fraction is None
        else f"{reading.roofline_fraction:.0%}"
    )


def best_config(workload: Workload) -> str:
    """Write the best config, or that there is none."""
    return config_text(workload.best.config) if workload.best else "no config ended ok"


def _ties(workload: Workload) -> str:
    return str(len(workload.ties)) if workload.best else NOTHING


def _trials(workload: Workload) -> str:
    return f"{len(workload.measured)} of {len(workload.trials)}"


COLUMNS = (
    Column("kernel", lambda workload: visible(workload.kernel)),
    Column("shapes", lambda workload: visible(workload.shapes)),
    Column("backend", lambda workload: visible(workload.backend)),
    Column("best config", best_config),
    Column("time", _time, numeric=True),
    Column("reference", _reference, numeric=True),
    Column("speed-up", _speedup, numeric=True),
    Column("rate", _throughput, numeric=True),
    Column("roofline", _roofline, numeric=True),
    Column("ties", _ties, numeric=True),
    Column("ok trials", _trials, numeric=True),
    Column("spent", lambda workload: elapsed(workload.elapsed_s), numeric=True),
)


def telling(columns: Sequence[Column], workloads: Sequence[Workload]) -> list[Column]:
    """Return the columns in which at least one workload has something to say."""
    return [column for column in columns if any(column.cell(workload) != NOTHING for workload in workloads)]


def endings(workload: Workload) -> str:
    """Write how the trials ended and what that took: `478 ok, 5 crash; 1 min 12 s`."""
    counts = ", ".join(f"{count} {status.value}" for status, count in statuses(workload.trials))
    return f"{counts or 'no trials'}; {elapsed(workload.elapsed_s)}"


def headline(workload: Workload) -> str:
    """Write the result as one line: `1.32× over numpy: 27.4 ms against 36.2 ms, 78.4 GFLOP/s, 1 tie`."""
    if workload.best is None:
        return ""
    facts = [_throughput(workload)]
    if _roofline(workload) != NOTHING:
        facts.append(f"{_roofline(workload)} of the roofline")
    if workload.ties:
        facts.append("1 tie" if len(workload.ties) == 1 else f"{len(workload.ties)} ties")
    if workload.speedup is None:
        return ", ".join((_time(workload), *facts))
    against = f"{_time(workload)} against {_reference(workload)}"
    return visible(f"{_speedup(workload)} over {workload.reference_name}: {', '.join((against, *facts))}")
