"""One search under way: configs are proposed, compiled, measured, recorded; then the best are confirmed."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median
from typing import Any, Protocol

from autotune.backends import Artifact, Backend
from autotune.machine.cpu import is_calm, usable_cores
from autotune.model.budget import Budget
from autotune.model.errors import DeviceLostError
from autotune.model.fingerprint import Indescribable, digest, function_digest
from autotune.model.space import Config, SearchSpace
from autotune.model.statistics import metrics
from autotune.model.timing import Timing
from autotune.model.trial import Metrics, Status, Trial
from autotune.model.workload import GeneratorError, Job, Workload
from autotune.search import Observation, Strategy
from autotune.sites.site import BuildOutcome, RunOutcome, Site, Sites
from autotune.store.ledger import Ledger
from autotune.store.results import Results, is_unsteady, ranking
from autotune.tuning.confirm import FINALISTS, PASSES, Confirmation, confirm, finalists

_BLIND = 4  # at most this part of the budget is proposed before the first result

_Tried = tuple[int, Job]
"""A config that is tried, and its place in the history."""


class Listener(Protocol):
    """Receives each trial while a search runs."""

    def trial(self, trial: Trial) -> None:
        """Receive one more trial, new or from the cache."""


class Silent:
    """A listener that ignores all."""

    def trial(self, trial: Trial) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class _Plan:
    """How to search: what proposes, what may be spent, when to end, and how far ahead each site builds."""

    strategy: Strategy
    budget: Budget
    deadline: float
    ahead: int


class _Flight:
    """What one site has in hand: the configs that it builds, and the artifacts that may be measured again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.building: dict[Future[BuildOutcome], tuple[int, Job]] = {}
        self._artifacts: list[tuple[float, Artifact]] = []

    def keep_best(self, artifact: Artifact, ran: RunOutcome) -> None:
        """Discard the artifacts that will not be measured again; else they fill a small TMPDIR."""
        median_ms = median(ran.samples_ms) if ran.samples_ms else math.inf
        self._artifacts = sorted([*self._artifacts, (median_ms, artifact)], key=lambda each: each[0])
        for _, worse in self._artifacts[2 * FINALISTS :]:
            self.site.discard(worse)
        del self._artifacts[2 * FINALISTS :]


class SearchRun:
    """One search under way. The ledger holds its trials; the history is the strategy's view of them.

    Several sites search together, each in a thread of its own. A lock guards what they share: all but what
    they build and measure.
    """

    def __init__(
        self, work: Workload, ledger: Ledger, space: SearchSpace, space_size: int | None, backend: Backend
    ) -> None:
        self.work = work
        self.ledger = ledger
        self.space_size = space_size
        self._backend = backend
        self.roofline = backend.roofline(self.work.dtype)
        self._space = space
        self._listener: Listener = Silent()
        self._measured = 0
        self._roofline_checked = False
        self._lock = threading.RLock()
        self._failed = False  # a thread
        self._returned: list[_Tried] = []  # by devices that failed
        self._paths: dict[str, None] = {}  # of the trials in the space, in order
        self._history: list[Observation] = []
        self._exact = functools.partial(
            metrics,
            flops=work.context["work"]["flops"],
            bytes_moved=work.context["work"]["bytes"],
            peak_gflops=self.roofline.peak_gflops if self.roofline else None,
            bandwidth_gbytes_per_s=self.roofline.bandwidth_gbytes_per_s if self.roofline else None,
            device_gflops=self.roofline.sheet_gflops if self.roofline else None,
        )
        values = [(name, set(values)) for name, values in space.parameters.items()]
        for trial in [*ledger.trials.values()]:
            config = trial.config
            inside = len(config) == len(values) and all(config.get(name) in known for name, known in values)
            if inside and (not space.constraints or config in space):
                self._history.append(Observation(trial.config, _cost(trial)))
                self._conclude(trial)

    def listen(self, listener: Listener) -> None:
        """Report each trial, those of earlier runs first."""
        self._listener = listener
        for trial in self.trials:
            listener.trial(trial)

    @property
    def trials(self) -> list[Trial]:
        """The trials of the space so far."""
        return [self.ledger.trials[path] for path in self._paths]

    def search(self, strategy: Strategy, budget: Budget, deadline: float, sites: Sites) -> None:
        """Try configs until there are no more or the budget is spent; compilers work ahead.

        A device that fails is used no more, and others try its configs.

        Raises:
            DeviceLostError: no device is left.
        """
        if len(self._history) == self.space_size:
            return
        plan = _Plan(strategy, budget, deadline, _ahead(budget, len(sites.devices)))
        tried = self._take(plan, plan.ahead)
        while tried and time.monotonic() < deadline:
            first, *others = sites.usable()
            with ThreadPoolExecutor(len(sites.devices)) as pool:
                threads = [pool.submit(self._search_on, site, sites, plan, []) for site in others]
                self._search_on(first, sites, plan, tried)
                for each in threads:
                    each.result()
            tried, self._returned = self._returned, []

    def _search_on(self, site: Site, sites: Sites, plan: _Plan, tried: Sequence[_Tried]) -> None:
        """Search on one site, until there is nothing to try or its device fails."""
        flight = _Flight(site)
        building = flight.building
        try:
            while (left_s := plan.deadline - time.monotonic()) > 0 and not self._failed:
                for each in tried or self._take(plan, plan.ahead - len(building)):
                    building[site.build(each[1].source)] = each
                tried = ()
                if not building:
                    return
                done = wait(building, min(left_s, threading.TIMEOUT_MAX), FIRST_COMPLETED).done
                for future in [each for each in building if each in done][:1]:
                    self._finish(building[future], future.result(), flight)
                    del building[future]
        except DeviceLostError as fault:
            with self._lock:
                sites.lose(site, str(fault))
                self._returned += building.values()
        except BaseException:
            self._failed = True
            raise

    def _take(self, plan: _Plan, room: int) -> list[_Tried]:
        """Return configs to try: those that a device returned, else new ones; none if there are no more."""
        with self._lock:
            taken, self._returned = self._returned[: max(0, room)], self._returned[max(0, room) :]
            while room > 0 and not taken and time.monotonic() < plan.deadline:
                most = min(room, (plan.budget.trials or sys.maxsize) - len(self._history))
                proposed = plan.strategy.propose(self._space, self._history, most) if most > 0 else []
                if not proposed:
                    break
                taken = [*filter(None, map(self._begin, proposed))]
            return taken

    def _begin(self, config: Config) -> _Tried | None:
        """Add a config to the history; return None if the generator makes no source of it."""
        place = len(self._history)
        try:
            job = self.work.job(config)
        except GeneratorError as fault:
            status = Status.INVALID if fault.invalid else Status.ERROR
            message = str(fault)
            identity, path = self.work.identity(config, ""), self.work.path(config)
            self._history.append(Observation(config, None))
            trial = Trial(dict(config), status, identity, path, place, message)
            self.ledger.hold(trial)
            self._conclude(trial)
            return None
        self._history.append(Observation(config, None, pending=True))
        return place, job

    def _finish(self, tried: _Tried, built: BuildOutcome, flight: _Flight) -> None:
        """Measure a config that was built, and record how it ended."""
        begun = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        if built.artifact is None:
            ran = RunOutcome(built.status, built.message, "not run\n")
        else:
            ran = self._measure(built.artifact, flight.site)
            flight.keep_best(built.artifact, ran)
        with self._lock:
            self._record(*tried, begun, built, ran)

    def _record(self, place: int, job: Job, begun: str, built: BuildOutcome, ran: RunOutcome) -> None:
        samples = tuple(map(_rounded, ran.samples_ms))
        trial = Trial(
            config=job.config,
            status=ran.status,
            identity=job.identity,
            path=job.path,
            order=place,
            message=ran.message,
            metrics=self._gauge(samples, ran.waited) if samples else None,
            compile_s=round(built.seconds, 6),
            started_at=begun,
            samples_ms=samples,
        )
        ended = f"{ran.log}ended: {ran.status.value}{': ' if ran.message else ''}{ran.message}\n"
        self.ledger.record_trial(trial, job.source, built.log, ended)
        self._history[place] = Observation(job.config, _cost(trial))
        self._measured += 1
        self._conclude(trial)

    def _measure(self, artifact: Artifact, site: Site) -> RunOutcome:
        """Measure a candidate; once more if other programs used its core. What cannot be is implausible."""
        ran = site.measure(artifact)
        if ran.samples_ms and self._gauge(ran.samples_ms, ran.waited).disturbed:
            again = site.measure(artifact)
            ran = min(ran, again, key=lambda each: each.waited if each.samples_ms else -1)
        if ran.samples_ms and (reason := self._implausible(median(ran.samples_ms))):
            return RunOutcome(Status.IMPLAUSIBLE, reason, ran.log)
        return ran

    def _implausible(self, median_ms: float) -> str:
        """Return why a time cannot be true; empty if it can."""
        work = self.work.context["work"]
        dtype = self.work.dtype
        reason = self.roofline and self.roofline.rules_out(dtype, work["flops"], work["bytes"], median_ms)
        if reason and not self._roofline_checked:  # it may have been measured while the machine was busy
            self._roofline_checked = True
            self.roofline = self._backend.roofline(dtype, again=True)
            return self._implausible(median_ms)
        return reason or ""

    def _gauge(self, samples_ms: Sequence[float], waited: float = 0.0) -> Metrics:
        """Return the metrics in six digits: more are noise, and cost time in every reader."""
        exact = {**vars(self._exact(samples_ms)), "waited": round(waited, 3)}.items()
        short: dict[str, Any] = {name: _rounded(x) if isinstance(x, float) else x for name, x in exact}
        return Metrics(**short)

    def _conclude(self, trial: Trial) -> None:
        self._paths[trial.path] = None
        self._listener.trial(trial)

    def confirm(self, sites: Sites, timing: Timing, deadline: float) -> list[str]:
        """Measure the finalists again, unless nothing was measured and all of them are confirmed.

        So what an interrupted run left is completed. A finalist may turn out slower than its first reading.
        Others then come up to the best few, and are measured with them in a second pass. Readings that were
        unsteady are taken again once the machine is calm.

        Args:
            sites: all finalists are measured on the first one that is usable.
            timing: how to measure.
            deadline: by time.monotonic; each finalist has one turn at the least.

        Returns:
            What the user should know: why a baseline failed.

        Raises:
            DeviceLostError: no device is left.
        """
        notes: list[str] = []
        for _pass in range(PASSES):
            chosen = finalists(self.trials)
            again = _pass == 0 and (self._is_unsteady(chosen) or self._has_new_baseline())
            if not chosen or (not again and not self._measured and all(trial.confirmed for trial in chosen)):
                break
            together = self.ledger.known.confirmed_together({trial.identity for trial in chosen})
            if (together and not again) or (_pass and time.monotonic() > deadline):
                break
            found = self._confirmed(chosen, sites, timing, deadline)
            for failure in found.failures:
                self.ledger.record_trial(
                    failure.trial, failure.source, failure.compilation, failure.execution
                )
            self.ledger.record_confirmation(found.readings)
            if self.work.kernel.baselines:
                self.ledger.record_baselines(found.baselines, _identities(self.work))
            notes = [*found.notes]
        return notes

    def _confirmed(
        self, chosen: Sequence[Trial], sites: Sites, timing: Timing, deadline: float
    ) -> Confirmation:
        while True:
            site = sites.usable()[0]
            try:
                return confirm(self.work, chosen, site, timing, self._gauge, deadline)
            except DeviceLostError as fault:
                sites.lose(site, str(fault))

    def notes(self) -> Iterator[str]:
        """Say what the user should know of this search's readings."""
        trials = self.trials
        if trials and all(trial.status is not Status.OK for trial in trials):
            (message, count), *_ = Counter(
                f"{trial.status.value}: {trial.message}" for trial in trials
            ).most_common(1)
            yield f"no config ended ok; {count} of {len(trials)} ended with {message}"
        busy = [trial for trial in trials if trial.best_reading and trial.best_reading.disturbed]
        if busy:
            yield (
                f"{len(busy)} of {len(trials)} readings were taken while other programs used the cores; they "
                "are taken again when you tune on the calm machine"
            )

    def _is_unsteady(self, chosen: Sequence[Trial]) -> bool:
        """Return whether readings of a busy machine can be replaced, now that it is calm."""
        baselines = self.ledger.known.baselines.get(self.work.digest, ())
        readings = [*(trial.confirmed for trial in chosen), *(each.metrics for each in baselines)]
        return is_calm() and any(each and (each.disturbed or is_unsteady(each)) for each in readings)

    def _has_new_baseline(self) -> bool:
        """Return whether a baseline, as its code is now, was never measured with these inputs."""
        return not self.ledger.known.baselines_tried.get(self.work.digest, set()) >= {*_identities(self.work)}

    def results(self, notes: Iterable[str], elapsed_s: float) -> Results:
        """Return what was found, in order."""
        ranked = ranking(self.trials, self.ledger.known.source_bytes)
        return Results(
            kernel=self.work.kernel.name,
            shapes=self.ledger.folder.name,
            backend=self.work.backend,
            trials=tuple(ranked.trials),
            best=ranked.best,
            ties=tuple(ranked.ties),
            baselines=self.ledger.known.baselines.get(self.work.digest, ()),
            folder=self.ledger.folder,
            measured=self._measured,
            notes=tuple(notes),
            elapsed_s=elapsed_s,
        )


def _identities(work: Workload) -> list[str]:
    """Return a digest of each baseline; if it reads what cannot be described, of its name alone."""
    found = []
    for name, code in work.kernel.baselines.items():
        known = [name]
        with contextlib.suppress(Indescribable):
            known.append(function_digest(code))
        found.append(digest(known))
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _cost(trial: Trial) -> float | None:
    return trial.metrics.median_ms if trial.metrics else None


def _ahead(budget: Budget, sites: int) -> int:
    """Return how many configs a site builds ahead: no compiler idles, and the strategy still learns."""
    most = max(2, 2 * usable_cores() // sites)
    return most if budget.trials is None else max(1, min(most, budget.trials // _BLIND // sites))
