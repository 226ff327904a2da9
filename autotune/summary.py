"""Summary: `perf_metrics.json`, what one workload's journals say in the form that others read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from autotune import __version__, cache
from autotune.job import Workload
from autotune.ledger import Ledger
from autotune.results import choose, in_order
from autotune.trial import Trial

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_ATTEMPTS = 10


def write(
    work: Workload,
    ledger: Ledger,
    trials: Iterable[Trial],
    search: Mapping[str, Any],
    roofline: Mapping[str, float] | None,
) -> None:
    """Write a workload's summary: this search's trials, and what else is known of the workload.

    Two tuners may end at the same time. Each records its trials before it reads the journals and reads them
    again after it has written: whichever writes last has seen the records of both.

    Raises:
        CacheError: it could not be written; the old one stands.
    """
    ours = {trial.path: trial for trial in trials}
    for _attempt in range(_ATTEMPTS):
        seen = ledger.refresh()
        others = {trial.path: trial for trial in ledger.known.of_other_backends(work.backend)}
        everything = {**others, **ledger.recalled, **ours}
        best, ties = choose(everything.values(), ledger.known.source_bytes())
        reference = ledger.known.references.get(work.digest)
        head = {
            "schema": cache.SCHEMA,
            "kernel": work.kernel.name,
            "shapes": ledger.folder.name,
            "backend": work.backend,
            "inputs": work.context["inputs"],
            "outputs": work.context["outputs"],
            "work": work.context["work"],
            "environment": environment(work),
            "roofline": roofline,
            "timing": work.context["timing"],
            "search": search,
            "reference": reference and {"name": "numpy", "metrics": dict(vars(reference))},
            "best": best and best.path,
            "ties": [trial.path for trial in ties],
        }
        data = _text(head, in_order(everything.values(), best))
        cache.write_file(ledger.folder / cache.METRICS, data)
        if ledger.stamp() == seen:
            return


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
