"""Bayesian search: model the cost of every config, and try the one with the largest expected improvement.

The first few configs are random. Then a Gaussian process models the logarithm of the cost. It gives each
config's expected improvement on the best so far (Jones, Schonlau and Welch, 1998), which is multiplied by the
probability that the config works. Logarithms above the median are compressed: the exact cost of a slow config
says little about fast ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import ThreadpoolController

from autotune.model.space import SearchSpace, Value
from autotune.search._base import Observation
from autotune.search._history import Settled
from autotune.search.gaussian_process import Codes, Distance, Fit, Floats, Posterior
from autotune.search.pool import Pool, Rows

_FIRST = 8  # random configs before the model is used
_SUCCESSES = 3  # that must have worked before the model is used: fewer have no spread to model
_SLOW_HALF = 0.3  # weight of the part of a logarithm that is above the median
_SHORTLIST = 512  # best candidates that are kept until the next fit
_LEARNED = 256  # most costs in a fit: half of them the best, half a sample of the rest
_WEIGHED = 96  # most costs that decide the model's weights: half of them the best
_GROWTH, _LEAST_STEP, _LARGEST_STEP = 0.2, 4, 48  # observations between two fits: growth as a fraction of all
_STEPS_FIRST, _STEPS = 30, 6  # gradient steps of the first fit, and of later fits, which start from the last
_SUPPOSED = 256  # most pending configs that the model assumes to go as expected
_WORKED, _FAILED = -1.0, 1.0  # the values that the model of failures learns


@dataclass(frozen=True)
class _Scale:
    """Turn logarithms of costs into the model's costs, of mean 0 and standard deviation 1."""

    median: float
    mean: float
    deviation: float

    @staticmethod
    def of(logs: Floats) -> _Scale:
        median = float(np.median(logs))
        bent = _Scale(median, 0.0, 1.0).apply(logs)
        return _Scale(median, float(bent.mean()), float(bent.std()) or 1.0)

    def apply(self, logs: Floats) -> Floats:
        above = np.maximum(logs - self.median, 0)
        return np.asarray((logs - (1 - _SLOW_HALF) * above - self.mean) / self.deviation)


class _Outlook:
    """The expected improvement of a shortlist of candidates, from one fit until the next."""

    def __init__(
        self, candidates: Rows, costs: Posterior, faults: Posterior | None, scale: _Scale, best: float
    ) -> None:
        self.rows = candidates
        self.costs, self.faults = costs, faults
        self.places: dict[int, int] = {}
        self._scale, self._best = scale, best

    def shorten(self, kept: Rows) -> None:
        """Keep the most promising candidates, and those in `kept`."""
        promise = np.where(np.isin(self.rows, kept), np.inf, self.promise(self.costs))
        best = np.arange(len(promise))
        if len(promise) > (size := _SHORTLIST + len(kept)):
            best = np.sort(np.argpartition(-promise, size)[:size])
        self.costs.keep(best, _LARGEST_STEP + _SUPPOSED)
        if self.faults:
            self.faults.keep(best, _LARGEST_STEP)
        self.rows = self.rows[best]
        self.places = {row: place for place, row in enumerate(self.rows.tolist())}

    def observe(self, row: int, code: Codes, log: float) -> None:
        """Add the outcome of a config on the shortlist; `log` is NaN if it failed."""
        if self.faults:
            self.faults.observe(self.places[row], code, _FAILED if math.isnan(log) else _WORKED)
        if not math.isnan(log):
            cost = float(self._scale.apply(np.array(log)))
            self.costs.observe(self.places[row], code, cost)
            self._best = min(self._best, cost)

    def promise(self, costs: Posterior) -> Floats:
        """Return each candidate's expected improvement, times the probability that it works."""
        improvement = costs.deviation * _expected_improvement((self._best - costs.mean) / costs.deviation)
        if self.faults is None:
            return np.asarray(improvement)
        return np.asarray(improvement * _normal_below(-self.faults.mean / self.faults.deviation))


class Bayesian:
    """Propose the configs with the largest expected improvement; each search needs an instance of its own.

    Each proposal uses every outcome known by then. Only the model's weights are fitted at intervals, whenever
    the history has grown by a fifth.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._settled = Settled()
        self._pool: Pool | None = None
        self._distance = Distance(())
        self._fits: dict[str, Fit] = {}
        self._outlook: _Outlook | None = None
        self._rows: list[int] = []
        self._logs: list[float] = []
        self._absorbed = self._next_fit = 0

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, Value]]:
        """Return up to `count` configs: random ones at first, then the most promising ones."""
        if self._pool is None:
            self._pool = Pool(space, self.seed)
            self._distance = Distance([len(values) for values in space.parameters.values()])
        pool = self._pool
        for seen in self._settled.read(history):
            if (row := pool.row(seen.config)) is not None:
                self._rows.append(row)
                self._logs.append(math.nan if seen.cost is None else math.log(seen.cost))
        pending = [row for config in self._settled.pending(history) if (row := pool.row(config)) is not None]
        pool.free[self._rows[self._absorbed :] + pending] = False
        pool.refill(count)
        if np.count_nonzero(~np.isnan(self._logs)) < _SUCCESSES or len(history) < _FIRST:
            rows = pool.draw(count)
        else:
            # On small matrices more threads cost time, and they go on spinning beside the next measurement.
            with _blas().limit(limits=1):
                rows = self._promising(pool, pending, count)
        pool.free[rows] = False
        return [pool.config(row) for row in rows]

    def _promising(self, pool: Pool, pending: list[int], count: int) -> list[int]:
        """Return the free rows with the largest expected improvement, if those before go as expected."""
        outlook = self._updated(pool, pending)
        posterior = outlook.costs.branch()
        for row in pending[: posterior.room]:
            posterior.observe(outlook.places[row], pool.codes[row], None)
        free, picked = pool.free[outlook.rows], list[int]()
        while len(picked) < count and free.any():
            place = int(np.argmax(np.where(free, outlook.promise(posterior), -1)))
            row = int(outlook.rows[place])
            free[place] = pool.free[row] = False
            picked.append(row)
            if len(picked) < count and posterior.room:
                posterior.observe(place, pool.codes[row], None)
        return picked + pool.draw(count - len(picked))

    def _updated(self, pool: Pool, pending: list[int]) -> _Outlook:
        """Return the outlook after all outcomes, with the pending rows on its shortlist."""
        outlook, new = self._outlook, range(self._absorbed, len(self._rows))
        self._absorbed = len(self._rows)
        if (
            outlook is None
            or self._absorbed >= self._next_fit
            or not outlook.places.keys() >= {*pending, *(self._rows[i] for i in new)}
            or not pool.free[outlook.rows].any()
            or (outlook.faults is None and any(math.isnan(self._logs[i]) for i in new))
        ):
            outlook = self._outlook = self._refitted(pool, pending)
            growth = int(_GROWTH * self._absorbed)
            self._next_fit = self._absorbed + min(max(growth, _LEAST_STEP), _LARGEST_STEP)
            return outlook
        for i in new:
            outlook.observe(self._rows[i], pool.codes[self._rows[i]], self._logs[i])
        return outlook

    def _refitted(self, pool: Pool, pending: list[int]) -> _Outlook:
        """Fit the weights to the known outcomes, and choose a shortlist."""
        rows, logs = np.array(self._rows, np.intp), np.array(self._logs)
        order = np.argsort(logs, kind="stable")  # failures last
        worked, failed = np.split(rows[order], [np.count_nonzero(~np.isnan(logs))])
        half = _LEARNED // 2
        kept = np.sort(np.append(np.arange(half), pool.sample(np.arange(half, len(worked)), half)))
        kept = kept[kept < len(worked)]
        learned, scale = worked[kept], _Scale.of(logs[order][kept])
        costs = scale.apply(logs[order][kept])
        candidates = np.append(pool.candidates(learned[:_SUCCESSES].tolist()), np.array(pending, np.intp))
        among = pool.codes[candidates]
        cost = self._posterior("cost", pool.codes[learned], costs, among)
        fault = None
        if len(failed):
            seen = np.concatenate([learned, pool.sample(failed, _LEARNED - half)])
            ended = np.where(np.arange(len(seen)) < len(learned), _WORKED, _FAILED)
            fault = self._posterior("fault", pool.codes[seen], ended, among)
        outlook = _Outlook(candidates, cost, fault, scale, float(costs[0]))
        outlook.shorten(np.array(pending, np.intp))
        return outlook

    def _posterior(self, of: str, measured: Codes, costs: Floats, candidates: Codes) -> Posterior:
        """Model costs or failures; the fit of the weights starts from the last fit of the same kind."""
        start, steps = self._distance.prior(), _STEPS_FIRST
        if of in self._fits:
            start, steps = self._fits[of], _STEPS
        weighed = np.arange(len(costs))
        if len(weighed) > _WEIGHED:
            half = _WEIGHED // 2
            weighed = np.append(weighed[:half], np.linspace(half, weighed[-1], half).astype(np.intp))
        some = costs[weighed] - costs[weighed].mean()
        self._fits[of] = self._distance.fit(measured[weighed], some, start, steps)
        return Posterior(self._distance, self._fits[of], measured, costs, candidates)


@functools.cache
def _blas() -> ThreadpoolController:
    """Return the controller of NumPy's BLAS; kept, since finding the libraries is the slow part."""
    return ThreadpoolController().select(user_api="blas")


def _expected_improvement(lead: Floats) -> Floats:
    """Return the expected improvement of a standard normal; `lead` is how far the best lies above the mean.

    It uses Sampford's bound on Mills' ratio (1953): exact at 0 and in the limit, within 4 % between, and
    never 0/0.
    """
    x = np.abs(lead)
    root = np.sqrt(x * x + 8)
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.asarray(density * (root - x) / (root + 3 * x) + np.maximum(lead, 0))


def _normal_below(x: Floats) -> Floats:
    """Return the probability that a standard normal is below x, by a logistic curve (error below 0.01)."""
    return np.asarray(1 / (1 + np.exp(-1.702 * np.clip(x, -50, 50))))
