"""A recording: the content of every format, and how a recorded time becomes a trial."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.model.space import Value
from autotune.model.statistics import metrics
from autotune.model.trial import Status, Trial
from autotune.model.workload import config_label


@dataclass(frozen=True)
class Recording:
    """The trials of one workload, as another program keeps them.

    Args:
        kernel: the kernel's name.
        workload: its input, written as a folder's name (`1024x1024`).
        device: the device that ran it.
        parameters: name -> the values in the search space.
        trials: in the order of the file.
    """

    kernel: str
    workload: str
    device: str
    parameters: Mapping[str, Sequence[Value]]
    trials: tuple[Trial, ...]


def trial_of(
    config: dict[str, Value],
    status: Status,
    order: int,
    outcome: float | str,
    samples_ms: Sequence[float],
    compile_ms: float | None,
    started_at: str,
) -> Trial:
    """Make a trial from a recorded time, or from the name of a failure."""
    compile_s = None if compile_ms is None else round(compile_ms / 1e3, 9)
    path = config_label(config)
    if status is not Status.OK:
        return Trial(config, status, "", path, order, str(outcome), None, None, compile_s, started_at)
    time = float(outcome)
    if not (math.isfinite(time) and time > 0):
        raise ValueError(f"{path}: the time must be finite and above 0 ms, got {time}")
    samples = tuple(float(sample) for sample in samples_ms)
    if not samples or not min(samples) <= time <= max(
        samples
    ):  # the samples have another unit, or are from another run
        samples = (time,)
    reading = replace(metrics(samples, flops=None, bytes_moved=0), median_ms=time)
    return Trial(config, status, "", path, order, "", reading, None, compile_s, started_at, samples)


def values_of(configs: Iterable[Mapping[str, Value]]) -> dict[str, Sequence[Value]]:
    """Return the values of each parameter: numbers sorted, others in order of appearance."""
    found: dict[str, dict[Value, None]] = {}
    for config in configs:
        for name, value in config.items():
            found.setdefault(name, {})[value] = None
    return {
        name: list(values) if any(isinstance(value, str) for value in values) else sorted(values)
        for name, values in found.items()
    }


def folder_name(text: str) -> str:
    """Return a text as a folder's name."""
    return re.sub(r"^\.|[^A-Za-z0-9_.,+-]", "_", text)[:120] or "unnamed"
