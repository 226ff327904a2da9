"""A Gaussian process over configs: what a cost is likely to be where nothing was measured yet.

Configs correlate by a Matern 5/2 function of a distance that adds up over the parameters: how far apart two
values stand in their order, and whether they differ at all, each with a weight of its own. The weights are
those under which the costs seen so far are most likely (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, algorithm 2.1 and equation 5.9).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Codes = NDArray[np.int32]

_JITTER = 1e-3  # noise that is always there: keeps near-twins apart, in single precision too
_ORDER_WEIGHT, _DIFFERENCE_WEIGHT, _NOISE = 1.0, 0.1, 1e-3  # where the fit starts, and what it is drawn to
_WEIGHT_SPREAD, _NOISE_SPREAD = 1.5, 2.0  # standard deviations, of logarithms, around these


@dataclass(frozen=True)
class Fit:
    """Weights that explain some costs; `weights` has one for each feature of the `Distance`."""

    weights: Floats
    noise: float


class Distance:
    """The squared distance between configs given as value indices: a weighted sum over features.

    Args:
        sizes: how many values each parameter has. One with two values has one feature, others have two: the
            squared distance in order, from 0 to 1, and whether the values differ.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self._features: list[tuple[int, NDArray[np.float32]]] = []
        for parameter, size in enumerate(sizes):
            order = np.subtract.outer(np.arange(size), np.arange(size)) / max(1, size - 1)
            if size > 2:
                self._features.append((parameter, (order**2).astype(np.float32)))
            if size > 1:
                self._features.append((parameter, (order != 0).astype(np.float32)))
        ordered = {parameter for parameter, table in self._features if 0 < table[0, 1] < 1}
        self._prior = np.log(
            [
                _ORDER_WEIGHT
                if table[0, 1] < 1
                else _DIFFERENCE_WEIGHT
                if parameter in ordered
                else _ORDER_WEIGHT + _DIFFERENCE_WEIGHT
                for parameter, table in self._features
            ]
        )

    def prior(self) -> Fit:
        """Return what to believe before any cost is known."""
        return Fit(np.exp(self._prior), _NOISE)

    def one_hot(self, codes: Codes) -> NDArray[np.float32]:
        """Return the left factor of distances from these configs: `one_hot(codes) @ to(...)`."""
        rows = np.zeros((len(codes), self._offsets[-1]), np.float32)
        rows[np.arange(len(codes))[:, None], codes + self._offsets[:-1]] = 1
        return rows

    def to(self, codes: Codes, weights: Floats) -> NDArray[np.float32]:
        """Return the right factor: how far each value of each parameter is from these configs' values."""
        columns = np.zeros((self._offsets[-1], len(codes)), np.float32)
        for (parameter, table), weight in zip(self._features, weights, strict=True):
            start, end = self._offsets[parameter], self._offsets[parameter + 1]
            columns[start:end] += np.float32(weight) * table[:, codes[:, parameter]]
        return columns

    def fit(self, codes: Codes, costs: Floats, start: Fit, steps: int) -> Fit:
        """Climb towards the weights under which `costs` are most likely, their scale being free.

        Rprop (Riedmiller and Braun, 1993) on the logarithms: it needs signs of the gradient only, so a cliff
        in the likelihood throws it nowhere.

        Args:
            codes: the configs measured.
            costs: their costs, of mean 0.
            start: weights to start from, such as the last fit's.
            steps: gradients to take.
        """
        count: int = len(costs)
        pairs = np.array(
            [table[np.ix_(codes[:, p], codes[:, p])].ravel() for p, table in self._features], float
        )
        prior = np.append(self._prior, np.log(_NOISE))
        spread = np.append(np.full(len(self._prior), _WEIGHT_SPREAD), _NOISE_SPREAD)
        logs = np.log(np.append(start.weights, start.noise))
        step, last = np.full(len(logs), 0.3), np.zeros(len(logs))
        for _ in range(steps):
            weights = np.exp(logs)
            correlation, slope = _matern((weights[:-1] @ pairs).reshape(count, count))
            inverse = np.linalg.inv(correlation + (weights[-1] + _JITTER) * np.eye(count))
            solved = inverse @ costs
            surplus = inverse - np.outer(solved, solved) * (count / max(float(costs @ solved), 1e-12))
            gradient = 0.5 * weights * np.append(pairs @ (surplus * slope).ravel(), np.trace(surplus))
            gradient += (logs - prior) / spread**2
            agree = np.sign(gradient * last)
            step = np.clip(step * np.choose(agree.astype(int) + 1, [0.5, 1.0, 1.3]), 0.02, 1.0)
            last = np.where(agree < 0, 0.0, gradient)
            logs = logs - np.sign(last) * step
        return Fit(np.exp(logs[:-1]), float(np.exp(logs[-1])))


def _matern(squared: Floats) -> tuple[Floats, Floats]:
    """Return the Matern 5/2 correlation at a squared distance, and its derivative there."""
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return (1 + root + root**2 / 3) * decay, -(5 / 6) * (1 + root) * decay


def correlate(squared: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation at a squared distance; mostly in place, for here a search spends its time."""
    root = np.asarray(np.sqrt(5 * squared), np.float32)
    correlation = np.asarray(root / 3, np.float32)
    correlation += 1
    correlation *= root
    correlation += 1
    np.negative(root, out=root)
    correlation *= np.exp(root, out=root)
    return correlation


class Posterior:
    """Mean and variance of the cost of many candidates, brought up to date one observation at a time.

    The rows of `_basis` are the candidates' correlations with each observation, made independent of the rows
    above (a growing Cholesky factor), so an observation costs one product of that matrix with a vector.

    Attributes:
        mean: the expected cost of each candidate.
        variance: relative to the variance of costs overall.
    """

    def __init__(
        self, distance: Distance, fit: Fit, measured: Codes, costs: Floats, candidates: Codes
    ) -> None:
        self._distance, self._fit = distance, fit
        self._left = distance.one_hot(candidates)
        columns = distance.to(measured, fit.weights)
        among = correlate(distance.one_hot(measured) @ columns).astype(float)
        factor = np.linalg.cholesky(among + (fit.noise + _JITTER) * np.eye(len(costs)))
        inverse = np.linalg.inv(factor)
        whitened = inverse @ costs
        self._scale = max(float(whitened @ whitened) / len(costs), 1e-9)
        correlations = correlate(self._left @ columns)
        self._basis = inverse.astype(np.float32) @ correlations.T
        self._rows = len(costs)
        self.mean = whitened.astype(np.float32) @ self._basis
        self.variance = 1 - np.einsum("ij,ij->j", self._basis, self._basis)

    def keep(self, places: NDArray[np.intp], room: int) -> None:
        """Forget all candidates but those at `places`, and make room for `room` more observations."""
        basis = np.empty((self._rows + room, len(places)), np.float32)
        basis[: self._rows] = self._basis[:, places]
        self._basis, self._left = basis, self._left[places]
        self.mean, self.variance = self.mean[places], self.variance[places]

    @property
    def room(self) -> int:
        """How many more observations fit in."""
        return len(self._basis) - self._rows

    @property
    def deviation(self) -> Floats:
        """The standard deviation of each candidate's cost."""
        return np.asarray(np.sqrt(np.maximum(self.variance, _JITTER) * self._scale), float)

    def correlation(self, codes: Codes) -> NDArray[np.float32]:
        """Return how each candidate correlates with each of some configs: one row per candidate."""
        return correlate(self._left @ self._distance.to(codes, self._fit.weights))

    def observe(self, place: int, code: Codes, cost: float | None) -> None:
        """Take in a candidate's cost; None supposes the expected one, which narrows the variance only.

        Args:
            place: which candidate.
            code: its value indices.
            cost: in the unit of the costs given before.
        """
        rows = self._basis[: self._rows]
        spread = float(np.sqrt(max(self.variance[place], _JITTER) + self._fit.noise + _JITTER))
        correlation = self.correlation(code[None])[:, 0]
        row = (correlation - rows[:, place] @ rows) / spread
        if cost is not None:
            self.mean = self.mean + row * np.float32((cost - self.mean[place]) / spread)
        self.variance = self.variance - row * row
        self._basis[self._rows] = row
        self._rows += 1

    def branch(self) -> Posterior:
        """Return a copy on which to suppose observations; valid until this one observes again."""
        return copy.copy(self)
