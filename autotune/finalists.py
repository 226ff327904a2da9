"""Finalists: the best few are measured again, in turns, since the least of many noisy readings is luck."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median

from autotune.job import Workload
from autotune.ledger import Ledger
from autotune.measure import summarize
from autotune.results import median_ms
from autotune.trial import Metrics, Status, Trial
from autotune.workers import CompileOutcome, RunOutcome, Workers

FINALISTS = 4
TURNS = 6  # the fewest whose extremes bound a median with 95 % confidence: 1 - 2 / 2**6 is 97 %
_PASSES = 2

Gauge = Callable[[Sequence[float]], Metrics]
"""Milliseconds of each repeat -> metrics."""


def finalists(trials: Iterable[Trial]) -> list[Trial]:
    """Return the best few by the reading that counts for each."""
    good = [trial for trial in trials if trial.status is Status.OK]
    return sorted(good, key=median_ms)[:FINALISTS]


def confirm(
    work: Workload,
    ledger: Ledger,
    trials: dict[str, Trial],
    open_workers: Callable[[], Workers],
    gauge: Gauge,
) -> list[str]:
    """Measure the finalists again until the best few are ones that were measured together.

    Where a confirmed finalist turns out slower than its first reading said, others come up to the best few,
    and are measured with them in a second pass. The reference takes its turn among them: so the ratio is not
    of two different moments.

    Args:
        work: the workload.
        ledger: where the readings are recorded.
        trials: path -> trial; changed in place: finalists get their confirmed reading, or how they failed.
        open_workers: called only where something is to be measured.
        gauge: makes metrics of samples.

    Returns:
        What a user should hear: that the reference failed.
    """
    notes: list[str] = []
    for _pass in range(_PASSES):
        chosen = finalists(trials.values())
        if not chosen or any({trial.identity for trial in chosen} <= each for each in ledger.known.rounds):
            break
        jobs = [work.job(trial.config) for trial in chosen]
        with open_workers() as workers:
            built = [future.result() for future in [workers.compile(job.source) for job in jobs]]
            outcomes, reference = _take_turns(built, workers, work.kernel.reference is not None)
        readings = {}
        for trial, job, compiled, turns in zip(chosen, jobs, built, outcomes, strict=True):
            if turns[-1].status is Status.OK:
                readings[trial.identity] = reading = _pooled(turns, gauge)
                trials[trial.path] = replace(trial, confirmed=reading)
            else:
                trials[trial.path] = fallen = _fallen(trial, turns[-1])
                ledger.record_trial(fallen, job.source, compiled.log, turns[-1].log)
        ledger.record_confirmation(readings)
        if reference and reference[-1].status is Status.OK:
            ledger.record_reference(_pooled(reference, gauge))
        elif reference:
            notes = [f"the reference ended with {reference[-1].status.value}: {reference[-1].message}"]
    return notes


def _take_turns(
    built: Sequence[CompileOutcome], workers: Workers, with_reference: bool
) -> tuple[list[list[RunOutcome]], list[RunOutcome]]:
    """Measure each finalist, then the reference, once a turn, forwards and backwards, in fresh processes.

    What a process gets by luck (where its pages lie) and what the machine does meanwhile so falls on all
    alike. Who fails has no further turn.
    """
    runs: list[Callable[[], RunOutcome]] = [functools.partial(_run, compiled, workers) for compiled in built]
    if with_reference:
        runs.append(workers.reference)
    outcomes: list[list[RunOutcome]] = [[] for _ in runs]
    for turn in range(TURNS):
        for run, turns in list(zip(runs, outcomes, strict=True))[:: -1 if turn % 2 else 1]:
            if not turns or turns[-1].status is Status.OK:
                turns.append(run())
    return outcomes[: len(built)], outcomes[-1] if with_reference else []


def _run(compiled: CompileOutcome, workers: Workers) -> RunOutcome:
    if compiled.artifact is None:
        return RunOutcome(compiled.status, compiled.message)
    return workers.measure(compiled.artifact)


def _pooled(turns: Sequence[RunOutcome], gauge: Gauge) -> Metrics:
    """Return the reading of several turns: median and interval of their medians, the rest of all samples.

    Samples of one process are more alike than those of several: an interval of all of them together would be
    narrower than the truth.
    """
    reading = gauge([median(turn.samples_ms) for turn in turns])
    pooled = summarize([sample for turn in turns for sample in turn.samples_ms])
    repeats = sum(len(turn.samples_ms) for turn in turns)
    return replace(
        reading, min_ms=pooled.minimum, p95_ms=pooled.p95, repeats=repeats, outliers=pooled.outliers
    )


def _fallen(trial: Trial, last: RunOutcome) -> Trial:
    message = f"when measured again: {last.message}"
    return replace(trial, status=last.status, message=message, metrics=None, confirmed=None, samples_ms=())
