"""Publish: make a workload's `perf_metrics.json` of its journals."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from autotune.model.errors import CacheError
from autotune.model.kernel import TensorSpec
from autotune.model.roofline import Roofline
from autotune.model.version import __version__
from autotune.model.workload import Context, Workload
from autotune.store import cache, summary
from autotune.store.ledger import Known, Ledger
from autotune.store.results import ranking
from autotune.store.summary import Search, Summary, work_of

_ATTEMPTS = 10
_CONTEXTS = 8  # earlier ones of a workload that its summary shows; the journals keep all


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
        try:
            ledger.prepare()
            summary.write(_summary(work, ledger, search, roofline), state)
        except CacheError:
            if ledger.has_recorded:
                raise
            return  # nothing new is lost: all that is known can be read
        if ledger.stamp() == seen:
            return


def _summary(work: Workload, ledger: Ledger, search: Search, roofline: Roofline | None) -> Summary:
    known = ledger.known
    others = {trial.path: trial for trial in known.of_other_backends(work.backend)}
    ranked = ranking({**others, **ledger.trials}.values(), known.source_bytes)
    made = of_context(ledger.folder, known, work.digest, work.context)
    merged = known.latest_of_other_backends(work.backend)
    earlier = [each for each in known.contexts if each not in {work.digest, *merged}][-_CONTEXTS:]
    theirs = {known.contexts[each]["backend"]: known.contexts[each] for each in merged}
    return replace(
        made,
        environment=environment(work),
        roofline=roofline,
        search=search,
        best_path=ranked.best.path if ranked.best else None,
        tie_paths=tuple(trial.path for trial in ranked.ties),
        trials=tuple(ranked.trials),
        contexts={**theirs, **made.contexts},
        others=tuple(of_context(ledger.folder, known, digest) for digest in reversed(earlier)),
    )


def of_context(folder: Path, known: Known, digest: str, context: Context | None = None) -> Summary:
    """Return what the journals say of one context of a workload.

    Args:
        folder: the workload's folder.
        known: its merged journals.
        digest: of the context.
        context: the context, if the journals do not have it yet.
    """
    context = context or known.contexts[digest]
    recorded = [known.parse(each) for each in known.trials.values() if each["context"] == digest]
    ranked = ranking({trial.path: trial for trial in recorded}.values(), known.source_bytes)
    return Summary(
        folder=folder,
        kernel=context["kernel"],
        shapes=folder.name,
        backend=context["backend"],
        inputs=tuple(map(TensorSpec.from_json, context["inputs"])),
        outputs=tuple(map(TensorSpec.from_json, context["outputs"])),
        work=work_of(context["work"]),
        environment=context["fingerprint"],
        roofline=None,
        timing=context["timing"],
        search=Search("unknown", seed=0, space_size=None),
        baselines=known.baselines.get(digest, ()),
        best_path=ranked.best.path if ranked.best else None,
        tie_paths=tuple(trial.path for trial in ranked.ties),
        trials=tuple(ranked.trials),
        contexts={context["backend"]: context},
    )


def blas() -> str | None:
    """Name the BLAS that NumPy calls and the kernel that it chose for this CPU; None if NumPy has none."""
    for each in ThreadpoolController().info():
        if each.get("user_api") == "blas":
            return " ".join(str(each.get(name) or "") for name in ("internal_api", "version", "architecture"))
    return None


def environment(work: Workload) -> dict[str, object]:
    """Return the machine and the versions that the figures are of: name -> JSON value."""
    return {
        "host": platform.node(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "autotune": __version__,
        **work.context["fingerprint"],
    }
