"""The tuner: search, compile, measure, check, record; then confirm the best."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import Any, Protocol

from autotune import backends, search
from autotune.backends import Backend
from autotune.machine.cpu import roofline
from autotune.model.budget import Budget
from autotune.model.errors import UsageError
from autotune.model.kernel import Inputs, Kernel, Specs
from autotune.model.space import Config, SearchSpace
from autotune.model.statistics import metrics
from autotune.model.timing import Timing
from autotune.model.trial import Metrics, Status, Trial
from autotune.model.workload import GENERATOR_FAULTS, Job, Workload, workload
from autotune.search import Exhaustive, Observation, Strategy
from autotune.sites.workers import CompileOutcome, RunOutcome, Workers
from autotune.store import cache
from autotune.store.ledger import Ledger
from autotune.store.publish import publish
from autotune.store.results import Results, ranking
from autotune.store.summary import Search
from autotune.tuning.confirm import PASSES, confirm, finalists

_AHEAD = 2 * (os.cpu_count() or 1)  # configs compiled or waiting: so no compiler idles while one is measured
_COUNTABLE = 1 << 20  # a product up to this size is listed in about a second


class Listener(Protocol):
    """Receives each trial while a search runs."""

    def trial(self, trial: Trial) -> None:
        """Receive one more trial, new or from the cache."""


Live = Callable[[str, int | None, float | None], AbstractContextManager[Listener]]
"""(name, number of trials, seconds it may take) -> the listener of a search."""


class _Silent:
    def trial(self, trial: Trial) -> None:
        """Ignore it."""


def silent(_name: str, _total: int | None, _budget_s: float | None) -> AbstractContextManager[Listener]:
    """Return a listener that ignores all."""
    return contextlib.nullcontext(_Silent())


def tune(
    kernel: Kernel,
    inputs: Inputs,
    *,
    space: SearchSpace | None = None,
    backend: str | Backend = "c",
    strategy: Strategy | None = None,
    budget: Budget | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    timing: Timing | None = None,
    live: Live = silent,
) -> Results:
    """Find the fastest config of a kernel for these inputs.

    Every config ends in a status and is recorded before the next one is measured. So a killed run continues
    when it is started again, and loses at most the configs in flight. Results of earlier runs are used if
    all that decides them is the same. Several tuners may share a cache.

    Args:
        kernel: what is tuned.
        inputs: its tensors.
        space: the configs to try; the kernel's own space by default.
        backend: its name, or one with settings: `CBackend(flags=...)`.
        strategy: proposes configs. By default every config in turn, or the strategy that finds good ones
            soonest if the budget does not allow all of them.
        budget: the limits of the search; none by default.
        cache_dir: the cache root; $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune, by default.
        timing: how configs are timed.
        live: makes the listener that receives each trial, such as `autotune.report.Live`; none by default.

    Returns:
        The trials best first, the config to use, and what ties with it.

    Raises:
        UsageError: no such backend, an unknown parameter, an empty space, a dtype without tolerance.
        DataError: NaN in the inputs, or a corrupt journal.
        UnavailableError: a compiler is missing.
        CacheError: the cache cannot be written: a full disk, missing rights.
    """
    started = time.monotonic()
    maker = backends.get(backend) if isinstance(backend, str) else backend
    timing, budget = timing or Timing(), budget or Budget()
    space = _checked(kernel, inputs.specs, space)
    decides = {"fingerprint": maker.fingerprint(), "timing": timing.to_dict()}
    work = workload(kernel, inputs, maker.name, decides)
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(Ledger(cache.root(cache_dir), work, budget.limits)))

        @functools.cache
        def workers() -> Workers:  # started only if something is to be measured
            return stack.enter_context(Workers(kernel, inputs, maker, timing, budget.limits))

        size = _size(space)
        strategy = strategy or _strategy(size, budget)
        name = f"{kernel.name} {ledger.folder.name}"
        listener = stack.enter_context(live(name, _smaller(size, budget.trials), budget.seconds))
        run = _Search(work, ledger, space, size, listener)
        notes = [*ledger.known.notes, *map(_stale, ledger.why_not().items())]
        with _summarized(run, strategy, budget, started):
            run.search(strategy, budget, started, workers)
            notes += run.confirm(workers, timing)
        return run.results(notes, time.monotonic() - started)


def _strategy(size: int | None, budget: Budget) -> Strategy:
    """Return the exhaustive strategy if the budget allows every config, else the best other one."""
    if budget.seconds is None and (budget.trials is None or (size is not None and size <= budget.trials)):
        return Exhaustive()
    return search.get()


def _size(space: SearchSpace) -> int | None:
    if not space.constraints:
        return space.product
    return len(space) if space.product <= _COUNTABLE else None


def _smaller(*counts: int | None) -> int | None:
    return min((count for count in counts if count is not None), default=None)


def _stale(reason: tuple[str, int]) -> str:
    changes, count = reason
    return f"{count} earlier {'result does' if count == 1 else 'results do'} not hold any more: {changes}"


@contextlib.contextmanager
def _summarized(run: _Search, strategy: Strategy, budget: Budget, started: float) -> Iterator[None]:
    """Write the summary at the end, and if the user interrupts the run."""

    def write() -> None:
        about = Search(
            strategy=type(strategy).__name__.lower(),
            seed=getattr(strategy, "seed", 0),
            space_size=run.space_size,
            budget_trials=budget.trials,
            budget_s=budget.seconds,
            elapsed_s=round(time.monotonic() - started, 3),
        )
        publish(run.work, run.ledger, about, run.roofline)

    try:
        yield
    except KeyboardInterrupt:
        write()
        raise
    write()


def _checked(kernel: Kernel, specs: Specs, space: SearchSpace | None) -> SearchSpace:
    """Return the space to search: the one given, or the kernel's own.

    Raises:
        UsageError: it has a parameter that the kernel does not know, or no config at all.
    """
    own = kernel.space(specs)
    if space is None:
        space = own
    for name in space.parameters:
        if name not in own.parameters:
            near = difflib.get_close_matches(name, own.parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(own.parameters)
            raise UsageError(f"kernel {kernel.name}: no parameter {name!r}{hint} Known: {known}.")
    if not space:
        raise UsageError(
            f"kernel {kernel.name}: the search space is empty: a parameter has no values, or the constraints "
            "refuse every config"
        )
    return space


class _Search:
    """One search under way. The ledger holds its trials; the history is the strategy's view of them."""

    def __init__(
        self,
        work: Workload,
        ledger: Ledger,
        space: SearchSpace,
        space_size: int | None,
        listener: Listener,
    ) -> None:
        self.work = work
        self.ledger = ledger
        self.space_size = space_size
        self.roofline = roofline(self.work.outputs[0].dtype)
        self._space = space
        self._listener = listener
        self._measured = 0
        self._paths: dict[str, None] = {}  # of the trials in the space, in order
        self._history: list[Observation] = []
        self._exact = functools.partial(
            metrics,
            flops=work.context["work"]["flops"],
            bytes_moved=work.context["work"]["bytes"],
            peak_gflops=self.roofline.peak_gflops if self.roofline else None,
            bandwidth_gbytes_per_s=self.roofline.bandwidth_gbytes_per_s if self.roofline else None,
        )
        values = [(name, set(values)) for name, values in space.parameters.items()]
        for trial in [*ledger.trials.values()]:
            config = trial.config
            inside = len(config) == len(values) and all(config.get(name) in known for name, known in values)
            if inside and (not space.constraints or config in space):
                self._history.append(Observation(trial.config, _cost(trial)))
                self._conclude(trial)

    @property
    def trials(self) -> list[Trial]:
        """The trials of the space so far."""
        return [self.ledger.trials[path] for path in self._paths]

    def search(
        self, strategy: Strategy, budget: Budget, started: float, open_workers: Callable[[], Workers]
    ) -> None:
        """Try configs until there are no more or the budget is spent; compilers work ahead."""
        if len(self._history) == self.space_size:
            return
        flight: dict[Future[CompileOutcome], tuple[int, Job]] = {}
        deadline = started + (budget.seconds or math.inf)
        while (left := deadline - time.monotonic()) > 0:
            room = min(_AHEAD - len(flight), (budget.trials or sys.maxsize) - len(self._history))
            proposed = strategy.propose(self._space, self._history, room) if room > 0 else []
            if not flight and not proposed:
                return
            workers = open_workers()
            for place, job in filter(None, map(self._begin, proposed)):
                flight[workers.compile(job.source)] = (place, job)
            done = wait(flight, min(left, threading.TIMEOUT_MAX), FIRST_COMPLETED).done
            for future in [each for each in flight if each in done][:1]:
                self._finish(*flight.pop(future), future.result(), workers)

    def _begin(self, config: Config) -> tuple[int, Job] | None:
        """Add a config to the history; return None if the generator makes no source of it."""
        place = len(self._history)
        try:
            job = self.work.job(config)
        except GENERATOR_FAULTS as fault:
            status = Status.INVALID if isinstance(fault, ValueError) else Status.ERROR
            message = f"the generator: {fault!r}"
            identity, path = self.work.identity(config, ""), self.work.path(config)
            self._history.append(Observation(config, None))
            trial = Trial(dict(config), status, identity, path, place, message)
            self.ledger.hold(trial)
            self._conclude(trial)
            return None
        self._history.append(Observation(config, None, pending=True))
        return place, job

    def _finish(self, place: int, job: Job, compiled: CompileOutcome, workers: Workers) -> None:
        """Measure a compiled config, and record how it ended."""
        begun = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        if compiled.artifact is None:
            ran = RunOutcome(compiled.status, compiled.message, "not run\n")
        else:
            ran = workers.measure(compiled.artifact)
        samples = tuple(map(_rounded, ran.samples_ms))
        trial = Trial(
            config=job.config,
            status=ran.status,
            identity=job.identity,
            path=job.path,
            order=place,
            message=ran.message,
            metrics=self._gauge(samples) if samples else None,
            compile_s=round(compiled.seconds, 6),
            started_at=begun,
            samples_ms=samples,
        )
        ended = f"{ran.log}ended: {ran.status.value}{': ' if ran.message else ''}{ran.message}\n"
        self.ledger.record_trial(trial, job.source, compiled.log, ended)
        self._history[place] = Observation(job.config, _cost(trial))
        self._measured += 1
        self._conclude(trial)

    def _gauge(self, samples_ms: Sequence[float]) -> Metrics:
        """Return the metrics in six digits: more are noise, and cost time in every reader."""
        exact = vars(self._exact(samples_ms)).items()
        short: dict[str, Any] = {name: _rounded(x) if isinstance(x, float) else x for name, x in exact}
        return Metrics(**short)

    def _conclude(self, trial: Trial) -> None:
        self._paths[trial.path] = None
        self._listener.trial(trial)

    def confirm(self, open_workers: Callable[[], Workers], timing: Timing) -> list[str]:
        """Measure the finalists again, if anything was measured or none is confirmed yet.

        A finalist may turn out slower than its first reading. Others then come up to the best few, and are
        measured with them in a second pass.

        Returns:
            What the user should know: why the reference failed.
        """
        notes: list[str] = []
        if any(trial.confirmed for trial in self.trials) and not self._measured:
            return notes
        for _pass in range(PASSES):
            chosen = finalists(self.trials)
            if not chosen or self.ledger.known.confirmed_together({trial.identity for trial in chosen}):
                break
            found = confirm(self.work, chosen, open_workers(), timing, self._gauge)
            for failure in found.failures:
                self.ledger.record_trial(
                    failure.trial, failure.source, failure.compilation, failure.execution
                )
            self.ledger.record_confirmation(found.readings)
            if found.reference:
                self.ledger.record_reference(found.reference)
            notes = [found.note] if found.note else []
        return notes

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
            reference=self.ledger.known.references.get(self.work.digest),
            folder=self.ledger.folder,
            measured=self._measured,
            notes=tuple(notes),
            elapsed_s=elapsed_s,
        )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _cost(trial: Trial) -> float | None:
    return trial.metrics.median_ms if trial.metrics else None
