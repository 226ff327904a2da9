"""Import and export: kernel_tuner's cache files, T4 results, CSV.

Each format is read into a `Recording` and written from one. All times are in milliseconds. The recorded time
counts, however a program computed it: kernel_tuner takes the mean of its repeats.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from autotune.exchange import kernel_tuner, t4, table
from autotune.exchange.recording import Recording, values_of
from autotune.model.errors import CacheError, DataError, UsageError
from autotune.model.trial import Status
from autotune.store import cache, summary
from autotune.store.incoming import MAX_BYTES, parse_json, read_file
from autotune.store.results import rank
from autotune.store.summary import Search, Summary, Work

BACKEND = "imported"
"""The backend's name in a workload that another program measured."""
_DAMAGE = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    *(EOFError, gzip.BadGzipFile, zlib.error, csv.Error),
)


def import_file(path: Path, cache_root: Path) -> Path:
    """Read a file of any known format into the cache; return the summary written.

    Raises:
        DataError: the file is of no known format, or damaged.
        UsageError: this workload is already in the cache.
        CacheError: the cache cannot be written.
    """
    recording = read(path)
    target = cache_root / recording.kernel / recording.workload / cache.METRICS
    if target.exists():
        raise UsageError(f"{path}: {target} exists; import into another cache, or remove it first")
    cache.prepare(target.parent, cache_root)
    try:
        summary.write(_summary(recording, target.parent, path.name))
    except ValueError as fault:
        raise DataError(f"{path}: a value that no cache holds: {fault}") from fault
    return target


def export_file(source: Path, path: Path) -> None:
    """Write a workload's trials to a file: `.csv`, `.t4.json` or kernel_tuner's cache; `.gz` compresses it.

    Args:
        source: the workload's summary.
        path: the file to write.

    Raises:
        DataError: the summary is damaged.
        CacheError: the file cannot be written.
    """
    known = summary.read(source)
    device = str(known.environment.get("cpu") or known.environment.get("device") or "unknown")
    kernel, workload = source.parent.parent.name, source.parent.name
    values = values_of(trial.config for trial in known.trials)
    write(Recording(kernel, workload, device, values, known.trials), path)


def read(path: Path) -> Recording:
    """Read a file; its content decides the format.

    Raises:
        DataError: it is of no known format, or damaged.
        CacheError: it cannot be read.
    """
    try:
        path.stat()  # raises OSError if the file that the user named is not there
        raw = read_file(path)
        text = (_decompressed(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
        if not text.lstrip().startswith("{"):
            return table.decode(text, _stem(path))
        document = _parse(text)
        return t4.decode(document, _stem(path)) if "results" in document else kernel_tuner.decode(document)
    except _DAMAGE as fault:
        raise DataError(
            f"{path}: neither a kernel_tuner cache, nor T4 results, nor a CSV of this program: {fault!r}"
        ) from fault
    except OSError as fault:
        raise CacheError(f"{path}: {fault.strerror or fault}") from fault


def _decompressed(raw: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is compressed, and larger than {MAX_BYTES} bytes")
    return data


def write(recording: Recording, path: Path) -> None:
    """Write a file; its name decides the format.

    Raises:
        DataError: a config lacks a parameter that another has, and only T4 can say so.
        CacheError: it cannot be written.
    """
    name = path.name.removesuffix(".gz")
    alike = all(trial.config.keys() == recording.parameters.keys() for trial in recording.trials)
    if not alike and not name.endswith(".t4.json"):
        raise DataError(f"{path}: not every config has the same parameters; export to *.t4.json")
    if name.endswith(".csv"):
        text = table.encode(recording)
    else:
        document = (t4 if name.endswith(".t4.json") else kernel_tuner).encode(recording)
        text = json.dumps(document, indent=1, allow_nan=False)
    data = text.encode()
    try:
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as fault:
        raise CacheError(f"{path}: {fault.strerror or fault}") from fault


def _parse(text: str) -> dict[str, Any]:
    """Read JSON; if kernel_tuner was killed, the last two braces of its cache are missing."""
    try:
        return dict(parse_json(text.encode()))
    except json.JSONDecodeError:
        return dict(parse_json((text.rstrip().rstrip(",") + "}}").encode()))


def _summary(recording: Recording, folder: Path, source: str) -> Summary:
    """Return the summary of an imported workload, with as much as a recording contains."""
    trials = tuple(sorted(recording.trials, key=rank))
    return Summary(
        folder=folder,
        kernel=recording.kernel,
        shapes=recording.workload,
        backend=BACKEND,
        inputs=(),
        outputs=(),
        work=Work(None, 0),
        environment={"device": recording.device, "imported_from": source},
        roofline=None,
        timing={},
        search=Search("imported", seed=0, space_size=len(trials)),
        baselines=(),
        best_path=trials[0].path if trials and trials[0].status is Status.OK else None,
        tie_paths=(),
        trials=trials,
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
