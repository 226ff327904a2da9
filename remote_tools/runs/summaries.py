"""Read perf_metrics.json, the tuner's summary of one workload.

The file comes from a host and is not trusted: names are made printable and figures are checked.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

from remote_tools.errors import DataError

SUMMARY = "perf_metrics.json"
KEPT = "results"
"""Folder of a run's record with a copy of its summaries: later runs replace those in local_dir."""


MAX_BYTES, MAX_VALUES, MAX_CONTAINERS = 1 << 28, 1 << 25, 1 << 22
"""As the tuner's own reader has them: `autotune/store/incoming.py`."""
_LIMIT = 1e18


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
        found = cast("Summary", _object(json.loads(_content(path), parse_int=_integer)))
        trials = (cast("Trial", _object(each)) for each in _list(found["trials"]))
        trial = next((each for each in trials if each["status"] == "ok"), None)
        given = trial and (trial["confirmed"] or trial["metrics"])
        if not trial or not given:
            return None
        reading = cast("Reading", _object(given))
        median_ms = _positive(reading["median_ms"])
        low_ms, high_ms = _positive(reading["ci95_low_ms"]), _positive(reading["ci95_high_ms"])
        return Best(
            _name(found["kernel"]),
            _name(found["shapes"]),
            _name(trial["path"]),
            median_ms,
            min(low_ms, median_ms),
            max(high_ms, median_ms),
            _positive(reading["gflops"]) if reading.get("gflops") else None,
            _machine(_object(found.get("environment") or {})),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        hint = "fetch it again: inv fetch --all"
        raise DataError("results", f"{path}: not a readable summary ({error!r:.80})", hint) from error


def _content(path: Path) -> bytes:
    """Read a plain file of bounded size; a device or FIFO could block or never end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123  a descriptor
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a plain file")
        data = file.read(MAX_BYTES + 1) if about.st_size <= MAX_BYTES else b""
    if max(about.st_size, len(data)) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS or containers + data.count(b",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return data


def _integer(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} is no object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is no list")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return printable(value)


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


def _positive(value: object) -> float:
    """Return a figure; those out of the tuner's own bounds could overflow when they are divided."""
    number = 0.0 if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not 1 / _LIMIT <= number <= _LIMIT:
        raise ValueError(f"{value!r:.40} is not a measurement")
    return number


def _machine(environment: dict[str, object]) -> str:
    """Return the machine's host, CPU and device."""
    parts = [environment.get(name) for name in ("host", "cpu", "device")]
    return printable(", ".join(part for part in parts if part and isinstance(part, str)))
