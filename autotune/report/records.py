"""Read the cache's perf_metrics.json files: checked, for they may come from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.model.errors import DataError
from autotune.model.trial import Metrics, Status, Trial
from autotune.report.visible import visible
from autotune.store import cache
from autotune.store.results import speedup

_LIMIT = 1e18
"""Above it, and below its inverse, a figure is a mistake or a prank, and arithmetic on it could overflow."""
LOG_TAIL_BYTES = 6000
"""Bytes of a log's end that are read: enough for a compiler's last errors, and a report stays small."""


@dataclass(frozen=True)
class Roofline:
    """The measured limits of the machine that ran the trials."""

    peak_gflops: float
    bandwidth_gbytes_per_s: float

    @property
    def ridge(self) -> float:
        """The FLOP/byte above which arithmetic is the limit, and below which memory is."""
        return self.peak_gflops / self.bandwidth_gbytes_per_s

    def attainable_gflops(self, intensity: float) -> float:
        """Return the most that a kernel of `intensity` FLOP/byte can do."""
        return min(self.peak_gflops, self.bandwidth_gbytes_per_s * intensity)


@dataclass(frozen=True)
class Workload:
    """One kernel on one set of shapes: everything its perf_metrics.json says.

    Attributes:
        folder: where the file lies; the trials' folders are below it.
        environment: host, cpu, compiler, versions: name -> text.
        timing: how times were taken: name -> text.
        search: strategy, seed, sizes and budgets: name -> text.
        elapsed_s: seconds the search took.
        reference: the reading to beat; None where the kernel has none.
        trials: best first, failures last.
        best: the winner; None where nothing ended ok.
        ties: trials that cannot be told from the winner.
    """

    folder: Path
    kernel: str
    shapes: str
    backend: str
    flops: float
    bytes_moved: float
    environment: Mapping[str, str]
    timing: Mapping[str, str]
    search: Mapping[str, str]
    elapsed_s: float
    roofline: Roofline | None
    reference_name: str
    reference: Metrics | None
    trials: tuple[Trial, ...]
    best: Trial | None
    ties: tuple[Trial, ...]

    @property
    def measured(self) -> tuple[Trial, ...]:
        """The trials that ended ok, best first."""
        return tuple(trial for trial in self.trials if trial.metrics)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that did not end ok."""
        return tuple(trial for trial in self.trials if trial.status is not Status.OK)

    @property
    def best_reading(self) -> Metrics | None:
        """The winner's reading that counts."""
        return self.best.best_reading if self.best else None

    @property
    def speedup(self) -> float | None:
        """How many times faster than the reference the winner is; None where that cannot be told."""
        if self.best_reading is None or self.reference is None:
            return None
        return speedup(self.reference, self.best_reading)

    @property
    def host(self) -> str:
        """Where it was measured, as one phrase."""
        return " · ".join(
            visible(self.environment[key]) for key in ("host", "cpu", "version") if self.environment.get(key)
        )


def load(path: Path) -> Workload:
    """Read one perf_metrics.json.

    Raises:
        DataError: not JSON, of a newer schema, or a field that is missing or of the wrong type.
        CacheError: it cannot be read.
    """
    record = cache.read_metrics(path)
    try:
        return _workload(path.parent, record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error} there" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: {visible(reason)}; fetch it again, or tune again to replace it") from error


def log_tail(workload: Workload, trial: Trial) -> str:
    """Return the end of the log that tells why a trial failed; empty where there is none.

    A trial's path is what another machine wrote: one that leads out of the workload's folder is not followed.
    """
    compiling = trial.status in {Status.COMPILE_ERROR, Status.COMPILE_TIMEOUT}
    names = (cache.COMPILATION, cache.EXECUTION)
    root = workload.folder.resolve()
    for name in names if compiling else reversed(names):
        try:
            log = (root / trial.path / name).resolve()
            if not log.is_relative_to(root) or not log.is_file():
                continue
            with log.open("rb") as stream:
                cut = stream.seek(0, 2) > LOG_TAIL_BYTES
                stream.seek(-LOG_TAIL_BYTES if cut else 0, 2 if cut else 0)
                text = stream.read(LOG_TAIL_BYTES).decode("utf-8", "backslashreplace").strip("\n")
        except (OSError, ValueError):
            continue
        if text:
            return visible("…\n" + text.partition("\n")[2] if cut and "\n" in text else text, keep="\n\t")
    return ""


def _workload(folder: Path, record: Mapping[str, Any]) -> Workload:
    trials = tuple(_trial(entry) for entry in record["trials"])
    by_path = {trial.path: trial for trial in trials if trial.metrics}
    reference = record["reference"]
    roofline = record["roofline"]
    return Workload(
        folder=folder,
        kernel=_text(record["kernel"]),
        shapes=_text(record["shapes"]),
        backend=_text(record["backend"]),
        flops=max(0.0, _number(record["work"]["flops"])),
        bytes_moved=max(0.0, _number(record["work"]["bytes"])),
        environment=_texts(record["environment"]),
        timing=_texts(record["timing"]),
        search=_texts(record["search"]),
        elapsed_s=_number(record["search"]["elapsed_s"]),
        roofline=Roofline(_positive(roofline["peak_gflops"]), _positive(roofline["bandwidth_gbytes_per_s"]))
        if roofline
        else None,
        reference_name=_text(reference["name"]) if reference else "",
        reference=_checked(Metrics(**reference["metrics"])) if reference else None,
        trials=trials,
        best=by_path[record["best"]] if by_path else None,
        ties=tuple(by_path[path] for path in record["ties"] if path != record["best"]),
    )


def _trial(entry: Mapping[str, Any]) -> Trial:
    trial = _with_backend(Trial.from_dict(entry))
    for text in (trial.identity, trial.path, trial.message, trial.started_at, *trial.config):
        _text(text)
    for value in trial.config.values():
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"expected a parameter's value, found {value!r:.60}")
    for number in (trial.order, trial.compile_s or 0.0, *trial.samples_ms):
        _number(number)
    for reading in (trial.metrics, trial.confirmed):
        if reading:
            _checked(reading)
    if (trial.status is Status.OK) != (trial.metrics is not None):
        raise ValueError(
            f"the trial {trial.path!r:.60} is {trial.status.value}, which its metrics contradict"
        )
    return trial


def _with_backend(trial: Trial) -> Trial:
    """Return the trial with the backend in its config where its folder names one: not the kernel's first."""
    first, _, _ = _text(trial.path).partition(",")
    if not first.startswith("backend=") or "backend" in trial.config:
        return trial
    return replace(trial, config={"backend": first.partition("=")[2], **trial.config})


def _checked(metrics: Metrics) -> Metrics:
    for name, value in vars(metrics).items():
        if name.endswith("_ms"):
            _positive(value)
        elif (value is not None or name not in {"roofline_fraction", "mfu"}) and _number(value) < 0:
            raise ValueError(f"{name} is {value!r:.60}, below zero")
    return metrics


def _texts(entry: Mapping[str, Any]) -> dict[str, str]:
    return {_text(name): _flat(value) for name, value in entry.items() if value is not None}


def _flat(value: object) -> str:
    return " ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.60}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"expected a finite number, found {value!r:.60}")
    if abs(value) > _LIMIT:
        raise ValueError(f"expected a number of this world, found {value!r:.60}")
    return value


def _positive(value: object) -> float:
    number = _number(value)
    if number < 1 / _LIMIT:
        raise ValueError(f"expected a number above zero, found {number!r:.60}")
    return number


def statuses(trials: tuple[Trial, ...]) -> Iterator[tuple[Status, int]]:
    """Yield each status that occurred and how often, in the order `Status` names them."""
    for status in Status:
        count = sum(trial.status is status for trial in trials)
        if count:
            yield status, count
