"""How far a model was off: each config's estimate beside its measurement, and no ranking of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from autotune.estimating.prefilter import Compared, compared, summary
from autotune.estimating.result import Estimated
from autotune.estimating.store import Kept
from autotune.model.fingerprint import digest
from autotune.model.space import Value
from autotune.model.trial import Trial
from autotune.report.axes import POINTS, axes, sampled
from autotune.report.document import cell, heading
from autotune.report.markup import Markup, element
from autotune.report.scale import Scale, spanning
from autotune.report.scene import WIDTH, Label, Mark, Path, Point, Scene, to_svg
from autotune.report.units import config_text
from autotune.store.summary import Summary

BACKEND = "neuron"
"""Measures what the model estimates."""
BAND = 0.2
"""The error at which the dashed lines are drawn."""
HEADINGS = ("estimated us", "measured us", "error", "config")
_LEFT, _TOP, _BOTTOM = 48.0, 24.0, 390.0


def model_error(kept: Kept, workloads: Sequence[Summary]) -> Iterator[Markup]:
    """Yield a chart and a table for each summary of the same folder that has measurements of the backend.

    Args:
        kept: the estimates of one workload.
        workloads: of its folder: the latest summary, then those of earlier contexts.
    """
    once, ambiguous = _one_for_each_config(kept)
    for workload in workloads:
        trials = _measured(workload)
        made_with = _made_with(workload)
        target = made_with.get("target", kept.target)
        if trials and target != kept.target:
            told = f"Measured on {target}, estimated for {kept.target}: not compared."
            yield element("p", told, class_="note")
        elif found := compared(once, trials):
            where = (made_with.get(name) for name in ("target", "device", "version"))
            yield from _card(found, " · ".join(filter(None, [workload.shapes, *where])))
        left_out = sum(digest(each.config) in ambiguous for each in trials)
        if left_out and target == kept.target:
            told = (
                "Left out, as they have several estimates (of other data, targets or versions of the model)"
            )
            yield element("p", f"{told}: {left_out} of {len(trials)} measured configs.", class_="note")


def _one_for_each_config(kept: Kept) -> tuple[list[Estimated], set[str]]:
    """Return the estimates of configs that have one, and the digests of the configs that have several.

    The file keeps those of earlier targets and models; which of them is of which, it does not say.
    """
    named = [(digest(dict(each.config)), each) for each in kept.estimates]
    count = Counter(name for name, _ in named)
    once = [each for name, each in named if count[name] == 1]
    return once, {name for name, times in count.items() if times > 1}


def _made_with(workload: Summary) -> Mapping[str, str]:
    """Return what a summary says of the device and the versions that measured; empty if it does not."""
    facts = workload.contexts.get(BACKEND, {}).get("fingerprint")
    return {name: str(value) for name, value in facts.items() if value} if isinstance(facts, dict) else {}


def _measured(workload: Summary) -> list[Trial]:
    """Return the backend's trials that ended ok, with their configs as the kernel's generator knows them.

    A trial's path names its backend unless that is the kernel's first: the one that no path names.
    """
    named = {name for trial in workload.trials if (name := _named(trial))}
    unnamed = workload.contexts.keys() - named
    first = next(iter(unnamed)) if len(unnamed) == 1 else ""
    ours = [trial for trial in workload.measured if (_named(trial) or first) == BACKEND]
    return [replace(trial, config=_without_backend(trial)) for trial in ours]


def _named(trial: Trial) -> str:
    label, _, _ = trial.path.partition(",")
    return label.partition("=")[2] if label.startswith("backend=") else ""


def _without_backend(trial: Trial) -> dict[str, Value]:
    """Take away the backend's name, which `records.load` puts in front of a config."""
    added = trial.config.get("backend") == (_named(trial) or None)
    return {name: value for name, value in trial.config.items() if not (added and name == "backend")}


def _card(found: Sequence[Compared], about: str) -> Iterator[Markup]:
    drawn = error_chart(found)
    yield element("p", f"{about}: {summary(found)}.", class_="note")
    chart = element("div", element("h4", drawn.title), to_svg(drawn), class_="card")
    yield element("div", chart, class_="charts")
    head = element("thead", element("tr", *(heading(name, name != "config") for name in HEADINGS)))
    rows = (element("tr", *_cells(each)) for each in sorted(found, key=lambda each: each.measured_us))
    yield element(
        "div",
        element("h4", "Each config, the fastest by measurement first"),
        element("p", "Error: (estimated - measured) / measured.", class_="note"),
        element("table", head, element("tbody", *rows), class_="stacked"),
        class_="card",
    )


def _cells(each: Compared) -> Iterator[Markup]:
    figures = (f"{each.estimated_us:,.1f}", f"{each.measured_us:,.1f}", f"{each.error:+.1%}")
    for name, text in zip(HEADINGS, figures, strict=False):
        yield cell(name, text, "n")
    yield element("td", element("code", config_text(each.config)), class_="config")


def error_chart(found: Sequence[Compared]) -> Scene:
    """Draw measured over estimated microseconds, both logarithmic, with lines at no error and at 20 %.

    Args:
        found: at least one config.
    """
    values = [us for each in found for us in (each.estimated_us, each.measured_us)]
    room = 1 + 2 * BAND  # the dashed lines are in the chart even if all configs take equally long
    ends = min(values) / room, max(values) * room
    x = spanning(ends, _LEFT, WIDTH - 6, log=True, margin=0)
    y = spanning(ends, _BOTTOM, _TOP, log=True, margin=0)
    marks: list[Mark] = list(axes(x, y, "estimated us", "measured us"))
    marks.append(_line(0, x, y))
    for error, dx, dy in ((-BAND, -14, 10), (BAND, 0, 42)):  # each number is on its line's outer side
        line = _line(error, x, y)
        right, top = line.points[-1]
        marks += [line, Label(right + dx, top + dy, f"{error:+.0%}", "muted", 10.5, "end")]
    for each in sampled(found, POINTS):
        title = f"{config_text(each.config)}: {each.in_words}"
        marks.append(Point(x(each.estimated_us), y(each.measured_us), "trial", 3.5, title=title))
    marks.append(Label(_LEFT, _BOTTOM + 30, f"line: no error; dashed: {BAND:.0%} off", "muted", 10.5))
    return Scene(WIDTH, _BOTTOM + 36, "Measured against estimated", tuple(marks))


def _line(error: float, x: Scale, y: Scale) -> Path:
    """Draw where estimates have this error, as far as the chart goes."""
    factor = 1 + error
    estimates = max(x.low, y.low * factor), min(x.high, y.high * factor)
    points = tuple((x(us), y(us / factor)) for us in estimates)
    return Path(points, "muted" if error else "ink", 1.2, dashed=error != 0)
