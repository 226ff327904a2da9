"""A Gaussian process over configs: it predicts the cost of configs that were not measured yet.

The correlation of two configs is a Matern 5/2 function of their distance. The distance is a weighted sum
over the parameters: how far apart two values are in their order, and whether they differ at all. The weights
are those that make the known costs most likely (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, algorithm 2.1 and equation 5.9).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Singles = NDArray[np.float32]
Codes = NDArray[np.int32]

_AT_ONCE = 512  # candidates correlated at once: so many fit in the cache
_JITTER = (
    1e-3  # noise that is always added: without it similar configs make a matrix singular in single precision
)
_ORDER_WEIGHT, _DIFFERENCE_WEIGHT, _NOISE = 1.0, 0.1, 1e-3  # the start of the fit, and the means of its prior
_WEIGHT_SPREAD, _NOISE_SPREAD = 1.5, 2.0  # the prior's standard deviations, of the logarithms


@dataclass(frozen=True)
class Fit:
    """Weights fitted to some costs; `weights` has one for each feature of the `Distance`."""

    weights: Floats
    noise: float


class Distance:
    """The squared distance between configs given as value indices: a weighted sum over features.

    Args:
        sizes: how many values each parameter has. A parameter with more than two values has two features: the
            squared distance in order, from 0 to 1, and whether the values differ. Others have the latter.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        counts = np.array(sizes, np.intp)
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self._longest = np.maximum(1, counts - 1)  # steps between a parameter's first value and its last
        self._parameter = np.repeat(np.arange(len(counts)), counts)  # of each column of `one_hot`
        steps = np.arange(self._offsets[-1]) - self._offsets[self._parameter]
        self._place = (steps / self._longest[self._parameter]).astype(np.float32)
        self._ordered, self._differing = np.flatnonzero(counts > 2), np.flatnonzero(counts > 1)
        differences = np.where(counts > 2, _DIFFERENCE_WEIGHT, _ORDER_WEIGHT + _DIFFERENCE_WEIGHT)
        orders = np.full(len(self._ordered), _ORDER_WEIGHT)
        self._prior = np.log(np.append(orders, differences[self._differing]))

    def prior(self) -> Fit:
        """Return the weights to use before any cost is known."""
        return Fit(np.exp(self._prior), _NOISE)

    def one_hot(self, codes: Codes) -> Singles:
        """Return the left factor of the distances from these configs: `one_hot(codes) @ to(...)`."""
        rows = np.zeros((len(codes), self._offsets[-1]), np.float32)
        rows[np.arange(len(codes))[:, None], codes + self._offsets[:-1]] = 1
        return rows

    def to(self, codes: Codes, weights: Floats) -> Singles:
        """Return the right factor: each value's distance from these configs' values."""
        order, difference = np.zeros((2, len(self._longest), 1), np.float32)
        order[self._ordered, 0] = weights[: len(self._ordered)]
        difference[self._differing, 0] = weights[len(self._ordered) :]
        apart = self._place[:, None] - self._places(codes).T[self._parameter]
        return np.asarray(order[self._parameter] * apart**2 + difference[self._parameter] * (apart != 0))

    def _places(self, codes: Codes) -> Singles:
        """Return the position of each value in its parameter's order, from 0 to 1."""
        return (codes / self._longest).astype(np.float32)

    def _pairs(self, codes: Codes) -> Singles:
        """Return every feature of every pair of configs: one row for each feature."""
        places = self._places(codes).T
        apart = places[:, :, None] - places[:, None, :]
        features = np.concatenate([apart[self._ordered] ** 2, apart[self._differing] != 0])
        return np.asarray(features.reshape(len(features), -1), np.float32)

    def fit(self, codes: Codes, costs: Floats, start: Fit, steps: int) -> Fit:
        """Search for the weights that make `costs` most likely, whatever their scale.

        The method is Rprop (Riedmiller and Braun, 1993) on the logarithms of the weights. It uses only the
        gradient's signs, so a steep likelihood cannot make it overshoot.

        Args:
            codes: the configs measured.
            costs: their costs, of mean 0.
            start: weights to start from, such as the last fit's.
            steps: how many gradient steps to take.
        """
        count, pairs = len(costs), self._pairs(codes)
        costs, identity = costs.astype(np.float32), np.eye(len(costs), dtype=np.float32)
        prior = np.append(self._prior, np.log(_NOISE))
        spread = np.append(np.full(len(self._prior), _WEIGHT_SPREAD), _NOISE_SPREAD)
        logs = np.log(np.append(start.weights, start.noise))
        step, last = np.full(len(logs), 0.3), np.zeros(len(logs))
        for _ in range(steps):
            weights = np.exp(logs).astype(np.float32)
            correlation, slope = _matern((weights[:-1] @ pairs).reshape(count, count))
            inverse = np.linalg.inv(correlation + (weights[-1] + np.float32(_JITTER)) * identity)
            solved = inverse @ costs
            surplus = inverse - np.outer(solved, solved) * np.float32(
                count / max(float(costs @ solved), 1e-12)
            )
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


def correlate(squared: Singles) -> Singles:
    """Return the correlation at a squared distance; in place, since it takes most of a search."""
    root = np.asarray(np.sqrt(5 * squared), np.float32)
    correlation = np.asarray(root / 3, np.float32)
    correlation += 1
    correlation *= root
    correlation += 1
    np.negative(root, out=root)
    correlation *= np.exp(root, out=root)
    return correlation


class Posterior:
    """Mean and variance of the cost of many candidates, updated by one observation at a time.

    A row of `_basis` is the candidates' correlations with one observation, made independent of the rows above
    (a growing Cholesky factor). So an observation costs one product of a matrix and a vector.

    Attributes:
        mean: the expected cost of each candidate.
        variance: relative to the variance of all costs. Before `keep` is called it is an upper bound, from
            the nearest observation alone.
    """

    def __init__(
        self, distance: Distance, fit: Fit, measured: Codes, costs: Floats, candidates: Codes
    ) -> None:
        self._distance, self._fit, self._candidates = distance, fit, candidates
        self._columns = distance.to(measured, fit.weights)
        among = self._correlations(measured).astype(float)
        inverse = np.linalg.inv(np.linalg.cholesky(among + (fit.noise + _JITTER) * np.eye(len(costs))))
        whitened = inverse @ costs
        self._scale = max(float(whitened @ whitened) / len(costs), 1e-9)
        self._inverse, self._whitened = inverse.astype(np.float32), whitened.astype(np.float32)
        coefficients = (whitened @ inverse).astype(np.float32)
        self.mean: Floats
        self.variance: Floats
        self.mean, self.variance = np.empty((2, len(candidates)), np.float32)
        for start in range(0, len(candidates), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            correlations = self._correlations(candidates[part])
            self.mean[part] = coefficients @ correlations
            self.variance[part] = 1 - correlations.max(axis=0) ** 2 / (1 + fit.noise + _JITTER)

    def _correlations(self, codes: Codes) -> Singles:
        """Return the correlation of each measured config with each of these configs."""
        return correlate(self._columns.T @ self._distance.one_hot(codes).T)

    def keep(self, places: NDArray[np.intp], room: int) -> None:
        """Drop all candidates except those at `places`, and make room for `room` more observations."""
        kept, rows = self._candidates[places], len(self._inverse)
        self._basis = np.empty((rows + room, len(places)), np.float32)
        known = np.matmul(self._inverse, self._correlations(kept), out=self._basis[:rows])
        self._rows, self._left = rows, self._distance.one_hot(kept)
        self.mean = self._whitened @ known
        self.variance = 1 - np.einsum("ij,ij->j", known, known)

    @property
    def room(self) -> int:
        """How many more observations fit."""
        return len(self._basis) - self._rows

    @property
    def deviation(self) -> Floats:
        """The standard deviation of each candidate's cost."""
        return np.asarray(np.sqrt(np.maximum(self.variance, _JITTER) * self._scale), float)

    def observe(self, place: int, code: Codes, cost: float | None) -> None:
        """Add a candidate's cost; None assumes the expected cost, which changes only the variance.

        Args:
            place: which candidate.
            code: its value indices.
            cost: in the unit of the costs given before.
        """
        rows = self._basis[: self._rows]
        spread = float(np.sqrt(max(self.variance[place], _JITTER) + self._fit.noise + _JITTER))
        correlation = correlate(self._left @ self._distance.to(code[None], self._fit.weights))[:, 0]
        row = (correlation - rows[:, place] @ rows) / spread
        if cost is not None:
            self.mean = self.mean + row * np.float32((cost - self.mean[place]) / spread)
        self.variance = self.variance - row * row
        self._basis[self._rows] = row
        self._rows += 1

    def branch(self) -> Posterior:
        """Return a copy for assumed observations; it is valid until the next observation of the original."""
        return copy.copy(self)
