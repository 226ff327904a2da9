"""Exhaustive search: every config in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from autotune.search._base import Observation
from autotune.space import SearchSpace, Value


class Exhaustive:
    """Propose every config of the space, in its order; made anew for each search."""

    def __init__(self) -> None:
        self._rest: Iterator[dict[str, Value]] | None = None

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, Value]]:
        """Return the next `count` configs that were not known when the search began."""
        if self._rest is None:
            known = {tuple(seen.config[name] for name in space.parameters) for seen in history}
            self._rest = (config for config in space if tuple(config.values()) not in known)
        return list(itertools.islice(self._rest, count))
