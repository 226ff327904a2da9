"""The report: a table for the terminal, a page for the browser, PNGs for documents, a line while tuning.

Table and page need `rich`, the PNGs need matplotlib. None needs an accelerator, so a laptop can show the
results of a host.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TextIO

from autotune.estimating.store import kept
from autotune.model.errors import AutotuneError, CacheError, DataError, UsageError
from autotune.model.workload import NAME_BYTES
from autotune.report.kernel_charts import kernel_charts
from autotune.report.live import Live
from autotune.report.page import page
from autotune.report.ranking_table import print_kept
from autotune.report.raster import png
from autotune.report.records import load, machine
from autotune.report.scene import sheet
from autotune.report.terminal import print_workloads
from autotune.report.workload_charts import workload_charts
from autotune.store import cache, catalog
from autotune.store.summary import Summary

_PNG = ".png"

__all__ = [
    "Live",
    "Summary",
    "load",
    "load_all",
    "load_each",
    "print_estimates",
    "print_table",
    "write_page",
    "write_plots",
]


def load_all(cache_root: Path) -> tuple[list[Summary], list[AutotuneError]]:
    """Read every workload of a cache; return the faults of unreadable ones beside them.

    Raises:
        CacheError: the folder does not exist.
        UsageError: nothing was tuned there.
    """
    paths = catalog.workloads(cache_root)
    if not paths and not kept(cache_root):
        raise UsageError(
            f"{cache_root}: nothing was tuned here; name the folder with <kernel>/<shapes>/{cache.METRICS}"
        )
    loaded, faults = load_each(paths)
    return [each for latest in loaded for each in (latest, *latest.others)], faults


def load_each(paths: Iterable[Path]) -> tuple[list[Summary], list[AutotuneError]]:
    """Read summaries; return the faults of unreadable ones beside the others."""
    workloads: list[Summary] = []
    faults: list[AutotuneError] = []
    journals: catalog.Journals = {}
    for path in paths:
        try:
            workloads.append(load(path, journals))
        except (DataError, CacheError) as fault:
            faults.append(fault)
    return workloads, faults


def print_table(workloads: Sequence[Summary], stream: TextIO | None = None) -> None:
    """Print the best config of each workload, to stdout by default."""
    print_workloads(workloads, stream or sys.stdout)


def print_estimates(cache_root: Path, stream: TextIO | None = None) -> int:
    """Print what a model said of the configs of each workload, to stdout by default; return how many."""
    every = kept(cache_root)
    for each in every:
        print_kept(each, stream or sys.stdout)
    return len(every)


def write_page(workloads: Sequence[Summary], cache_root: Path, out: Path) -> Path:
    """Write `report.html`: one file that needs no other.

    Raises:
        CacheError: it cannot be written.
    """
    path = out / "report.html"
    made_at = datetime.now().astimezone().isoformat(" ", "minutes")
    cache.prepare(out, _named(out, cache_root))
    cache.write_file(path, page(workloads, str(cache_root), made_at, kept(cache_root)).encode())
    return path


def write_plots(workloads: Sequence[Summary], out: Path) -> list[Path]:
    """Write `<kernel>.png`, a comparison of its shapes, and `<kernel>/<shapes>.png` for each workload.

    Raises:
        UnavailableError: matplotlib is not installed.
        CacheError: one cannot be written.
    """
    paths = []
    for kernel, group in groupby(workloads, key=lambda workload: workload.folder.parent.name):
        members = list(group)
        sheets = [(out / _image(kernel), members[0].kernel, members, kernel_charts(members))]
        for workload in members:
            title = f"{workload.kernel}  {workload.shapes}"
            path = out / kernel / _image(workload.folder.name)
            sheets.append((path, title, [workload], workload_charts(workload)))
        for path, title, shown, charts in sheets:
            if charts:
                image = png(sheet(title, _hosts(shown), charts))
                cache.prepare(path.parent, _named(out, members[0].folder.parents[1]))
                cache.write_file(path, image)
                paths.append(path)
    return paths


def _image(folder: str) -> str:
    """Name the image of a folder, whose own name may be as long as a name can be."""
    name = os.fsencode(folder)
    cut = os.fsdecode(name[: NAME_BYTES - len(_PNG) - 9]) + f"#{zlib.crc32(name):08x}"
    return (folder if len(name) + len(_PNG) <= NAME_BYTES else cut) + _PNG


def _named(out: Path, cache_root: Path) -> Path:
    """Return the folder below which no link is followed: the cache, unless the user named another."""
    return cache_root if out.is_relative_to(cache_root) else out


def _hosts(workloads: Sequence[Summary]) -> str:
    return "; ".join(dict.fromkeys(machine(workload) for workload in workloads))
