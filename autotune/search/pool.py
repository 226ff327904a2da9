"""The configs that a model chooses among: the whole space, or a sample of one too large to list."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import UsageError
from autotune.model.space import Config, Indices, SearchSpace, Value

Rows = NDArray[np.intp]

_LISTED = 1 << 22  # products up to this size are listed whole
_SAMPLE = 20_000  # configs drawn from a larger one
_AT_ONCE = 8_192  # candidates scored at once: of more, those near the best and a sample of the rest
_NEAR = 2  # parameters in which a config near the best may differ


class Pool:
    """Configs by row, and which of them are free.

    Attributes:
        codes: their value indices.
        free: which were neither tried nor proposed.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._grows = space.product > _LISTED
        drawn = space.sample(random.Random(seed), _SAMPLE) if self._grows else None
        self.codes = space.codes if drawn is None else np.array([space.indices(c) for c in drawn], np.int32)
        self.free = np.ones(len(self.codes), bool)
        self._rows: dict[Indices, int] = {tuple(code): row for row, code in enumerate(self.codes.tolist())}

    def config(self, row: int) -> dict[str, Value]:
        """Return the config of a row."""
        return self._space.config(self.codes[row].tolist())

    def row(self, config: Config) -> int | None:
        """Return the row of a config, added where the pool is a sample; None for one outside the space."""
        try:
            indices = self._space.indices(config)
        except UsageError:
            return None
        if self._grows and indices not in self._rows and config in self._space:
            self._add([indices])
        return self._rows.get(indices)

    def draw(self, count: int) -> list[int]:
        """Return up to `count` free rows, evenly drawn."""
        if count == 0:
            return []
        free = np.flatnonzero(self.free)
        return list(map(int, self._rng.choice(free, min(count, len(free)), replace=False)))

    def refill(self, count: int) -> None:
        """See to `count` free rows, where the space has that many beyond the sample."""
        if self._grows and np.count_nonzero(self.free) < count:
            rest = (new for new in map(self._space.indices, self._space) if new not in self._rows)
            self._add(islice(rest, max(count, _SAMPLE)))

    def sample(self, rows: Rows, count: int) -> Rows:
        """Return up to `count` of some rows, evenly drawn."""
        return rows if len(rows) <= count else self._rng.choice(rows, count, replace=False)

    def candidates(self, best: Sequence[int]) -> Rows:
        """Return free rows to score: all, or those near the best and as many others."""
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
