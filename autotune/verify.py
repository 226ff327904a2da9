"""Verify: whether a cache is whole, and whether its results would be used on this machine today."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune import backends, cache, journal
from autotune.errors import AutotuneError, CacheError, DataError
from autotune.job import differences
from autotune.ledger import Known, merge
from autotune.results import read_trials
from autotune.trial import Trial


@dataclass(frozen=True)
class Finding:
    """One thing that a cache's owner should know.

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
    for kernel in sorted({path.parent.parent for path in cache.summaries(cache_root)}):
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
        for summary in sorted(kernel.glob(f"*/{cache.METRICS}")):
            trials, found = _workload(summary, journals)
            count += trials
            findings += found
    leftovers = (
        Finding("incomplete", path, "left by a killed tuner") for path in cache.unfinished(cache_root)
    )
    return count, [*findings, *leftovers]


def _workload(summary: Path, journals: list[journal.Journal]) -> tuple[int, list[Finding]]:
    folder = summary.parent
    try:
        trials = read_trials(cache.read_metrics(summary), summary)
        known = merge(journals, folder.name)
    except AutotuneError as fault:
        return 0, [Finding("damaged", summary, str(fault))]
    findings = [found for trial in trials for found in _trial(folder, trial, known)]
    told = {trial.identity for trial in trials}
    paths = {trial.path for trial in trials}
    missing = [each for each in known.trials.values() if each["trial"]["path"] not in paths]
    if missing and not told >= {each["trial"]["identity"] for each in missing}:
        message = f"{len(missing)} recorded trials are not in it; run the tuner again to write it anew"
        findings.append(Finding("incomplete", summary, message))
    return len(trials), findings + list(_stale(folder, known))


def _trial(folder: Path, trial: Trial, known: Known) -> Iterator[Finding]:
    """Compare a trial of the summary with its record and its folder."""
    record = known.trials.get(trial.identity)
    if record is None:
        return  # refused by the generator, or fetched without the index
    if _plain(trial.to_dict()) != _plain(record["trial"]):
        yield Finding("damaged", folder / cache.METRICS, f"{trial.path} is not what the journal recorded")
    path = folder / Path(trial.path).name / cache.RESULT
    try:
        result = cache.read_result(path)
    except DataError as fault:
        yield Finding("damaged", path, str(fault))
    except CacheError as fault:
        yield Finding("incomplete", path, f"{fault}; it is measured again in the next run")
    else:
        if result["trial"].get("identity") == trial.identity and _plain(result["trial"]) != _plain(
            record["trial"]
        ):
            yield Finding("damaged", path, "is not what the journal recorded")


def _plain(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trial.items() if name not in {"order", "confirmed"}}


def _stale(folder: Path, known: Known) -> Iterator[Finding]:
    """Say which backends' results would be measured again on this machine, and why."""
    for name, context in {context["backend"]: context for context in known.contexts.values()}.items():
        try:
            here = backends.get(name).fingerprint()
        except AutotuneError as fault:
            yield Finding("stale", folder, f"backend {name}: {fault}")
            continue
        if changes := differences(context["fingerprint"], here):
            yield Finding(
                "stale", folder, f"backend {name} would be measured again here: {'; '.join(changes)}"
            )
