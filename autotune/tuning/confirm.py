"""Confirm: measure the best few again, in turns, since the least of many noisy readings is luck."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from threadpoolctl import ThreadpoolController

from autotune.model.statistics import summarize
from autotune.model.timing import Timing
from autotune.model.trial import Baseline, Metrics, Status, Trial
from autotune.model.workload import Workload
from autotune.sites.site import BuildOutcome, RunOutcome, Site
from autotune.store.results import median_ms

FINALISTS = 4
PASSES = 2
TURNS = 6  # the fewest whose extremes bound a median with 95 % confidence: 1 - 2 / 2**6 is 97 %
MOST_TURNS = 16
_STEADY = 0.03  # of the median: an interval that is narrower needs no more turns

Gauge = Callable[[Sequence[float]], Metrics]
"""Milliseconds of each repeat -> metrics."""


@dataclass(frozen=True)
class Failure:
    """A finalist that failed when it was measured again.

    Args:
        trial: the trial as it ended now.
        source: the candidate's source.
        compilation: the compiler's command, version and messages.
        execution: what the candidate printed.
    """

    trial: Trial
    source: str
    compilation: str
    execution: str


@dataclass(frozen=True)
class Confirmation:
    """The finalists measured together.

    Args:
        readings: path -> reading, of the finalists that ended ok.
        failures: the other finalists.
        baselines: the kernel's baselines that ended ok, each at its best.
        notes: why the others failed.
    """

    readings: Mapping[str, Metrics]
    failures: tuple[Failure, ...]
    baselines: tuple[Baseline, ...]
    notes: tuple[str, ...] = ()


def finalists(trials: Iterable[Trial]) -> list[Trial]:
    """Return the best few by the reading that counts for each."""
    good = [trial for trial in trials if trial.status is Status.OK]
    return sorted(good, key=median_ms)[:FINALISTS]


def confirm(
    work: Workload,
    chosen: Sequence[Trial],
    site: Site,
    timing: Timing,
    gauge: Gauge,
    deadline: float = math.inf,
) -> Confirmation:
    """Measure finalists again, in turns with the baselines.

    A baseline runs with one BLAS thread and with all. So the ratio is not of two different moments, nor to a
    baseline with the wrong number of threads.

    Args:
        work: the workload.
        chosen: the finalists.
        site: builds and measures them.
        timing: its `max_s` is for all turns of a finalist together.
        gauge: makes metrics of samples.
        deadline: by time.monotonic: no turn begins after it, but for the first.
    """
    jobs = [work.job(trial.config) for trial in chosen]
    built = [future.result() for future in [site.build(job.source) for job in jobs]]
    ways = [(name, count) for name in work.kernel.baselines for count in thread_counts()]
    turn = replace(timing, max_s=timing.max_s / TURNS)
    runs = [functools.partial(_run, compiled, site, turn) for compiled in built]
    baselines = [functools.partial(site.baseline, name, count, turn) for name, count in ways]
    outcomes = take_turns(runs, baselines, site.place_anew, timing.max_s, deadline)
    readings, failures = {}, []
    for trial, job, compiled, turns in zip(chosen, jobs, built, outcomes, strict=False):
        if turns[-1].status is Status.OK:
            readings[trial.path] = _pooled(turns, gauge)
        else:
            failures.append(Failure(_failed(trial, turns[-1]), job.source, compiled.log, turns[-1].log))
    found, notes = [], []
    for name in work.kernel.baselines:
        taken = zip(ways, outcomes[len(built) :], strict=True)
        of_threads = {count: turns for (whose, count), turns in taken if whose == name}
        if best := at_its_best(name, of_threads, gauge):
            found.append(best)
        else:
            notes.append(_why_failed(name, next(iter(of_threads.values()))[-1]))
    return Confirmation(readings, tuple(failures), tuple(found), tuple(notes))


def _why_failed(name: str, outcome: RunOutcome) -> str:
    hint = ""
    if outcome.status is Status.TIMEOUT:
        hint = "; one that uses OpenMP hangs in a fork of a program in which OpenMP has run before `tune`"
    return f"the baseline {name} ended with {outcome.status.value}: {outcome.message}{hint}"


def thread_counts() -> tuple[int, ...]:
    """Return the numbers of BLAS threads that a baseline is measured with; 0 for its own default."""
    cores = len(os.sched_getaffinity(0))
    return (1, cores) if cores > 1 and ThreadpoolController().lib_controllers else (0,)


def at_its_best(name: str, ways: Mapping[int, Sequence[RunOutcome]], gauge: Gauge) -> Baseline | None:
    """Return a baseline at its best; its name contains the threads only if they make a difference.

    A user who wants a fast product sets the best number of threads. Small products lose time on more than
    one. On a busy machine they lose far more, since all threads spin until the last one has run.
    """
    readings = {
        count: _pooled(turns, gauge) for count, turns in ways.items() if turns[-1].status is Status.OK
    }
    if not readings:
        return None
    count = min(readings, key=lambda count: readings[count].median_ms)
    best = readings.pop(count)
    differs = count and all(best.ci95_high_ms < other.ci95_low_ms for other in readings.values())
    return Baseline(f"{name}, {count} thread{'s' if count > 1 else ''}" if differs else name, best)


def take_turns(
    runs: Sequence[Callable[[], RunOutcome]],
    baselines: Sequence[Callable[[], RunOutcome]],
    place_anew: Callable[[], None],
    max_s: float,
    deadline: float = math.inf,
) -> list[list[RunOutcome]]:
    """Run each once a turn, forwards and backwards, until the runs' medians are steady or their time is up.

    Every turn has new processes and other pages of memory. So chance (the place of the pages) and the load of
    the machine affect all programs alike, and change from turn to turn. A program that fails gets no further
    turn.
    """
    programs = [*runs, *baselines]
    outcomes: list[list[RunOutcome]] = [[] for _ in programs]
    for turn in range(MOST_TURNS):
        if turn and time.monotonic() > deadline:
            break
        if turn >= TURNS and all(_steady(turns, max_s) for turns in outcomes[: len(runs)]):
            break
        place_anew()
        for run, turns in list(zip(programs, outcomes, strict=True))[:: -1 if turn % 2 else 1]:
            if not turns or turns[-1].status is Status.OK:
                turns.append(run())
    return outcomes


def _steady(turns: Sequence[RunOutcome], max_s: float) -> bool:
    """Return whether more turns are useless: the median is steady, it failed, or its time is up."""
    if turns[-1].status is not Status.OK or sum(sum(t.samples_ms) * t.calls for t in turns) >= max_s * 1e3:
        return True
    known = summarize([median(turn.samples_ms) for turn in turns])
    return known.ci95_high - known.ci95_low <= _STEADY * known.median


def _run(compiled: BuildOutcome, site: Site, timing: Timing) -> RunOutcome:
    if compiled.artifact is None:
        return RunOutcome(compiled.status, compiled.message)
    return site.measure(compiled.artifact, timing, again=True)


def _pooled(turns: Sequence[RunOutcome], gauge: Gauge) -> Metrics:
    """Return the reading of several turns: median and interval of their medians, the rest of all samples.

    Samples of one process are more alike than those of several: an interval of all of them together would be
    narrower than the truth.
    """
    reading = gauge([median(turn.samples_ms) for turn in turns])
    pooled = summarize([sample for turn in turns for sample in turn.samples_ms])
    repeats = sum(len(turn.samples_ms) for turn in turns)
    waited = round(median(turn.waited for turn in turns), 3)
    return replace(
        reading,
        min_ms=pooled.minimum,
        p95_ms=pooled.p95,
        repeats=repeats,
        outliers=pooled.outliers,
        waited=waited,
    )


def _failed(trial: Trial, last: RunOutcome) -> Trial:
    message = f"when measured again: {last.message}"
    return replace(trial, status=last.status, message=message, metrics=None, confirmed=None, samples_ms=())
