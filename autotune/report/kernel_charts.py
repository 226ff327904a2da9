"""The charts of one kernel across its shapes: best against baseline, spread, roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autotune.model.roofline import Roofline
from autotune.model.trial import Metrics
from autotune.report.axes import POINTS, axes, legend, sampled, slowdown_axis, spread_row
from autotune.report.best_table import best_config
from autotune.report.scale import Scale, spanning
from autotune.report.scene import WIDTH, Bar, Label, Mark, Path, Point, Scene, fit, text_width
from autotune.report.units import duration, figures, ratio, throughput
from autotune.store.summary import Summary

ROW = 46.0
"""Pixels from one shape's row to the next."""
NAMES = 60
"""Most points that have their names beside them; more would cover the chart, and take long to place."""
LANE = 12.0
"""Two shapes whose strips are closer than this, in pixels, share one strip in a roofline."""


def kernel_charts(workloads: Sequence[Summary]) -> list[Scene]:
    """Return the charts that compare the shapes of one kernel; none if no trial ended ok."""
    known = [workload for workload in workloads if workload.best_reading]
    if not known:
        return []
    with_roof = [each for each in known if each.roofline and each.work.flops and each.work.bytes]
    charts = [comparison(known), spreads(known)]
    return [*charts, roofline(with_roof)] if with_roof else charts


def comparison(workloads: Sequence[Summary]) -> Scene:
    """Draw each shape's best and its baseline as bars from zero, with the speed-up at the right."""
    readings = [(workload.best_reading, workload.baseline_reading) for workload in workloads]
    rates = [throughput(reading) for pair in readings for reading in pair if reading]
    scale = Scale(0, max(rate for rate, _ in rates) or 1.0, 0, WIDTH - 92)
    marks: list[Mark] = []
    for row, workload in enumerate(workloads):
        top = row * ROW
        marks.append(Label(0, top + 14, fit(workload.shapes, WIDTH - 80), bold=True))
        if workload.speedup is not None:
            role = "best" if workload.speedup >= 1 else "baseline"
            marks.append(Label(WIDTH, top + 14, ratio(workload.speedup), role, anchor="end", bold=True))
        if workload.best_reading:
            marks.extend(
                _bar(workload.best_reading, scale, Bar(0, top + 19, 0, 12, "best", best_config(workload)))
            )
        if workload.baseline:
            bar = Bar(0, top + 32, 0, 7, "baseline", workload.baseline.name)
            marks.extend(_bar(workload.baseline.metrics, scale, bar))
    entries = [("best", "circle", f"best config, {rates[0][1]}")]
    names = sorted({workload.baseline.name for workload in workloads if workload.baseline})
    entries += [("baseline", "diamond", f"{fit(' or '.join(names), 150)} (baseline)")] if names else []
    height = len(workloads) * ROW + 18
    marks.extend(legend(height, entries))
    return Scene(WIDTH, height + 8, "Best against baseline" if names else "Best of each shape", tuple(marks))


def _bar(reading: Metrics, scale: Scale, bar: Bar) -> Iterator[Mark]:
    """Draw `bar` with the length of its reading, and the number behind it."""
    rate, unit = throughput(reading)
    end = max(2.0, scale(rate))
    yield replace(bar, width=end, title=f"{bar.title}: {figures(rate)} {unit}, {duration(reading.median_ms)}")
    role, size = ("ink", 11.0) if bar.role == "best" else ("muted", 9.5)
    yield Label(end + 6, bar.y + bar.height / 2 + size * 0.36, figures(rate), role, size)


def spreads(workloads: Sequence[Summary]) -> Scene:
    """Draw the slowdown of each shape's configs against its best: it shows what tuning gains."""
    slowdowns = [_slowdowns(workload) for workload in workloads]
    baselines = [workload.speedup for workload in workloads if workload.speedup]
    everything = [1.0, *baselines, *(value for group in slowdowns for value in group)]
    scale = spanning(everything, 6, WIDTH - 8, log=True, margin=0.02)
    pitch = 38.0
    tops = [row * pitch for row in range(len(workloads))]
    marks: list[Mark] = list(slowdown_axis(scale, [(top + 18, top + 32) for top in tops]))
    for top, workload, group in zip(tops, workloads, slowdowns, strict=True):
        marks.append(Label(0, top + 14, fit(workload.shapes, WIDTH * 0.7)))
        marks.append(Label(WIDTH, top + 14, f"{len(group)} configs", "muted", size=10, anchor="end"))
        marks.extend(spread_row(group, scale, top + 25))
        if workload.speedup:
            title = f"baseline: {ratio(workload.speedup)} the best's time"
            marks.append(Point(scale(workload.speedup), top + 25, "baseline", 5.5, "diamond", title))
        marks.append(Point(scale(1), top + 25, "best", 4.5))
    bottom = len(workloads) * pitch + 38
    entries = [("best", "circle", "best"), ("spread", "circle", "half of all configs")]
    if baselines:
        entries.append(("baseline", "diamond", "baseline"))
    marks.extend(legend(bottom, entries))
    return Scene(WIDTH, bottom + 8, "Spread: time over the best's", tuple(marks))


def _slowdowns(workload: Summary) -> list[float]:
    """Compare first readings: the finalists' second readings are of another time and another load."""
    best = workload.best.metrics if workload.best else None
    readings = [trial.metrics for trial in workload.measured]
    return [reading.median_ms / best.median_ms for reading in readings if reading and best]


def roofline(workloads: Sequence[Summary]) -> Scene:
    """Draw every trial below the machine's measured limits: GFLOP/s over FLOP/byte, both logarithmic."""
    roofs = list(dict.fromkeys(workload.roofline for workload in workloads if workload.roofline))
    intensities = [*map(_intensity, workloads), *(roof.ridge for roof in roofs)]
    rates = [rate for workload in workloads for rate in _rates(workload)]
    height = 250.0
    x = Scale(min(intensities) / 3, max(intensities) * 14, 38, WIDTH - 4, log=True)
    y = Scale(
        min(rates) / 1.5, max(*rates, *(roof.peak_gflops for roof in roofs)) * 1.3, height, 20, log=True
    )
    marks: list[Mark] = list(axes(x, y, "FLOP/byte", "GFLOP/s"))
    for roof in roofs:
        marks.extend(_roof(roof, x, y))
    marks.extend(_roofline_points(workloads, x, y))
    return Scene(WIDTH, height + 34, "Roofline", tuple(marks))


def _intensity(workload: Summary) -> float:
    return (workload.work.flops or 0) / workload.work.bytes


def _gflops(workload: Summary, reading: Metrics) -> float:
    return (workload.work.flops or 0) / reading.median_ms / 1e6


def _rates(workload: Summary) -> list[float]:
    readings = [trial.metrics for trial in workload.measured]
    readings += [workload.best_reading, workload.baseline_reading]
    return [_gflops(workload, reading) for reading in readings if reading]


def _roof(roof: Roofline, x: Scale, y: Scale) -> Iterator[Mark]:
    left = max(x.low, y.low / roof.bandwidth_gbytes_per_s)
    corners = (
        (left, roof.attainable_gflops(left)),
        (roof.ridge, roof.peak_gflops),
        (x.high, roof.peak_gflops),
    )
    yield Path(tuple((x(intensity), y(rate)) for intensity, rate in corners), "ink", 1.5)
    above = y(roof.peak_gflops) - 6
    yield Label(x.end, above, f"{figures(roof.peak_gflops)} GFLOP/s", "muted", 10.5, "end")
    yield Label(
        x(roof.ridge) - 8, above, f"{figures(roof.bandwidth_gbytes_per_s)} GB/s", "muted", 10.5, "end"
    )


def _roofline_points(workloads: Sequence[Summary], x: Scale, y: Scale) -> Iterator[Mark]:
    bests: list[Point] = []
    for workload in workloads:
        at = x(_intensity(workload))
        for rate in sampled(_rates(workload), max(1, POINTS // len(workloads))):
            yield Point(at, y(rate), "trial", 2.5)
        if workload.baseline:
            height = y(_gflops(workload, workload.baseline.metrics))
            yield Point(at, height, "baseline", 5.5, "diamond", f"{workload.shapes}: baseline")
        if workload.best_reading:
            bests.append(
                Point(at, y(_gflops(workload, workload.best_reading)), "best", 4.5, title=workload.shapes)
            )
    yield from bests
    roof = min(y(workload.roofline.peak_gflops) for workload in workloads if workload.roofline)
    if len(bests) <= NAMES:
        yield from _names(bests, roof + 14)


def _names(points: Sequence[Point], top: float) -> Iterator[Label]:
    """Put each point's title beside it, or lower if it would cover another or be above `top`."""
    strips = [point.x for point in points]
    placed: list[Label] = []
    for point in sorted(points, key=lambda point: point.y):
        label = _beside(point.x, max(point.y + 4, top), point.title, strips)
        while any(_overlap(label, other) for other in placed):
            label = replace(label, y=label.y + 3)
        placed.append(label)
    yield from placed


def _beside(at: float, baseline: float, text: str, strips: Sequence[float]) -> Label:
    """Place a label right of its strip, or left if another strip is in its way and there is room."""
    size = 10.0
    width = text_width(text, size) + 12
    blocked = any(LANE < other - at < width for other in strips)
    if blocked and at > width + 50 and not any(LANE < at - other < width for other in strips):
        return Label(at - 9, baseline, text, size=size, anchor="end")
    return Label(at + 9, baseline, fit(text, WIDTH - at - 9, size), size=size)


def _overlap(one: Label, other: Label) -> bool:
    left, right = sorted((one, other), key=_left)
    return abs(one.y - other.y) < one.size + 2 and _left(left) + text_width(left.text, left.size) > _left(
        right
    )


def _left(label: Label) -> float:
    return label.x - (text_width(label.text, label.size) if label.anchor == "end" else 0)
