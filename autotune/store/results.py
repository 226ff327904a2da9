"""Results: what a search found, best first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.model.trial import Baseline, Metrics, Status, Trial

_TIE = 0.02


@dataclass(frozen=True)
class Results:
    """What one `tune` found.

    Attributes:
        kernel: the kernel's name.
        shapes: the workload folder's name.
        backend: the backend's name.
        trials: every trial of the space, best first, failures last.
        best: the trial to use: the simplest of the winner and its ties; None if no config ended ok.
        ties: the other trials whose confirmed interval overlaps the winner's.
        baselines: the kernel's baselines, each at its best.
        folder: the workload's folder in the cache.
        measured: how many of the trials this run compiled or measured; the others were known.
        notes: what the user should know: torn records, stale results and why they are stale.
        elapsed_s: wall seconds of this run.
    """

    kernel: str
    shapes: str
    backend: str
    trials: tuple[Trial, ...]
    best: Trial | None
    ties: tuple[Trial, ...]
    baselines: tuple[Baseline, ...]
    folder: Path
    measured: int
    notes: tuple[str, ...]
    elapsed_s: float

    @property
    def failures(self) -> tuple[Trial, ...]:
        """The trials that did not end ok."""
        return tuple(trial for trial in self.trials if trial.status is not Status.OK)

    @property
    def baseline(self) -> Baseline | None:
        """The fastest baseline, with which the best is compared; None if there is none."""
        return fastest(self.baselines)

    @property
    def speedup(self) -> float | None:
        """How many times faster than the fastest baseline the best is; None if the readings cannot say."""
        reading = self.best and self.best.best_reading
        return speedup(self.baseline.metrics, reading) if self.baseline and reading else None


def fastest(baselines: Iterable[Baseline]) -> Baseline | None:
    """Return the baseline of the least median; None if there is none."""
    return min(baselines, key=lambda each: each.metrics.median_ms, default=None)


def speedup(baseline: Metrics, reading: Metrics) -> float | None:
    """Return how many times faster a reading is than a baseline's.

    None if one of them is known to no better than a factor of two: such a ratio only shows how busy the
    machine was.
    """
    if is_unsteady(baseline) or is_unsteady(reading):
        return None
    return baseline.median_ms / reading.median_ms


def is_unsteady(reading: Metrics) -> bool:
    """Return whether a median is known to no better than a factor of two."""
    return reading.ci95_high_ms > 2 * reading.ci95_low_ms


def median_ms(trial: Trial) -> float:
    """Return the median that counts: the confirmed one if the trial was confirmed."""
    reading = trial.best_reading
    assert reading is not None, "only trials that ended ok have a median"
    return reading.median_ms


@dataclass(frozen=True)
class Ranking:
    """Trials in the order that counts.

    Attributes:
        trials: best first, then the others by rank.
        best: the trial to use; None if none ended ok.
        ties: the others that are as fast as the winner within the error of measurement.
    """

    trials: list[Trial]
    best: Trial | None
    ties: list[Trial]


def ranking(trials: Iterable[Trial], source_bytes: Callable[[str], int]) -> Ranking:
    """Order trials, and choose the one to use.

    The winner has the least confirmed median. A first reading counts only if nothing is confirmed, since the
    least of many noisy readings is mostly luck. Trials tie with it if their interval overlaps its own and
    their median is within 2 % of its own: a wide interval alone says nothing of speed. Of the ties, the one
    with the shortest source is used: it is the simplest.

    Args:
        trials: any trials.
        source_bytes: identity -> length of its source.
    """
    ordered = sorted(trials, key=rank)
    if not ordered or ordered[0].status is not Status.OK:
        return Ranking(ordered, None, [])
    winner = ordered[0].confirmed
    if winner is None:
        return Ranking(ordered, ordered[0], [])
    high = winner.ci95_high_ms
    tied = [
        trial
        for trial in ordered
        if (reading := trial.confirmed)
        and reading.ci95_low_ms <= high
        and reading.median_ms <= (1 + _TIE) * winner.median_ms
    ]
    best = min(tied, key=lambda trial: source_bytes(trial.identity))  # of equally long ones the fastest
    ties = [trial for trial in tied if trial is not best]
    return Ranking([best, *(trial for trial in ordered if trial is not best)], best, ties)


def rank(trial: Trial) -> tuple[int, float]:
    """Order trials: confirmed, then unconfirmed, each by median; then failures."""
    if trial.confirmed is not None:
        return 0, trial.confirmed.median_ms
    return (1, trial.metrics.median_ms) if trial.metrics is not None else (2, 0.0)


def backend_of(trial: Trial, first: str) -> str:
    """Return a trial's backend: it stands in the folder's name, unless it is the kernel's first backend."""
    label = trial.path.partition(",")[0]
    named = label.startswith("backend=") and "backend" not in trial.config
    return label.partition("=")[2] if named else first


def best_of_backend(trials: Sequence[Trial], chosen: str | None, backend: str, first: str) -> Trial | None:
    """Return the trial to use of one backend.

    Args:
        trials: of a summary, in its order: best first.
        chosen: the path of the summary's best, which may be another backend's.
        backend: the wanted backend.
        first: the kernel's first backend.
    """
    ours = [trial for trial in trials if backend_of(trial, first) == backend and trial.status is Status.OK]
    return next((trial for trial in ours if trial.path == chosen), ours[0] if ours else None)
