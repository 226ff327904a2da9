"""Exhaustive search: every config in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from autotune.model.space import SearchSpace, Value
from autotune.search._base import Observation
from autotune.search._history import Tried


class Exhaustive:
    """Propose every config of the space, in its order; each search needs an instance of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed  # unused; `get` passes a seed to every strategy
        self._tried = Tried()
        self._rest: Iterator[dict[str, Value]] | None = None

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, Value]]:
        """Return the next `count` untried configs."""
        self._rest = self._rest or iter(space)
        self._tried.read(space, history)
        new = (config for config in self._rest if self._tried.claim(space, config))
        return list(itertools.islice(new, count))
