"""Summary: `perf_metrics.json`, what one workload's journals say in the form that others read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from autotune.machine.cpu import Roofline
from autotune.model.trial import Trial
from autotune.model.version import __version__
from autotune.model.workload import Workload
from autotune.store import cache
from autotune.store.ledger import Ledger
from autotune.store.results import ranking

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_ATTEMPTS = 10


def write(
    work: Workload,
    ledger: Ledger,
    trials: Iterable[Trial],
    search: Mapping[str, Any],
    roofline: Roofline | None,
) -> None:
    """Write a workload's summary: this search's trials, and what else is known of the workload.

    Two tuners may end at the same time. Each records its trials before it reads the journals and reads them
    again after it has written: whichever writes last has seen the records of both.

    Raises:
        CacheError: it could not be written; the old one stands.
    """
    path = ledger.folder / cache.METRICS
    ours = {trial.path: trial for trial in trials}
    for _attempt in range(_ATTEMPTS):
        seen = ledger.refresh()
        state = ledger.state()
        if _tells(path, state) and all(trial.identity in ledger.known.trials for trial in ours.values()):
            cache.note_outputs(path)  # this run's result all the same
            return
        others = {trial.path: trial for trial in ledger.known.of_other_backends(work.backend)}
        ranked = ranking({**others, **ledger.recalled, **ours}.values(), ledger.known.source_bytes)
        reference = ledger.known.references.get(work.digest)
        head = {
            "schema": cache.SCHEMA,
            "state": state,
            "kernel": work.kernel.name,
            "shapes": ledger.folder.name,
            "backend": work.backend,
            "inputs": work.context["inputs"],
            "outputs": work.context["outputs"],
            "work": work.context["work"],
            "environment": environment(work),
            "roofline": roofline and asdict(roofline),
            "timing": work.context["timing"],
            "search": search,
            "reference": reference and reference.to_dict(),
            "best": ranked.best and ranked.best.path,
            "ties": [trial.path for trial in ranked.ties],
        }
        cache.write_file(path, _text(head, ranked.trials))
        if ledger.stamp() == seen:
            return


def _tells(path: Path, state: str) -> bool:
    """Whether the summary is whole and of this state, by its first and last lines."""
    begin, end = _text({"schema": cache.SCHEMA, "state": state}, []).split(b' "trials": [\n')
    try:
        with path.open("rb") as file:
            begins = file.read(len(begin)) == begin
            file.seek(-len(end), os.SEEK_END)
            return begins and file.read() == end
    except OSError:
        return False


def environment(work: Workload) -> dict[str, Any]:
    """Return what machine and what versions the figures are of."""
    return {
        "host": platform.node(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "autotune": __version__,
        **work.context["fingerprint"],
    }


def _text(head: Mapping[str, Any], trials: Iterable[Trial]) -> bytes:
    """Lay out the head's fields one below the other, then one trial a line."""
    fields = "".join(f" {json.dumps(name)}: {_encode(value)},\n" for name, value in head.items())
    lines = ",\n".join(f"  {_encode(trial.to_dict())}" for trial in trials)
    return f'{{\n{fields} "trials": [\n{lines}\n ]\n}}\n'.encode()
