"""`estimates.json`: what the model said of a workload's configs, beside but apart from what was measured.

{root}/{kernel}/{shapes}/estimates.json    every config's end and estimate, the fastest first
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.estimating.result import Estimated, winner
from autotune.model.errors import CacheError, DataError
from autotune.model.trial import Status
from autotune.nki.timing.costs import MODEL_VERSION
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.store import cache, catalog
from autotune.store.cache import ESTIMATES
from autotune.store.incoming import parse_json, read_file

SCHEMA = 1
_NAMES = ("kernel", "shapes", "target", "model")


def read(folder: Path) -> dict[str, Estimated]:
    """Return what is known of each identity; a file that cannot be understood is set aside.

    Raises:
        CacheError: the file cannot be read, or not be set aside.
    """
    path = folder / ESTIMATES
    if not path.exists():
        return {}
    try:
        record = parse_json(read_file(path))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}")
        found = [Estimated.from_dict(each) for each in record["estimates"]]
    except (DataError, TypeError, ValueError, KeyError):
        aside = path.with_name(f"{ESTIMATES}.unreadable-{time.time_ns()}")
        try:
            path.rename(aside)
        except OSError as fault:
            raise CacheError(
                f"{path}: cannot be understood, and not be set aside: {fault.strerror}"
            ) from fault
        return {}
    return {each.identity: each for each in found}


@dataclass(frozen=True)
class Kept:
    """Hold what `estimates.json` says of one workload.

    Args:
        kernel, shapes, target, model: whose, of what, for what, by which version of the model.
        estimates: of this target and model; the fastest first, those without an estimate last.
        folder: where the file is.
    """

    kernel: str
    shapes: str
    target: str
    model: str
    estimates: tuple[Estimated, ...]
    folder: Path

    @property
    def best(self) -> Estimated | None:
        """Return the one that `rank` would name the best."""
        return winner(self.estimates)


def kept(cache_root: Path) -> list[Kept]:
    """Return the estimates of a cache, by kernel and shapes; files that cannot be understood are left out.

    Raises:
        CacheError: a file cannot be read.
    """
    found = []
    for path in catalog.estimates(cache_root):
        try:
            record = parse_json(read_file(path))
            if record["schema"] == SCHEMA:
                kernel, shapes, target, model = (str(record[name]) for name in _NAMES)
                made = [Estimated.from_dict(each) for each in record["estimates"]]
                estimates = [each for each in made if (each.target, each.model) == (target, model)]
                ranked = sorted(estimates, key=lambda each: (each.status is not Status.OK, each.us))
                found.append(Kept(kernel, shapes, target, model, tuple(ranked), path.parent))
        except (DataError, TypeError, ValueError, KeyError):
            continue
    return found


def write(folder: Path, root: Path, header: dict[str, Any], estimates: Iterable[Estimated]) -> Path:
    """Write a workload's estimates, the fastest first, as one file that readers see whole.

    Args:
        root: the cache root, below which no link is followed.
        header: kernel, shapes, target, profiles.

    Raises:
        CacheError: they cannot be written.
    """
    record = {
        "schema": SCHEMA,
        "note": DISCLAIMER,
        "model": MODEL_VERSION,
        **header,
        "estimates": [each.to_dict() for each in sorted(estimates, key=lambda each: each.us)],
    }
    path = folder / ESTIMATES
    cache.refuse_link(folder, root)
    cache.write_file(path, json.dumps(record, indent=1, allow_nan=False).encode())
    return path
