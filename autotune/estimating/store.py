"""`estimates.json`: what the model said of a workload's configs, beside but apart from what was measured.

{root}/{kernel}/{shapes}/estimates.json    every config's end and estimate, the fastest first
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autotune.estimating.result import Estimated
from autotune.model.errors import CacheError, DataError
from autotune.nki.timing.costs import MODEL_VERSION
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.store import cache
from autotune.store.incoming import parse_json, read_file

SCHEMA = 1
ESTIMATES = "estimates.json"


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
