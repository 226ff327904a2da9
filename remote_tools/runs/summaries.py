"""Read perf_metrics.json, the tuner's summary of one workload.

The file comes from a host and is not trusted: names are made printable and figures are checked.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from remote_tools.errors import DataError

SUMMARY = "perf_metrics.json"
KEPT = "results"
"""Folder of a run's record with a copy of its summaries: later runs replace those in local_dir."""


class Reading(TypedDict):
    """One measurement of a config, in the file: what is used of it here."""

    ci95_low_ms: float
    median_ms: float
    ci95_high_ms: float
    gflops: float | None


class Trial(TypedDict):
    """One config in the file: what is used of it here."""

    path: str
    status: str
    metrics: Reading | None
    confirmed: Reading | None


class Summary(TypedDict):
    """The file: what is used of it here; `autotune/store/summary.py` writes it."""

    kernel: str
    shapes: str
    environment: dict[str, object]
    trials: list[Trial]


@dataclass(frozen=True)
class Best:
    """The best config of one workload.

    Args:
        kernel, shapes: the workload.
        config: the best config.
        median_ms: of the confirmed measurement if there is one, else of the first.
        low_ms, high_ms: the 95 % interval of that median.
        gflops: the rate in GFLOP/s; None if the number of operations is unknown.
        where: the machine of the measurement, in words.
    """

    kernel: str
    shapes: str
    config: str
    median_ms: float
    low_ms: float
    high_ms: float
    gflops: float | None
    where: str

    @property
    def workload(self) -> tuple[str, str]:
        """The key of the workload."""
        return self.kernel, self.shapes


def read(path: Path) -> Best | None:
    """Read one summary; return None if no config has succeeded yet.

    Raises:
        DataError: the file cannot be read, or is no valid summary.
    """
    try:
        found: Summary = json.loads(path.read_bytes())
        trial = next((each for each in found["trials"] if each["status"] == "ok"), None)
        reading = trial and (trial["confirmed"] or trial["metrics"])
        if not trial or not reading:
            return None
        median_ms = _positive(reading["median_ms"])
        low_ms, high_ms = _positive(reading["ci95_low_ms"]), _positive(reading["ci95_high_ms"])
        return Best(
            printable(found["kernel"]),
            printable(found["shapes"]),
            printable(trial["path"]),
            median_ms,
            min(low_ms, median_ms),
            max(high_ms, median_ms),
            _positive(reading["gflops"]) if reading.get("gflops") else None,
            _machine(found.get("environment") or {}),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "fetch it again: inv fetch --all"
        raise DataError("results", f"{path}: not a readable summary ({error!r:.80})", hint) from error


def read_all(paths: Iterable[Path]) -> tuple[dict[tuple[str, str], Best], list[str]]:
    """Read summaries.

    Returns:
        The best config of each workload, by the last path that has it; and an error for each unreadable file.
    """
    found: dict[tuple[str, str], Best] = {}
    faults = []
    for path in paths:
        try:
            best = read(path)
        except DataError as error:
            faults.append(printable(error.reason))
            continue
        if best is not None:
            found[best.workload] = best
    return found, faults


def below(folder: Path) -> list[Path]:
    """List the summaries of a cache: {kernel}/{shapes}/perf_metrics.json."""
    return sorted(folder.glob(f"*/*/{SUMMARY}"))


def keep(record_folder: Path, local_dir: Path, fetched: Iterable[str]) -> None:
    """Copy the summaries of a run to the folder of its record.

    Args:
        record_folder: the run's folder in `.remote/runs`.
        local_dir: the results folder.
        fetched: the fetched paths below `local_dir`.
    """
    for name in fetched:
        if PurePosixPath(name).name == SUMMARY and (local_dir / name).is_file():
            target = record_folder / KEPT / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(local_dir / name, target)  # safe: results are replaced, never overwritten
            except OSError:
                shutil.copyfile(local_dir / name, target)


def printable(text: object) -> str:
    """Return a text with control characters escaped."""
    given = str(text)
    return given if given.isprintable() else ascii(given)[1:-1]


_UNITS = (("ns", 1e-6, 1e-3), ("µs", 1e-3, 0.1), ("ms", 1.0, 1e3), ("s", 1e3, math.inf))
"""Units of time: the name, its length in ms, and the time in ms from which on it is too small."""


def duration(milliseconds: float) -> str:
    """Write a kernel's time with three figures, in the units of the tuner's own report."""
    unit, size_ms, _ = next(each for each in _UNITS if milliseconds < each[2])
    value = milliseconds / size_ms
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} {unit}"


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{value!r} is not a measurement")
    return number


def _machine(environment: dict[str, object]) -> str:
    """Return the machine's host, CPU and device."""
    parts = [environment.get(name) for name in ("host", "cpu", "device")]
    return printable(", ".join(str(part) for part in parts if part))
