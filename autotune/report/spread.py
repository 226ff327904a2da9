"""The order statistics behind the charts, in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from autotune.model.space import Value
from autotune.model.trial import Trial


@dataclass(frozen=True)
class Spread:
    """How a set of values is distributed."""

    count: int
    low: float
    quarter: float
    middle: float
    three_quarters: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Return the 5th, 25th, 50th, 75th and 95th percentile (by nearest rank: each is one of the values)."""
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(part * len(ordered)))] for part in (0.05, 0.25, 0.5, 0.75, 0.95)]
    return Spread(len(ordered), *at)


@dataclass(frozen=True)
class Effect:
    """The effect of one parameter on the time.

    Attributes:
        name: the parameter.
        explained: the fraction of the variance of log time that it explains by itself (eta squared).
        groups: value -> the first readings, in ms, of the trials with this value; the fastest median first.
        failures: value -> how many trials with this value failed.
    """

    name: str
    explained: float
    groups: dict[Value, list[float]]
    failures: dict[Value, int]


def effects(trials: Sequence[Trial]) -> list[Effect]:
    """Return the effect of each parameter with more than one value; the largest effect comes first."""
    groups: dict[str, dict[Value, list[float]]] = {}
    failures: dict[str, Counter[Value]] = {}
    for trial in trials:
        for name, value in trial.config.items():
            times, failed = groups.setdefault(name, {}), failures.setdefault(name, Counter())
            if trial.metrics:
                times.setdefault(value, []).append(trial.metrics.median_ms)
            else:
                failed[value] += 1
    found = (_effect(name, times, failures[name]) for name, times in groups.items() if len(times) > 1)
    return sorted(found, key=lambda effect: -effect.explained)


def _effect(name: str, times: Mapping[Value, list[float]], failures: dict[Value, int]) -> Effect:
    groups = dict(sorted(times.items(), key=lambda item: median(item[1])))
    return Effect(name, _eta_squared(list(groups.values())), groups, failures)


def _eta_squared(groups: list[list[float]]) -> float:
    """Return which fraction of the variance of log time lies between the groups, from 0 to 1."""
    logs = [[math.log(value) for value in group] for group in groups]
    everything = [value for group in logs for value in group]
    if len(everything) < 2:
        return 0.0
    mean = fmean(everything)
    total = sum((value - mean) ** 2 for value in everything)
    between = sum(len(group) * (fmean(group) - mean) ** 2 for group in logs)
    return between / total if total > 0 else 0.0
