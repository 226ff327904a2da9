"""Ledger: the records of one workload in a kernel's journals, and the writing of new ones."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from autotune.machine.cpu import is_calm
from autotune.model.budget import Limits
from autotune.model.errors import DataError
from autotune.model.fingerprint import digest
from autotune.model.trial import Baseline, Metrics, Status, Trial
from autotune.model.workload import Context, GeneratorError, Workload, differences, workload_label
from autotune.store import cache, checks, journal
from autotune.store.recorder import Recorder

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_ATTEMPTS = 2  # a transient failure is tried once more


@dataclass
class Known:
    """The merged journals of one workload folder.

    Attributes:
        trials: identity -> its latest record: context, source_bytes, trial.
        failures: identity -> how often it failed in a transient way.
        contexts: digest -> context.
        confirmed: identity -> its latest interleaved reading.
        rounds: the identities that were confirmed together, one set for each round.
        before: identity -> how many rounds there were when it was measured last; those count no more.
        baselines: context digest -> the baselines as they were measured last.
        baselines_tried: context digest -> the identities of those, also of the ones that failed.
        measured: identity -> the trial of each record of it: tuners that share a cache may each have
            measured a config.
        notes: what the user should know: torn records.
        count: how many records were merged.
    """

    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    contexts: dict[str, Context] = field(default_factory=dict)
    confirmed: dict[str, Metrics] = field(default_factory=dict)
    rounds: list[frozenset[str]] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    baselines: dict[str, tuple[Baseline, ...]] = field(default_factory=dict)
    baselines_tried: dict[str, set[str]] = field(default_factory=dict)
    measured: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    count: int = 0

    def trial(self, identity: str, limits: Limits) -> Trial | None:
        """Return the recorded trial of an identity; None if it is to be measured, or measured once more.

        A transient failure counts if it happened twice, and only under the same limits.
        """
        record = self.trials.get(identity)
        if record is None:
            return None
        if identity in self.failures and (
            self.failures[identity] < _ATTEMPTS or record.get("limits") != asdict(limits)
        ):
            return None
        return self.parse(record)

    def parse(self, record: Mapping[str, Any]) -> Trial:
        """Return the trial of a record, with its confirmed reading."""
        trial = record["trial"]
        return Trial.from_dict(trial, order=-1, confirmed=self.confirmed.get(trial["identity"]))

    def confirmed_together(self, identities: set[str]) -> bool:
        """Return whether these were measured in one round, which makes their readings comparable."""
        first = max((self.before.get(each, 0) for each in identities), default=0)
        return any(identities <= each for each in self.rounds[first:])

    def source_bytes(self, identity: str) -> int:
        """Return the bytes of a source; 0 if there was none."""
        return int(self.trials[identity]["source_bytes"]) if identity in self.trials else 0

    def of_backend(self, backend: str) -> dict[str, dict[str, Any]]:
        """Return path -> its latest record in any context, for one backend."""
        of = {digest for digest, context in self.contexts.items() if context["backend"] == backend}
        return {each["trial"]["path"]: each for each in self.trials.values() if each["context"] in of}

    def latest_of_other_backends(self, backend: str) -> set[str]:
        """Return the digest of each other backend's latest context."""
        latest = {context["backend"]: digest for digest, context in self.contexts.items()}
        latest.pop(backend, None)
        return set(latest.values())

    def of_other_backends(self, backend: str) -> list[Trial]:
        """Return the trials of each other backend's latest context."""
        latest = self.latest_of_other_backends(backend)
        return [self.parse(each) for each in self.trials.values() if each["context"] in latest]


def merge(journals: list[journal.Journal], label: str) -> Known:
    """Merge what the journals hold of one workload folder; later records replace earlier ones.

    Raises:
        DataError: a record is not of a form that this program writes.
    """
    known = Known()
    for each in journals:
        if each.torn:
            known.notes.append(f"{each.path}: its last record is torn and was left out")
        try:
            for record in each.records:
                if _concerns(known, record, label):
                    _check(record)
                _merge_record(known, record, label)
        except checks.MALFORMED as fault:
            said = checks.reason(fault)
            raise DataError(f"{each.path}: a record that is not of this program: {said}") from None
    return known


def _concerns(known: Known, record: Mapping[str, Any], label: str) -> bool:
    """Return whether a record is of this workload; nothing is read of the others."""
    if record["record"] == "context":
        return bool(record["workload"] == label)
    return record["context"] in known.contexts


def _check(record: Mapping[str, Any]) -> None:
    """Check a record that a file holds, whoever wrote it."""
    kind = record["record"]
    if kind == "context":
        checks.text(record["digest"])
        _check_context(checks.mapping(record["context"]))
    elif kind == "trial":
        checks.trial(record["trial"])
        checks.number(record["source_bytes"])
    elif kind == "confirmation":
        for reading in checks.mapping(record["readings"]).values():
            checks.metrics(reading)
    elif kind == "baselines":
        tuple(map(checks.baseline, checks.listed(record["readings"])))
        tuple(map(checks.text, checks.listed(record["tried"])))
    elif kind == "reference":
        checks.baseline(record)


def _check_context(context: Mapping[str, Any]) -> None:
    for name in ("kernel", "backend"):
        checks.text(context[name])
    for name in ("inputs", "outputs"):
        checks.specs(context[name])
    for name in ("fingerprint", "timing", "work"):
        checks.mapping(context[name])
    checks.optional(context["work"]["flops"], checks.number)
    checks.number(context["work"]["bytes"])
    _encode(context)  # NaN could not be written again


def _merge_record(known: Known, record: Mapping[str, Any], label: str) -> None:
    kind = record["record"]
    known.count += 1
    if kind == "context":
        if record["workload"] == label:
            known.contexts.pop(record["digest"], None)  # the latest is last
            known.contexts[record["digest"]] = record["context"]
    elif record["context"] not in known.contexts:
        return
    elif kind == "trial":
        identity = record["trial"]["identity"]
        known.measured.setdefault(identity, []).append(record["trial"])
        known.trials[identity] = dict(record)
        known.confirmed.pop(identity, None)  # it was of an earlier measurement
        known.before[identity] = len(known.rounds)
        if record["trial"]["status"] in _TRANSIENT:
            known.failures[identity] += 1
        else:
            known.failures.pop(identity, None)
    elif kind == "confirmation":
        known.confirmed.update({key: Metrics(**value) for key, value in record["readings"].items()})
        known.rounds.append(frozenset(record["readings"]))
    elif kind == "baselines":
        known.baselines[record["context"]] = tuple(map(_baseline, record["readings"]))
        known.baselines_tried[record["context"]] = set(record["tried"])
    elif kind == "reference":  # of the schema's first form: there was one at the most
        known.baselines[record["context"]] = (_baseline(record),)


def _baseline(plain: Mapping[str, Any]) -> Baseline:
    return Baseline(plain["name"], Metrics(**plain["metrics"]))


_TRANSIENT = {status.value for status in Status if status.transient}


class Ledger:
    """The record of one workload: what is known, and the one journal that this process appends to.

    Args:
        root: the cache root.
        workload: what is recorded.
        limits: what a config may use; a failure under other limits may not be one under these.
        forget: use no earlier result; all are kept.

    Attributes:
        folder: the workload's folder.
        known: what the journals held when they were last read, and what was recorded since.
        trials: path -> trial that holds now: of this run, or of an earlier one if all that decides it is as
            it was. Its only home while the tuner runs.
        disturbed: paths of trials that were measured on a busy machine, and are measured again now that it
            is calm.
    """

    def __init__(self, root: Path, workload: Workload, limits: Limits, *, forget: bool = False) -> None:
        self._root = root
        self._index = root / workload.kernel.name / cache.INDEX
        self.folder = root / workload.kernel.name / workload_label(workload.inputs.specs)
        self._workload = workload
        self._limits = limits
        self._forget = forget
        self._writer = cache.journal_writer(self._index)
        self._recorder = Recorder()
        self._introduced = False
        self.trials: dict[str, Trial] = {}
        self._own: set[str] = set()
        self.disturbed: set[str] = set()
        try:
            self._read()
        except PermissionError:
            self.prepare()
            raise

    def prepare(self) -> None:
        """Make the workload's folder, and check that it can be written.

        Raises:
            CacheError: it cannot.
        """
        cache.refuse_link(self._index, self._root)
        cache.prepare(self.folder, self._root)

    def _read(self) -> None:
        self._seen = self.stamp()
        self.known = merge(journal.read_all(self._index), self.folder.name)
        recalled, self._stale = ({}, []) if self._forget else self._recall()
        self.trials = {**recalled, **{path: self.trials[path] for path in self._own}}

    def _recall(self) -> tuple[dict[str, Trial], list[Context]]:
        """Split the records of this backend into valid and stale ones."""
        holding: dict[str, Trial] = {}
        calm = is_calm()
        stale: list[Context] = []
        # A user deletes a trial's folder to have it measured again.
        there = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        for path, record in self.known.of_backend(self._workload.backend).items():
            config = record["trial"]["config"]
            try:
                identity = self._workload.identity(config, self._workload.source(config))
            except GeneratorError:
                continue  # the generator takes no such config any more
            trial = self.known.trial(identity, self._limits)
            if trial and trial.metrics and trial.metrics.disturbed and calm:
                self.disturbed.add(path)
            elif trial is not None and path in there:
                holding[path] = trial
            elif identity not in self.known.trials:
                stale.append(self.known.contexts[record["context"]])
        return holding, stale

    def why_not(self) -> Counter[str]:
        """Return why earlier results are stale: reason -> number of configs."""
        reasons: Counter[str] = Counter()
        for context in self._stale:
            changes = "; ".join(differences(context, self._workload.context))
            reasons[changes or "the generator writes another source"] += 1
        return reasons

    def stamp(self) -> dict[str, int]:
        """Return the size of each other writer's journal: equal stamps, equal records."""
        sizes = {}
        for path in self._index.glob("*" + journal.SUFFIX) if self._index.is_dir() else ():
            with contextlib.suppress(OSError):  # removed since the folder was listed; a link to itself
                if path != self._writer.path:
                    sizes[path.name] = path.stat().st_size
        return sizes

    def state(self) -> str:
        """Return a digest of what is recorded: equal states, equal summaries."""
        return digest([self._workload.digest, self.known.count, sorted(self.known.trials)])

    @property
    def has_recorded(self) -> bool:
        """Whether this process has recorded anything."""
        return self._introduced

    def refresh(self) -> dict[str, int]:
        """Write what is left, read the journals again if other tuners have appended, and return the stamp.

        Raises:
            CacheError: something could not be written.
        """
        self._recorder.drain()
        if self.stamp() != self._seen:
            self._read()
        return self._seen

    def record_trial(self, trial: Trial, source: str, compilation: str, execution: str) -> None:
        """Record a trial: its folder first, so that every record has its files.

        Args:
            trial: the trial.
            source: the candidate's source.
            compilation: the compiler's command, version and messages.
            execution: what the candidate printed and how it ended.

        Raises:
            CacheError: it could not be written; what was recorded before stands.
        """
        plain = trial.to_dict()
        result = {"schema": cache.SCHEMA, "context": self._workload.context, "trial": plain}
        folder = self.folder / trial.path
        self._recorder.submit(lambda: cache.write_trial(folder, result, compilation, execution))
        limits = {"limits": asdict(self._limits)} if trial.status.transient else {}
        self._append({"record": "trial", "source_bytes": len(source), **limits, "trial": plain})
        self.hold(trial)

    def hold(self, trial: Trial) -> None:
        """Take a trial of this run; alone, it is for one without a source, of which nothing is recorded."""
        self._own.add(trial.path)
        self.trials[trial.path] = trial

    def record_confirmation(self, readings: Mapping[str, Metrics]) -> None:
        """Record the readings of finalists that were measured together: path -> reading."""
        plain = {self.trials[path].identity: dict(vars(reading)) for path, reading in readings.items()}
        self._append({"record": "confirmation", "readings": plain})
        for path, reading in readings.items():
            self.hold(replace(self.trials[path], confirmed=reading))

    def record_baselines(self, baselines: Sequence[Baseline], tried: Sequence[str]) -> None:
        """Record the readings of the baselines, and the identities of all that were tried."""
        readings = [each.to_dict() for each in baselines]
        self._append({"record": "baselines", "readings": readings, "tried": list(tried)})

    def _append(self, record: dict[str, Any]) -> None:
        label = self.folder.name
        records = [{**record, "context": self._workload.digest}]
        if not self._introduced:
            context = {"workload": label, "digest": self._workload.digest, "context": self._workload.context}
            records.insert(0, {"record": "context", **context})
        lines = [_encode(each) for each in records]
        self._recorder.submit(lambda: self._writer.append(lines))
        self._introduced = True
        for each in records:
            _merge_record(self.known, each, label)

    def close(self) -> None:
        """Write what is left, and finish the journal.

        Raises:
            CacheError: something could not be written; what was recorded before it stands.
        """
        try:
            self._recorder.close()
        finally:
            self._writer.close()
