"""Catalog: the workloads of a cache, and what is known of each, with or without a `perf_metrics.json`."""

from __future__ import annotations

import os
from pathlib import Path

from autotune.model.errors import CacheError, DataError
from autotune.store import cache, journal, summary
from autotune.store.ledger import merge
from autotune.store.publish import of_context
from autotune.store.summary import Summary


def workloads(cache_root: Path) -> list[Path]:
    """Return the path of each workload's `perf_metrics.json`, sorted by kernel and shapes.

    A first run that was killed left trials and no such file; its path is among them.

    Raises:
        CacheError: there is no such folder.
    """
    try:
        if not cache_root.is_dir():
            raise CacheError(f"cache {cache_root}: no such folder; name another with --cache-dir")
        kernels = [each for each in sorted(cache_root.iterdir()) if each.is_dir()]
        return [path for kernel in kernels for path in of_kernel(kernel)]
    except OSError as fault:
        raise CacheError(f"cache {cache_root}: cannot be read: {fault.strerror}") from fault


def of_kernel(folder: Path) -> list[Path]:
    """Return the paths of one kernel's workloads; see `workloads`."""
    tuned = {path.parent for path in folder.glob(f"*/{cache.METRICS}")}
    if (folder / cache.INDEX).is_dir():
        tuned |= {path.parents[1] for path in folder.glob(f"*/*/{cache.RESULT}")}
    return [each / cache.METRICS for each in sorted(tuned)]


Journals = dict[Path, list[journal.Journal]]
"""Folder -> the journals in it; they are read once for all workloads of a kernel."""


def load(path: Path, journals: Journals | None = None) -> Summary:
    """Read a workload's summary; if there is none, make it of the journals.

    Args:
        path: of the summary.
        journals: those that were read before; those that are read now are added.

    Raises:
        DataError: it is damaged, or nothing is recorded of the workload.
        CacheError: it cannot be read.
    """
    if os.path.lexists(path):
        return summary.read(path)
    index, read = path.parents[1] / cache.INDEX, {} if journals is None else journals
    if index not in read:
        read[index] = journal.read_all(index)
    known = merge(read[index], path.parent.name)
    recorded = [each["context"] for each in known.trials.values()]
    if not recorded:
        raise DataError(f"{path}: there is no such file, and the journals have nothing of this workload")
    digest = next(each for each in reversed(known.contexts) if each in recorded)
    return of_context(path.parent, known, digest)


def estimates(cache_root: Path) -> list[Path]:
    """Return the path of each workload's `estimates.json`; links are not followed."""
    return [
        path
        for path in sorted(cache_root.glob(f"*/*/{cache.ESTIMATES}"))
        if not cache.link_to(path, cache_root)
    ]
