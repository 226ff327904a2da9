"""The charts of one workload: distribution, progress, failures, and the effects of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from autotune.model.trial import Status, Trial
from autotune.report.axes import POINTS, axes, legend, sampled
from autotune.report.effects_chart import effects_chart
from autotune.report.records import statuses
from autotune.report.scale import Scale, spanning
from autotune.report.scene import WIDTH, Bar, Label, Mark, Path, Point, Scene, fit
from autotune.report.spread import effects
from autotune.report.units import config_text, duration, figures
from autotune.store.summary import Summary

HEIGHT = 190.0
LEFT = 44.0
BINS = 36


def workload_charts(workload: Summary) -> list[Scene]:
    """Return the charts of one workload; empty charts are left out."""
    charts = []
    best = workload.best
    if best and best.metrics and best.best_reading:
        charts += [distribution(workload, best.best_reading.median_ms), progress(workload)]
        if every := effects(workload.trials):
            charts.append(effects_chart(every, best.config, best.metrics.median_ms))
    if workload.failed:
        charts.append(failures(workload))
    return charts


def distribution(workload: Summary, best_ms: float) -> Scene:
    """Draw a histogram of all configs' first readings, with the baseline and the confirmed best."""
    times = [trial.metrics.median_ms for trial in workload.measured if trial.metrics]
    baseline = [workload.baseline.metrics.median_ms] if workload.baseline else []
    x = spanning([best_ms, *times, *baseline], LEFT, WIDTH - 6, log=True, margin=0.03)
    counts = [0] * BINS
    for time in times:
        counts[min(BINS - 1, int((x(time) - x.start) / (x.end - x.start) * BINS))] += 1
    y = Scale(0, max(counts) * 1.3, HEIGHT, 24, whole=True)
    marks: list[Mark] = list(axes(x, y, "median time, ms", "configs"))
    step = (x.end - x.start) / BINS
    edges = [x.low * (x.high / x.low) ** (index / BINS) for index in range(BINS + 1)]
    for index, count in enumerate(counts):
        if count:
            title = f"{count} configs: {duration(edges[index])} to {duration(edges[index + 1])}"
            height = y.start - y(count)
            marks.append(Bar(x.start + index * step + 0.5, y(count), step - 1, height, "spread", title))
    marks.extend(_uprights(workload, best_ms, x, y))
    return Scene(WIDTH, HEIGHT + 34, "Distribution of all trials", tuple(marks))


def _uprights(workload: Summary, best_ms: float, x: Scale, y: Scale) -> Iterator[Mark]:
    """Draw lines for the best and the baseline; the outer is taller, so that no line crosses a label."""
    lines = [("best", best_ms, f"best {duration(best_ms)}")]
    if workload.baseline:
        median = workload.baseline.metrics.median_ms
        lines.append(("baseline", median, f"{workload.baseline.name} {duration(median)}"))
    lines.sort(key=lambda line: line[1], reverse=x(best_ms) > WIDTH * 0.6)
    for top, (role, value, text) in zip((28.0, 42.0), lines, strict=False):
        at = x(value)
        yield Path(((at, y.start), (at, top - 6)), role, 2, dashed=role == "baseline")
        beside, anchor = (at + 6, "start") if at < WIDTH * 0.6 else (at - 6, "end")
        yield Label(beside, top + 4, fit(text, 200, 11), role, 11, anchor, bold=True)


def progress(workload: Summary) -> Scene:
    """Draw each trial in the order of measuring, and the best so far: it shows how fast the search was."""
    moments, unit = _moments(workload)
    times = [trial.metrics.median_ms for _, trial in moments if trial.metrics]
    baseline = [workload.baseline.metrics.median_ms] if workload.baseline else []
    x = Scale(0, max([1e-3, *(at for at, _ in moments)]) * 1.02, LEFT, WIDTH - 6)
    y = spanning([*times, *baseline], HEIGHT, 38 if workload.failed else 24, log=True)
    marks: list[Mark] = list(axes(x, y, unit, "median time, ms"))
    if workload.baseline:
        level = y(workload.baseline.metrics.median_ms)
        marks.append(Path(((x.start, level), (x.end, level)), "baseline", 1.5, dashed=True))
        name = fit(workload.baseline.name, 160, 11)
        marks.append(Label(x.end, level - 5, name, "baseline", 11, "end", bold=True))
    marks.extend(_trials(moments, x, y))
    marks.extend(_best_so_far(moments, x, y))
    entries = [("best", "circle", "best so far"), ("trial", "circle", "trial")]
    if workload.failed:
        entries.append(("failed", "cross", "failed"))
    marks.extend(legend(HEIGHT + 30, entries))
    return Scene(WIDTH, HEIGHT + 36, "Progress of the search", tuple(marks))


def _moments(workload: Summary) -> tuple[list[tuple[float, Trial]], str]:
    """Return (when, trial) in the order of the search, and the unit of `when`.

    It is seconds since this search began, if its trials have a start time. If they have none, or if all
    results came from the cache, it is the trials' order: results of several searches may be days apart.
    """
    here = sorted((trial for trial in workload.trials if trial.order >= 0), key=lambda trial: trial.order)
    if not any(trial.metrics for trial in here):
        here = sorted(workload.trials, key=lambda trial: trial.started_at)
        return [(float(index), trial) for index, trial in enumerate(here, 1)], "trials"
    try:
        starts = [
            datetime.fromisoformat(trial.started_at.replace("Z", "+00:00")).timestamp() for trial in here
        ]
    except (ValueError, OverflowError):
        starts = []
    first = min(starts, default=0.0)
    if not starts or max(starts) == first:
        return [(float(index), trial) for index, trial in enumerate(here, 1)], "trials"
    since = (start - first for start in starts)
    return sorted(zip(since, here, strict=True), key=lambda moment: moment[0]), "seconds"


def _trials(moments: list[tuple[float, Trial]], x: Scale, y: Scale) -> Iterator[Mark]:
    measured = [(at, trial, trial.metrics) for at, trial in moments if trial.metrics]
    for at, trial, metrics in sampled(measured, POINTS):
        title = f"{config_text(trial.config)}: {duration(metrics.median_ms)}"
        yield Point(x(at), y(metrics.median_ms), "trial", 2.5, title=title)
    failed = [(at, trial) for at, trial in moments if trial.status is not Status.OK]
    for at, trial in sampled(failed, POINTS // 4):
        title = f"{config_text(trial.config)}: {trial.status.value}"
        yield Point(x(at), y.end - 11, "failed", 3, "cross", title)


def _best_so_far(moments: list[tuple[float, Trial]], x: Scale, y: Scale) -> Iterator[Mark]:
    corners: list[tuple[float, float]] = []
    found: list[Mark] = []
    best = math.inf
    for at, trial in moments:
        if trial.metrics and trial.metrics.median_ms < best:
            if corners:
                corners.append((x(at), y(best)))
            best = trial.metrics.median_ms
            corners.append((x(at), y(best)))
            title = f"{duration(best)}: {config_text(trial.config)}"
            found.append(Point(x(at), y(best), "best", 4, title=title))
    if corners:
        yield Path((*corners, (x.end, corners[-1][1])), "best", 2)
    yield from found


def failures(workload: Summary) -> Scene:
    """Draw how many trials ended in each status except ok."""
    counts = [(status, count) for status, count in statuses(workload.trials) if status is not Status.OK]
    left, pitch = 128.0, 24.0
    scale = Scale(0, max(count for _, count in counts), left, WIDTH - 90)
    marks: list[Mark] = []
    for row, (status, count) in enumerate(counts):
        y = row * pitch
        share = f"{count} ({figures(100 * count / len(workload.trials), 2)} %)"
        marks.append(Label(0, y + 16, status.value))
        marks.append(Bar(left, y + 5, max(2.0, scale(count) - left), 14, "failed", share))
        marks.append(Label(scale(count) + 8, y + 16, share, "muted", 11))
    title = f"Failures: {len(workload.failed)} of {len(workload.trials)} trials"
    return Scene(WIDTH, len(counts) * pitch + 6, title, tuple(marks))
