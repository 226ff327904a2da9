"""Random search: every config is equally likely, and none is drawn twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from autotune.model.space import SearchSpace, Value
from autotune.search._base import Observation
from autotune.search._history import Tried

_DRAWN_AT_ONCE = 10_000  # if the space is too large to be shuffled whole


class Random:
    """Propose configs in an order that depends on the seed; each search needs an instance of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._tried = Tried()
        self._order: Iterator[dict[str, Value]] | None = None

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, Value]]:
        """Return the next `count` untried configs."""
        if self._order is None:
            self._order = self._shuffled(space)
        self._tried.read(space, history)
        new = (config for config in self._order if self._tried.claim(space, config))
        return list(islice(new, count))

    def _shuffled(self, space: SearchSpace) -> Iterator[dict[str, Value]]:
        """Yield random samples, then the configs that no sample contained."""
        drawn = space.sample(random.Random(self.seed), _DRAWN_AT_ONCE)
        return chain(drawn, space)
