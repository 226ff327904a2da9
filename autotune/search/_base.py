"""The one interface of a search strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autotune.model.space import Config, SearchSpace


@dataclass(frozen=True)
class Observation:
    """What is known of a config that was proposed.

    Args:
        config: the config.
        cost: what is minimized (median time in ms); None where the config failed or is still being measured.
        pending: True while it is being compiled or measured.
    """

    config: Config
    cost: float | None
    pending: bool = False


class Strategy(Protocol):
    """(space, history) -> the next configs.

    A strategy is made anew for each search, is deterministic under its seed, never proposes a config that it
    proposed before, that is in `history`, or that is outside `space`, and returns fewer than `count` configs
    (at last none) only when the space is exhausted. From call to call the history only grows, and its pending
    entries settle where they stand.
    """

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, int | float | str | bool]]:
        """Return up to `count` configs to try next."""
        ...
