"""Verify: find damage in a cache, and results that would be measured again on this machine."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from autotune import backends, exchange, kernels
from autotune.model.errors import AutotuneError, CacheError, DataError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.trial import Trial
from autotune.model.workload import Context, GeneratorError, Workload, differences, workload
from autotune.store import cache, catalog, journal, summary
from autotune.store.ledger import Known, merge


@dataclass(frozen=True)
class Finding:
    """One problem of a cache.

    Attributes:
        kind: damaged (cannot be trusted), incomplete (a tuner was killed), or stale (would be measured again
            here).
        where: the file or folder.
        message: what is wrong with it and what to do.
    """

    kind: str
    where: Path
    message: str


def verify(cache_root: Path) -> tuple[int, list[Finding]]:
    """Read everything in a cache, and compare it with this machine.

    Returns:
        How many trials were read, and what was found.

    Raises:
        CacheError: there is no such folder.
    """
    findings: list[Finding] = []
    count = 0
    for kernel in sorted({path.parent.parent for path in catalog.workloads(cache_root)}):
        journals = []
        for path in sorted((kernel / cache.INDEX).glob(f"*{journal.SUFFIX}")):
            try:
                journals.append(journal.read(path))
            except (DataError, CacheError) as fault:
                findings.append(Finding("damaged", path, str(fault)))
        for each in journals:
            if each.torn:
                message = "its last record is torn and is left out; `clean` removes it"
                findings.append(Finding("incomplete", each.path, message))
        for path in catalog.of_kernel(kernel):
            trials, found = _workload(path, journals)
            count += trials
            findings += found
    leftovers = (
        Finding("incomplete", path, "left by a killed tuner") for path in cache.unfinished(cache_root)
    )
    return count, [*findings, *leftovers]


def _workload(path: Path, journals: list[journal.Journal]) -> tuple[int, list[Finding]]:
    folder = path.parent
    try:
        known = merge(journals, folder.name)
        if not os.path.lexists(path):
            count = len(known.trials)
            message = f"{count} trials are recorded and the run was killed; run the tuner again to continue"
            return count, [Finding("incomplete", folder, message)]
        shown = summary.read(path)
    except AutotuneError as fault:
        return 0, [Finding("damaged", path, str(fault))]
    trials = (*shown.trials, *(trial for other in shown.others for trial in other.trials))
    if shown.backend == exchange.BACKEND:
        message = "imported: it is shown and exported, and a tuner here would measure everything itself"
        return len(trials), [Finding("stale", folder, message)]
    recorded = {identity: set(map(_plain, records)) for identity, records in known.measured.items()}
    findings = [found for trial in trials for found in _trial(folder, trial, recorded.get(trial.identity))]
    identities = {trial.identity for trial in trials}
    paths = {trial.path for trial in trials}
    missing = [each for each in known.trials.values() if each["trial"]["path"] not in paths]
    if missing and not identities >= {each["trial"]["identity"] for each in missing}:
        message = f"{len(missing)} recorded trials are not in it; run the tuner again to write it anew"
        findings.append(Finding("incomplete", path, message))
    return len(trials), findings + list(_stale(folder, known))


def _trial(folder: Path, trial: Trial, recorded: set[str] | None) -> Iterator[Finding]:
    """Compare a trial of the summary with its records and its folder."""
    if not recorded:
        return  # refused by the generator, or fetched without the index
    if _plain(trial.to_dict()) not in recorded:
        yield Finding("damaged", folder / cache.METRICS, f"{trial.path} is not what the journal recorded")
    path = folder
    try:
        path = cache.trial_file(folder, trial.path, cache.RESULT)
        result = cache.read_result(path)
    except DataError as fault:
        yield Finding("damaged", path, str(fault))
    except CacheError as fault:
        yield Finding("incomplete", path, f"{fault}; it is measured again in the next run")
    else:
        same = result["trial"].get("identity") == trial.identity
        if same and _plain(result["trial"]) not in recorded:
            yield Finding("damaged", path, "is not what the journal recorded")


def _plain(trial: dict[str, Any]) -> str:
    """Return a trial as text, without what a record does not have: texts of many trials can be in a set.

    It is empty for a pickle with keys that no record has.
    """
    plain = {name: value for name, value in trial.items() if name not in {"order", "confirmed"}}
    try:
        return json.dumps(plain, sort_keys=True, default=repr)
    except TypeError:
        return ""


def _stale(folder: Path, known: Known) -> Iterator[Finding]:
    """Find the backends whose results would be measured again on this machine, and why."""
    for name, context in {context["backend"]: context for context in known.contexts.values()}.items():
        try:
            here = backends.get(name).fingerprint()
        except AutotuneError as fault:
            yield Finding("stale", folder, f"backend {name}: {fault}")
            continue
        try:
            changes = differences(context["fingerprint"], here) or _changed_kernel(context, known)
        except (AutotuneError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
            said = f"backend {name}: a context that is not of this program: {fault!r:.200}"
            yield Finding("damaged", folder, said)
            continue
        if changes:
            yield Finding(
                "stale", folder, f"backend {name} would be measured again here: {'; '.join(changes)}"
            )


def _changed_kernel(context: Context, known: Known) -> list[str]:
    """Return what changed in a kernel of `autotune.kernels` since it was tuned; others are not known here.

    Of its first backend only configs of its own space are compared: C is unrolled as they say, so a config
    from elsewhere could ask for more of it than fits in memory. NumPy's generators write loops.
    """
    kernel = own_kernels().get(context["kernel"])
    backend = context["backend"]
    if kernel is None or backend not in kernel.generators:
        return []
    decides = {name: context[name] for name in ("fingerprint", "timing", "check") if name in context}
    inputs = Inputs(tuple(map(TensorSpec.from_json, context["inputs"])))
    now = workload(kernel, inputs, backend, decides, backends.get(backend).includes)
    now = replace(now, context={**now.context, "data": context["data"]})
    if changes := differences(context, now.context):
        return changes
    tuned = [each["trial"] for each in known.trials.values() if each["context"] == now.digest]
    space = kernel.space_of(backend, inputs.specs)
    tuned = [trial for trial in tuned if trial["config"] in space]
    other = sum(trial["identity"] != now.identity(trial["config"], _source(now, trial)) for trial in tuned)
    return [f"the generator writes another source for {other} of {len(tuned)} configs"] if other else []


def _source(work: Workload, trial: dict[str, Any]) -> str:
    """Return the source that the generator writes today; empty if it rejects the config."""
    try:
        return work.source(trial["config"])
    except GeneratorError:
        return ""


@functools.cache
def own_kernels() -> dict[str, Kernel]:
    """Return the kernels that come with this package, by name."""
    modules = [import_module(f"{kernels.__name__}.{each.name}") for each in iter_modules(kernels.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Kernel)]
    return {kernel.name: kernel for kernel in found}
