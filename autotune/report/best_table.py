"""The text of the table of best configs; terminal and page show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from autotune.report.records import statuses
from autotune.report.units import config_text, duration, elapsed, interval, rate_text, ratio
from autotune.report.visible import visible
from autotune.store.summary import Summary

NOTHING = "–"
UNSTEADY = "unsteady"
"""The speed-up if the readings are unsteady: see `autotune.store.results.speedup`."""


class Column(NamedTuple):
    """One column of the table."""

    heading: str
    cell: Callable[[Summary], str]
    numeric: bool = False


def _time(workload: Summary) -> str:
    return duration(workload.best_reading.median_ms) if workload.best_reading else NOTHING


def _baseline(workload: Summary) -> str:
    return duration(workload.baseline.metrics.median_ms) if workload.baseline else NOTHING


def _speedup(workload: Summary) -> str:
    if workload.speedup is None:
        return UNSTEADY if workload.baseline and workload.best_reading else NOTHING
    return ratio(workload.speedup)


def _throughput(workload: Summary) -> str:
    return (workload.best_reading and rate_text(workload.best_reading)) or NOTHING


def _roofline(workload: Summary) -> str:
    reading = workload.best_reading
    return (
        NOTHING
        if reading is None or reading.roofline_fraction is None
        else f"{reading.roofline_fraction:.0%}"
    )


def _mfu(workload: Summary) -> str:
    reading = workload.best_reading
    return NOTHING if reading is None or reading.mfu is None else f"{reading.mfu:.1%}"


def best_config(workload: Summary) -> str:
    """Return the best config as text, if any; parameters that all trials share are left out."""
    if workload.best is None:
        return "no config ended ok"
    config = workload.best.config
    varied = {
        name: value
        for name, value in config.items()
        if any(trial.config.get(name) != value for trial in workload.trials)
    }
    return config_text(varied or config)


def _ties(workload: Summary) -> str:
    return str(len(workload.ties)) if workload.best else NOTHING


def _trials(workload: Summary) -> str:
    return f"{len(workload.measured)} of {len(workload.trials)}"


COLUMNS = (
    Column("kernel", lambda workload: visible(workload.kernel)),
    Column("shapes", lambda workload: visible(workload.shapes)),
    Column("backend", lambda workload: visible(workload.backend)),
    Column("best config", best_config),
    Column("time", _time, numeric=True),
    Column("baseline", _baseline, numeric=True),
    Column("speed-up", _speedup, numeric=True),
    Column("rate", _throughput, numeric=True),
    Column("roofline", _roofline, numeric=True),
    Column("MFU", _mfu, numeric=True),
    Column("ties", _ties, numeric=True),
    Column("ok trials", _trials, numeric=True),
    Column("spent", lambda workload: elapsed(workload.search.elapsed_s), numeric=True),
)


def telling(columns: Sequence[Column], workloads: Sequence[Summary]) -> list[Column]:
    """Return the columns in which at least one workload has a value."""
    return [column for column in columns if any(column.cell(workload) != NOTHING for workload in workloads)]


def endings(workload: Summary) -> str:
    """Return how the trials ended and how long that took: `478 ok, 5 crash; 1 min 12 s`."""
    counts = ", ".join(f"{count} {status.value}" for status, count in statuses(workload.trials))
    return f"{counts or 'no trials'}; {elapsed(workload.search.elapsed_s)}"


def against(workload: Summary) -> str:
    """Return the fastest baseline's name, then the others with their times; empty without a baseline.

    If there is no speed-up, the reason follows.
    """
    if workload.baseline is None:
        return ""
    others = [each for each in workload.baselines if each is not workload.baseline]
    slower = ", ".join(f"{visible(each.name)} {duration(each.metrics.median_ms)}" for each in others)
    name = f"against {visible(workload.baseline.name)}{f' (slower: {slower})' if slower else ''}"
    if workload.speedup is not None or workload.best_reading is None:
        return name
    readings = workload.best_reading, workload.baseline.metrics
    best, other = (interval(each.ci95_low_ms, each.ci95_high_ms) for each in readings)
    return f"{name}, but the machine was busy: the best took {best}, the baseline {other}"


def headline(workload: Summary) -> str:
    """Return the result as one line: `1.32× over numpy: 27.4 ms against 36.2 ms, 78.4 GFLOP/s, 1 tie`."""
    if workload.best is None:
        return ""
    rate = _throughput(workload)
    facts = [] if rate == NOTHING else [rate]
    if _roofline(workload) != NOTHING:
        facts.append(f"{_roofline(workload)} of the roofline")
    if _mfu(workload) != NOTHING:
        facts.append(f"{_mfu(workload)} MFU")
    if workload.ties:
        facts.append("1 tie" if len(workload.ties) == 1 else f"{len(workload.ties)} ties")
    if workload.baseline is None or workload.speedup is None:
        return ", ".join((_time(workload), *facts))
    against = f"{_time(workload)} against {_baseline(workload)}"
    return visible(f"{_speedup(workload)} over {workload.baseline.name}: {', '.join((against, *facts))}")
