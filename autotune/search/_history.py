"""What a strategy remembers of the history, so that it reads each entry only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.model.space import Config, SearchSpace, Value
from autotune.search._base import Observation

Key = tuple[Value | None, ...]


class Tried:
    """The configs in a history."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._read = 0

    def read(self, space: SearchSpace, history: Sequence[Observation]) -> None:
        """Read the entries that were appended since the last call."""
        self._keys.update(key(space, seen.config) for seen in history[self._read :])
        self._read = len(history)

    def claim(self, space: SearchSpace, config: Config) -> bool:
        """Mark a config as tried; return whether it was new."""
        values = key(space, config)
        new = values not in self._keys
        self._keys.add(values)
        return new


class Settled:
    """The outcomes in a history."""

    def __init__(self) -> None:
        self._read = 0
        self._open: list[int] = []

    def read(self, history: Sequence[Observation]) -> Iterator[Observation]:
        """Return the entries that ended since the last call."""
        places = [*self._open, *range(self._read, len(history))]
        self._read = len(history)
        self._open = [place for place in places if history[place].pending]
        return (history[place] for place in places if not history[place].pending)

    def pending(self, history: Sequence[Observation]) -> list[Config]:
        """Return the configs that were still pending at the last call of `read`."""
        return [history[place].config for place in self._open]


def key(space: SearchSpace, config: Config) -> Key:
    """Return a config's values in the space's order, as a key that is equal for equal configs."""
    return tuple(map(config.get, space.parameters))
