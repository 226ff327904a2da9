"""The records that a report shows: summaries and logs, which may come from another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from autotune.model.errors import AutotuneError
from autotune.model.trial import Status, Trial
from autotune.report.visible import visible
from autotune.store import cache, catalog
from autotune.store.incoming import open_plain
from autotune.store.summary import Summary

LOG_TAIL_BYTES = 6000
"""Bytes of a log's end that are read: enough for a compiler's last errors, and a report stays small."""


def load(path: Path, journals: catalog.Journals | None = None) -> Summary:
    """Read one perf_metrics.json; a config of another backend than the kernel's first names its backend.

    Args:
        path: of the file; see `catalog.load` if it does not exist.
        journals: those that were read before.

    Raises:
        DataError: it is damaged, or a newer version wrote it.
        CacheError: it cannot be read.
    """
    found = catalog.load(path, journals)
    others = tuple(
        _shown(replace(other, shapes=f"{found.shapes}: {_what_differs(found, other)}"))
        for other in found.others
    )
    return _shown(replace(found, others=others))


def _shown(found: Summary) -> Summary:
    return replace(found, trials=tuple(map(_with_backend, found.trials)))


def _what_differs(latest: Summary, other: Summary) -> str:
    """Name the parts of the context in which an earlier summary differs from the latest one."""
    now, then = latest.contexts.get(other.backend, {}), other.contexts.get(other.backend, {})
    parts = sorted(part for part in now if now[part] != then.get(part))
    return f"earlier, other {' and '.join(parts)}" if parts else "earlier"


def _with_backend(trial: Trial) -> Trial:
    first, _, _ = trial.path.partition(",")
    if not first.startswith("backend=") or "backend" in trial.config:
        return trial
    return replace(trial, config={"backend": first.partition("=")[2], **trial.config})


def machine(workload: Summary) -> str:
    """Name the machine on which a workload was measured."""
    facts = workload.environment
    return " · ".join(
        visible(str(facts[key])) for key in ("host", "cpu", "device", "version") if facts.get(key)
    )


def texts(facts: Mapping[str, object]) -> dict[str, str]:
    """Return JSON values as texts, without those that are null."""
    return {name: _flat(value) for name, value in facts.items() if value is not None}


def _flat(value: object) -> str:
    return " ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def log_tail(workload: Summary, trial: Trial) -> str:
    """Return the end of the log that tells why a trial failed; empty if there is none.

    A trial's path is what another machine wrote: one that leads out of the workload's folder is not followed.
    """
    compiling = trial.status in {Status.COMPILE_ERROR, Status.COMPILE_TIMEOUT}
    names = (cache.COMPILATION, cache.EXECUTION)
    for name in names if compiling else reversed(names):
        try:
            with open_plain(cache.trial_file(workload.folder, trial.path, name)) as stream:
                cut = stream.seek(0, 2) > LOG_TAIL_BYTES
                stream.seek(-LOG_TAIL_BYTES if cut else 0, 2 if cut else 0)
                text = stream.read(LOG_TAIL_BYTES).decode("utf-8", "backslashreplace").strip("\n")
        except (AutotuneError, OSError):
            continue
        if text:
            return visible("…\n" + text.partition("\n")[2] if cut and "\n" in text else text, keep="\n\t")
    return ""


def statuses(trials: tuple[Trial, ...]) -> Iterator[tuple[Status, int]]:
    """Yield each status that occurred and how often, in the order `Status` names them."""
    for status in Status:
        count = sum(trial.status is status for trial in trials)
        if count:
            yield status, count
