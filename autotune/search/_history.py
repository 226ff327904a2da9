"""What a strategy remembers of a history, so that each entry is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.model.space import Config, SearchSpace, Value
from autotune.search._base import Observation

Key = tuple[Value | None, ...]


class Tried:
    """The configs that a history holds."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._read = 0

    def read(self, space: SearchSpace, history: Sequence[Observation]) -> None:
        """Take in what was appended to the history since the last call."""
        self._keys.update(key(space, seen.config) for seen in history[self._read :])
        self._read = len(history)

    def claim(self, space: SearchSpace, config: Config) -> bool:
        """Say whether a config is new, and hold it for tried from now on."""
        mine = key(space, config)
        new = mine not in self._keys
        self._keys.add(mine)
        return new


class Settled:
    """The outcomes that a history holds."""

    def __init__(self) -> None:
        self._read = 0
        self._open: list[int] = []

    def read(self, history: Sequence[Observation]) -> Iterator[Observation]:
        """Yield the entries that have settled since the last call."""
        places = [*self._open, *range(self._read, len(history))]
        self._read = len(history)
        self._open = [place for place in places if history[place].pending]
        return (history[place] for place in places if not history[place].pending)

    def pending(self, history: Sequence[Observation]) -> list[Config]:
        """Return the configs that had not settled when last read."""
        return [history[place].config for place in self._open]


def key(space: SearchSpace, config: Config) -> Key:
    """Return a config's values in the space's order, to compare configs by."""
    return tuple(map(config.get, space.parameters))
