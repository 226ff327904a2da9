"""The report as one HTML file, with its charts as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from autotune.model.trial import Status, Trial
from autotune.report.best_table import COLUMNS, NOTHING, UNSTEADY, Column, best_config, endings, telling
from autotune.report.document import cell, document, heading
from autotune.report.kernel_charts import kernel_charts
from autotune.report.markup import Markup, element
from autotune.report.records import log_tail, statuses, texts
from autotune.report.scene import Scene, to_svg
from autotune.report.units import config_text, duration, elapsed, figures, interval, rate_text, ratio
from autotune.report.workload_charts import workload_charts
from autotune.store.results import speedup
from autotune.store.summary import Summary

if TYPE_CHECKING:
    from autotune.estimating.store import Kept

TOP = 10
"""Configs in a workload's table of best configs."""
CASES = 3
"""Failures of one status and message that are shown with their logs; the others are only counted."""
MESSAGES = 8
"""Different messages of one status that are shown."""


def page(workloads: Sequence[Summary], title: str, made_at: str, estimates: Sequence[Kept] = ()) -> str:
    """Return the report as an HTML document.

    Args:
        workloads: sorted by kernel.
        title: the cache's path.
        made_at: when, as text.
        estimates: what a model said, in a section of its own.
    """
    body = (
        *_header(workloads, title, made_at),
        *_kernels(workloads),
        *_estimates(estimates, workloads),
        *_environments(workloads),
    )
    return document(f"autotune report: {title}", *body)


def _estimates(estimates: Sequence[Kept], workloads: Sequence[Summary]) -> Iterator[Markup]:
    if estimates:
        from autotune.report.estimates_section import estimates_section  # a fifth of a second

        yield from estimates_section(estimates, workloads)


def _header(workloads: Sequence[Summary], title: str, made_at: str) -> Iterator[Markup]:
    trials = sum(len(workload.trials) for workload in workloads)
    failed = sum(len(workload.failed) for workload in workloads)
    spent = elapsed(sum(workload.search.elapsed_s for workload in workloads))
    yield element("h1", "autotune report")
    yield element(
        "p",
        f"{title} · {_count(len(workloads), 'workload')}, {_count(trials, 'trial')}, {failed} failed, "
        f"{spent} of search · {made_at}",
        class_="note",
    )
    shown = telling([column for column in COLUMNS if column.heading != "best config"], workloads)
    table = element(
        "table",
        element("thead", element("tr", *(heading(column.heading, column.numeric) for column in shown))),
        *(_summary_rows(workload, shown) for workload in workloads),
        class_="stacked",
    )
    yield element("div", table, class_="card")


def _summary_rows(workload: Summary, columns: Sequence[Column]) -> Markup:
    """Return a row of a workload's figures, and below it a row for its best config."""
    cells = []
    for column in columns:
        text = column.cell(workload)
        if column.heading == "shapes":
            text = element("a", text, href=f"#{_anchor(workload)}")
        wins = column.heading == "speed-up" and workload.speedup is not None and workload.speedup >= 1
        kind = "n wins" if wins else "n" if column.numeric else "wide"
        cells.append(cell(column.heading, text, kind))
    config = element("td", element("code", best_config(workload)), class_="config", colspan=len(columns))
    return element("tbody", element("tr", *cells), element("tr", config))


def _anchor(workload: Summary) -> str:
    return f"{workload.folder.parent.name}/{workload.folder.name}"


def _kernels(workloads: Sequence[Summary]) -> Iterator[Markup]:
    for kernel, group in groupby(workloads, key=lambda workload: workload.kernel):
        members = list(group)
        yield element("h2", kernel)
        yield _charts(kernel_charts(members))
        for workload in members:
            yield from _workload(workload)


def _charts(scenes: Sequence[Scene]) -> Markup:
    if not scenes:
        return Markup()
    cards = (element("div", element("h4", scene.title), to_svg(scene), class_="card") for scene in scenes)
    return element("div", *cards, class_="charts")


def _workload(workload: Summary) -> Iterator[Markup]:
    yield element("h3", f"{workload.kernel} · {workload.shapes}", id=_anchor(workload))
    facts = texts(vars(workload.search))
    search = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "elapsed_s")
    yield element("p", f"{endings(workload)} · {search}", class_="note")
    yield _charts(workload_charts(workload))
    if workload.measured:
        yield element("div", element("h4", "Best configs"), _best_table(workload), class_="card")
    if workload.failed:
        yield element("div", element("h4", "Failures and their logs"), *_failures(workload), class_="card")


def _best_table(workload: Summary) -> Markup:
    headings = ("median", "95 % CI", "rate", *(("speed-up",) if workload.baseline else ()))
    head = element(
        "thead", element("tr", heading("config", False), *(heading(name, True) for name in headings))
    )
    rows = []
    for trial in workload.measured[:TOP]:
        mark = " (best)" if trial is workload.best else " (tie)" if trial in workload.ties else ""
        config = element("td", element("code", config_text(trial.config)), mark, class_="config")
        cells = (cell(*each, "n") for each in zip(headings, _reading(workload, trial), strict=True))
        rows.append(element("tbody", element("tr", config, *cells)))
    return element("table", head, *rows, class_="stacked")


def _reading(workload: Summary, trial: Trial) -> tuple[str, ...]:
    reading = trial.best_reading
    assert reading is not None, "a measured trial has a reading"
    cells = (
        duration(reading.median_ms),
        interval(reading.ci95_low_ms, reading.ci95_high_ms),
        rate_text(reading) or NOTHING,
    )
    if workload.baseline is None:
        return cells
    times = speedup(workload.baseline.metrics, reading)
    return (*cells, UNSTEADY if times is None else ratio(times))


def _failures(workload: Summary) -> Iterator[Markup]:
    for status, count in statuses(workload.trials):
        if status is not Status.OK:
            label = element("span", status.value, class_="status")
            cases = [trial for trial in workload.failed if trial.status is status]
            yield element(
                "details", element("summary", label, f" · {_count(count, 'trial')}"), *_cases(workload, cases)
            )


def _cases(workload: Summary, trials: list[Trial]) -> Iterator[Markup]:
    by_message: dict[str, list[Trial]] = {}
    for trial in trials:
        by_message.setdefault(trial.message, []).append(trial)
    for message, alike in sorted(by_message.items(), key=lambda item: -len(item[1]))[:MESSAGES]:
        shown = [
            element("div", element("code", config_text(trial.config)), _log(workload, trial))
            for trial in alike[:CASES]
        ]
        more = len(alike) - len(shown)
        rest = [element("p", f"and {_count(more, 'config')} more like it", class_="note")] if more else []
        yield element(
            "details", element("summary", f"{message or 'no message'} · {len(alike)}"), *shown, *rest
        )
    if len(by_message) > MESSAGES:
        yield element("p", f"and {_count(len(by_message) - MESSAGES, 'other message')}", class_="note")


def _log(workload: Summary, trial: Trial) -> Markup:
    text = log_tail(workload, trial)
    return element("pre", text) if text else element("span", " · no log", class_="note")


def _environments(workloads: Sequence[Summary]) -> Iterator[Markup]:
    """Yield a table for each set of hosts and versions, with the workloads that it applies to."""
    yield element("h2", "Hosts and versions")
    groups: dict[tuple[tuple[str, str], ...], list[Summary]] = {}
    for workload in workloads:
        groups.setdefault(tuple(_facts(workload).items()), []).append(workload)
    for facts, members in groups.items():
        names = ", ".join(f"{workload.kernel} {workload.shapes}" for workload in members)
        which = [] if len(groups) == 1 else [element("p", names, class_="note")]
        rows = (
            element("tr", element("th", name, scope="row"), element("td", value)) for name, value in facts
        )
        yield element("div", *which, element("table", element("tbody", *rows)), class_="card")


def _facts(workload: Summary) -> Mapping[str, str]:
    facts = texts(workload.environment)
    facts["timing"] = ", ".join(f"{name} {value}" for name, value in texts(workload.timing).items())
    if workload.roofline:
        roof = workload.roofline
        peak, bandwidth = figures(roof.peak_gflops), figures(roof.bandwidth_gbytes_per_s)
        facts["roofline"] = f"{peak} GFLOP/s, {bandwidth} GB/s"
        if roof.sheet_gflops is not None:
            facts["peak of the data sheet"] = f"{figures(roof.sheet_gflops)} GFLOP/s"
    return facts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
