"""Publish: make a workload's `perf_metrics.json` of its journals."""

from __future__ import annotations

import os
import platform

import numpy as np

from autotune.machine.cpu import Roofline
from autotune.model.version import __version__
from autotune.model.workload import Workload
from autotune.store import cache, summary
from autotune.store.ledger import Ledger
from autotune.store.results import ranking
from autotune.store.summary import Search, Summary, Work

_ATTEMPTS = 10


def publish(work: Workload, ledger: Ledger, search: Search, roofline: Roofline | None) -> None:
    """Write a workload's summary: all its trials that hold, and those of the other backends.

    Two tuners may end at the same time. Each records its trials before it reads the journals and reads them
    again after it has written: whichever writes last has seen the records of both.

    Raises:
        CacheError: it could not be written; the old one stands.
    """
    for _attempt in range(_ATTEMPTS):
        seen = ledger.refresh()
        state = ledger.state()
        known = all(trial.identity in ledger.known.trials for trial in ledger.trials.values())
        if known and summary.is_current(ledger.folder, state):
            cache.note_outputs(ledger.folder / cache.METRICS)  # it is this run's result all the same
            return
        summary.write(_summary(work, ledger, search, roofline), state)
        if ledger.stamp() == seen:
            return


def _summary(work: Workload, ledger: Ledger, search: Search, roofline: Roofline | None) -> Summary:
    others = {trial.path: trial for trial in ledger.known.of_other_backends(work.backend)}
    ranked = ranking({**others, **ledger.trials}.values(), ledger.known.source_bytes)
    return Summary(
        folder=ledger.folder,
        kernel=work.kernel.name,
        shapes=ledger.folder.name,
        backend=work.backend,
        inputs=work.inputs.specs,
        outputs=work.outputs,
        work=Work(**work.context["work"]),
        environment=environment(work),
        roofline=roofline,
        timing=work.context["timing"],
        search=search,
        reference=ledger.known.references.get(work.digest),
        best_path=ranked.best.path if ranked.best else None,
        tie_paths=tuple(trial.path for trial in ranked.ties),
        trials=tuple(ranked.trials),
    )


def environment(work: Workload) -> dict[str, object]:
    """Return the machine and the versions that the figures are of: name -> JSON value."""
    return {
        "host": platform.node(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "autotune": __version__,
        **work.context["fingerprint"],
    }
