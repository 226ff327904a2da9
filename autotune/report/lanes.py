"""The page of one estimate: the engines' lanes over time, what the time goes to, and what to do next."""

from __future__ import annotations

import json
import linecache
from collections.abc import Iterator
from importlib.resources import files

from autotune.nki.timing.advice import Advice, advice
from autotune.nki.timing.costs import ENGINES
from autotune.nki.timing.critical import Step
from autotune.nki.timing.estimates import Estimate, Timeline
from autotune.nki.timing.schedule import QUEUES
from autotune.nki.trace import Trace
from autotune.report.document import document
from autotune.report.lane_names import NAMES
from autotune.report.markup import Markup, element
from autotune.report.scene import Bar, Label, Mark, Path, Scene, to_svg

NOTICE = "An estimate: nothing on this page was run on a NeuronCore."
SOURCE = 110
"""Characters of a statement that are shown."""
STEPS = 12
"""Lines of the critical path in the table."""
_WIDE, _PITCH, _LEFT = 1100.0, 34.0, 120.0


def lanes_page(estimate: Estimate, title: str) -> str:
    """Return the lanes of an estimate as one HTML document.

    Args:
        title: the kernel's name and shapes.
    """
    timeline = estimate.timeline
    assert timeline is not None, "an estimate holds its timeline"
    points = advice(estimate)
    picture = element(
        "div",
        element("noscript", to_svg(lanes_scene(estimate, title))),
        element("div", id="lanes", class_="lanes", tabindex="0", aria_label=f"Lanes of {title}"),
        element("p", _HOW, class_="note"),
        class_="card",
    )
    return document(
        f"estimate: {title}",
        element("h1", title),
        element("p", NOTICE, class_="notice"),
        _figures(estimate),
        element("h3", "What to do next"),
        _points(points, timeline.trace),
        element("h3", "Lanes"),
        picture,
        element("h3", "Where the time goes"),
        _path(estimate),
        element("footer", element("p", _footer(estimate), class_="note")),
        element("script", Markup(_data(estimate)), type="application/json", id="data"),
        script=files("autotune.report").joinpath("lanes.js").read_text(encoding="utf-8"),
        style=files("autotune.report").joinpath("lanes.css").read_text(encoding="utf-8"),
    )


_HOW = (
    "Dark bars are on the critical path, thin tails are latency. Scroll to zoom, drag to move, double-click "
    "for the whole; the keys +, -, 0 and the arrows do the same. Point at a bar to see its line and what it "
    "waited for."
)


def _figures(estimate: Estimate) -> Markup:
    dma = estimate.dma
    moved = f"{dma.loaded_bytes / 2**20:,.1f} MiB in, {dma.stored_bytes / 2**20:,.1f} out, {dma.count:,} DMAs"
    tiles = [
        ("estimated", f"{estimate.us:,.1f} us", f"{estimate.low_us:,.1f} to {estimate.high_us:,.1f} us"),
        ("bound by", NAMES.get(estimate.bound_by, estimate.bound_by), f"{estimate.confidence} confidence"),
        ("MFU", f"{estimate.mfu:.1%}", f"TensorE works for {estimate.engines['tensor']:.0%}"),
        ("DMA busy", f"{dma.busy:.0%}", moved),
        ("SBUF at peak", _size(estimate.peak_sbuf_bytes), f"of {_size(estimate.sbuf_bytes)}"),
        ("PSUM at peak", _size(estimate.peak_psum_bytes), f"of {_size(estimate.psum_bytes)}"),
    ]
    return element("div", *(_figure(*tile) for tile in tiles), class_="figures card")


def _figure(name: str, value: str, more: str) -> Markup:
    return element(
        "div",
        element("span", name, class_="note"),
        element("strong", value),
        element("span", more, class_="note"),
    )


def _size(count: int) -> str:
    return f"{count / 2**20:,.2f}".rstrip("0").rstrip(".") + " MiB"


def _points(points: tuple[Advice, ...], trace: Trace) -> Markup:
    """List what to do next, each with the time that it is about."""
    return element("ol", *(_point(point, trace) for point in points), class_="points card")


def _point(point: Advice, trace: Trace) -> Markup:
    text: list[str] = [point.text]
    attributes: dict[str, str | float] = {}
    if point.line in trace.lines:
        attributes = {"data_line": trace.lines.index(point.line), "tabindex": 0}
        text.append(element("code", _where(point.line), class_="note"))
    about = (element("b", f"{point.us:,.1f} us"),) if point.us else ()
    return element("li", *about, element("span", *text), **attributes)


def _where(line: tuple[str, int]) -> str:
    return f"{line[0].rpartition('/')[2]}:{line[1]}"


def _path(estimate: Estimate) -> Markup:
    """Tell which lines the critical path is made of."""
    timeline = estimate.timeline
    assert timeline is not None
    most = max((step.work_us + step.wait_us for step in estimate.critical_path), default=1.0) or 1.0
    heads = ("line", "source", "on", "times", "works", "is waited for", "")
    rows = [_step(step, timeline.trace, most) for step in estimate.critical_path[:STEPS]]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", head, scope="col") for head in heads))),
        element("tbody", *rows),
        class_="path",
    )
    return element("div", table, class_="card")


def _step(step: Step, trace: Trace, most: float) -> Markup:
    bar = Scene(
        120,
        10,
        f"{step.work_us + step.wait_us:,.1f} us",
        (
            Bar(0, 0, 120 * step.work_us / most, 10, "best"),
            Bar(120 * step.work_us / most, 3, 120 * step.wait_us / most, 4, "trial"),
        ),
    )
    cells = (
        element("td", element("code", _where(step.line))),
        element("td", element("code", _source(step.line) or step.name)),
        element("td", NAMES[step.lane]),
        element("td", f"{step.times:,}", class_="n"),
        element("td", f"{step.work_us:,.1f} us", class_="n"),
        element("td", f"{step.wait_us:,.1f} us", class_="n"),
        element("td", to_svg(bar), class_="share"),
    )
    line = trace.lines.index(step.line) if step.line in trace.lines else -1
    return element("tr", *cells, data_line=line, tabindex=0)


def _source(line: tuple[str, int]) -> str:
    """Return the kernel's own statement, on one line; nothing if its file cannot be read."""
    file, number = line
    text = linecache.getline(file, number).strip()
    while text.count("(") > text.count(")") and len(text) < SOURCE:
        number += 1
        more = linecache.getline(file, number).strip()
        if not more:
            break
        text += more if text.endswith("(") or more.startswith(")") else f" {more}"
    return text if len(text) <= SOURCE else f"{text[: SOURCE - 4]} ..."


def _footer(estimate: Estimate) -> str:
    ranges = ", ".join(f"{name} {us:,.1f} us" for name, us in estimate.by_profile.items())
    return f"{estimate.model}, {estimate.target}. Priced under several profiles: {ranges}. {NOTICE}"


def _data(estimate: Estimate) -> str:
    """Return what the script draws, as JSON that cannot end the element it stands in."""
    timeline = estimate.timeline
    assert timeline is not None
    trace, schedule = timeline.trace, timeline.schedule
    critical = set(timeline.path)
    shown = _shown(timeline)
    kinds = [
        {
            "name": work.name,
            "lane": shown.index(schedule.engines[number]),
            "tail": round(timeline.prices[number].done_ns) if schedule.engines[number] >= QUEUES else 0,
        }
        for number, work in enumerate(trace.works)
    ]
    regions = [trace.tensors[region.tensor].name for region in trace.regions]
    data = {
        "ns": round(schedule.ns),
        "lanes": [NAMES[ENGINES[lane]] for lane in shown],
        "busy": [round(schedule.busy[lane] / max(schedule.ns, 1e-9), 3) for lane in shown],
        "kinds": kinds,
        "lines": [[_where(line), _source(line)] for line in trace.lines],
        "work": [work for work, _, _, _ in trace.instructions],
        "line": [line for _, _, _, line in trace.instructions],
        "into": [regions[writes[0]] if writes else "" for _, _, writes, _ in trace.instructions],
        "start": [round(each) for each in schedule.start],
        "end": [round(each) for each in schedule.end],
        "cause": schedule.cause,
        "critical": [number in critical for number in range(len(trace.instructions))],
    }
    packed = _interned(data)
    return json.dumps(packed, separators=(",", ":")).replace("<", "\\u003c")


def _shown(timeline: Timeline) -> list[int]:
    """Return the lanes that are drawn: all engines, and the DMA queues that are used."""
    used = {timeline.schedule.engines[work] for work, _, _, _ in timeline.trace.instructions}
    return [lane for lane in range(len(ENGINES)) if lane < QUEUES or lane in used]


def _interned(data: dict[str, object]) -> dict[str, object]:
    """Name each tensor once."""
    into = data["into"]
    assert isinstance(into, list)
    names = list(dict.fromkeys(into))
    places = {name: place for place, name in enumerate(names)}
    return {
        **data,
        "tensors": names,
        "into": [places[name] for name in into],
        "critical": _flags(data["critical"]),
    }


def _flags(values: object) -> list[int]:
    assert isinstance(values, list)
    return [int(value) for value in values]


def lanes_scene(estimate: Estimate, title: str) -> Scene:
    """Draw the lanes without zoom, for documents and for browsers without scripts."""
    timeline = estimate.timeline
    assert timeline is not None
    marks: list[Mark] = []
    shown = _shown(timeline)
    bottom = 8 + len(shown) * _PITCH
    for row, number in enumerate(shown):
        top = 8 + row * _PITCH
        busy = timeline.schedule.busy[number] / max(timeline.schedule.ns, 1e-9)
        marks.append(Label(0, top + 17, NAMES[ENGINES[number]], bold=True))
        marks.append(Label(_LEFT - 10, top + 17, f"{busy:.0%}", "muted", anchor="end"))
        marks.append(Path(((_LEFT, top + 26), (_WIDE, top + 26)), "grid"))
        marks.extend(_lane_bars(timeline, number, top))
    for us in _ticks(timeline.schedule.ns / 1e3):
        x = _LEFT + (_WIDE - _LEFT) * us * 1e3 / timeline.schedule.ns
        marks.append(Path(((x, 4), (x, bottom)), "grid"))
        marks.append(Label(x, bottom + 14, f"{us:g} us", "muted", 10, "middle" if us else "start"))
    return Scene(_WIDE, bottom + 40, title, (*marks, Label(_LEFT, bottom + 34, NOTICE, "muted", 10)))


def _lane_bars(timeline: Timeline, lane: int, top: float) -> Iterator[Bar]:
    """Merge what is closer than half a pixel; a merged bar is dark if any of it is on the critical path."""
    critical = set(timeline.path)
    scale = (_WIDE - _LEFT) / max(timeline.schedule.ns, 1e-9)
    low, high, dark = -1.0, -1.0, False
    for number, (work, _, _, _) in enumerate(timeline.trace.instructions):
        if timeline.schedule.engines[work] != lane:
            continue
        start, end = timeline.schedule.start[number] * scale, timeline.schedule.end[number] * scale
        if start - high > 0.5 or (number in critical) != dark:
            if high > low:
                yield Bar(_LEFT + low, top, max(0.4, high - low), 22, "best" if dark else "spread")
            low, dark = start, number in critical
        high = end
    if high > low:
        yield Bar(_LEFT + low, top, max(0.4, high - low), 22, "best" if dark else "spread")


def _ticks(us: float) -> list[float]:
    """Return about eight round times from 0 on."""
    step = 10.0 ** len(str(int(us / 8)).lstrip("0")) / 10 if us >= 8 else 1.0
    while us / step > 10:
        step *= 2 if str(step).startswith("1") else 2.5
    return [each * step for each in range(int(us / step) + 1)]
