"""The configs that a model chooses from: the whole space, or a sample if the space is too large to list."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import UsageError
from autotune.model.space import Config, Indices, SearchSpace, Value

Rows = NDArray[np.intp]

_PATIENCE_S = 0.5  # for adding configs that may not be needed
_SAMPLE = 20_000  # configs drawn from a larger space
_AT_ONCE = 8_192  # most candidates scored at once: those near the best, and a sample of the rest
_NEAR = 2  # a config near the best differs from it in at most so many parameters


def _codes(space: SearchSpace, configs: Sequence[Config]) -> NDArray[np.int32]:
    rows = np.array([space.indices(config) for config in configs], np.int32)
    return rows.reshape(len(configs), len(space.parameters))


class Pool:
    """Configs by row number, and which of them are free.

    Attributes:
        codes: the value indices of each config.
        free: whether each config is neither tried nor proposed.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._grows = not space.is_listed
        self._rest = map(space.indices, space)
        drawn = space.sample(random.Random(seed), _SAMPLE) if self._grows else None
        self.codes = space.codes if drawn is None else _codes(space, drawn)
        self.free = np.ones(len(self.codes), bool)
        self._rows: dict[Indices, int] = {tuple(code): row for row, code in enumerate(self.codes.tolist())}

    def config(self, row: int) -> dict[str, Value]:
        """Return the config of a row."""
        return self._space.config(self.codes[row].tolist())

    def row(self, config: Config) -> int | None:
        """Return the row of a config, or None if it is outside the space; a pool that is a sample adds it."""
        try:
            indices = self._space.indices(config)
        except UsageError:
            return None
        if self._grows and indices not in self._rows and config in self._space:
            self._add([indices])
        return self._rows.get(indices)

    def draw(self, count: int) -> list[int]:
        """Return up to `count` free rows, drawn at random."""
        if count == 0:
            return []
        free = np.flatnonzero(self.free)
        return list(map(int, self._rng.choice(free, min(count, len(free)), replace=False)))

    def refill(self, count: int) -> None:
        """Add configs until `count` rows are free, if the space has that many."""
        if self._grows and np.count_nonzero(self.free) < count:
            deadline = time.monotonic() + _PATIENCE_S
            rest = (new for new in self._rest if new not in self._rows)
            self._add(islice(rest, count))
            self._add(takewhile(lambda _new: time.monotonic() < deadline, islice(rest, _SAMPLE)))

    def sample(self, rows: Rows, count: int) -> Rows:
        """Return up to `count` of these rows, drawn at random."""
        return rows if len(rows) <= count else self._rng.choice(rows, count, replace=False)

    def candidates(self, best: Sequence[int]) -> Rows:
        """Return the free rows to score: all, or those near the best and as many others."""
        if self._grows:
            near = (each for row in best for each in self._space.neighbours(self.config(row)))
            self._add(new for new in map(self._space.indices, near) if new not in self._rows)
        free = np.flatnonzero(self.free)
        if len(free) <= _AT_ONCE:
            return free
        codes = self.codes[free]
        close = np.zeros(len(free), bool)
        for row in best:
            close |= np.count_nonzero(codes != self.codes[row], axis=1) <= _NEAR
        half = _AT_ONCE // 2
        return np.concatenate([self.sample(free[close], half), self.sample(free[~close], half)])

    def _add(self, new: Iterable[Indices]) -> None:
        """Append configs that the pool lacks."""
        added = list(dict.fromkeys(new))
        self._rows.update(zip(added, range(len(self.codes), len(self.codes) + len(added)), strict=True))
        self.codes = np.append(self.codes, np.array(added, np.int32).reshape(-1, self.codes.shape[1]), axis=0)
        self.free = np.append(self.free, np.ones(len(added), bool))
