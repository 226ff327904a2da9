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
        cost: the median time in ms, to be minimized; None if the config failed or is still being measured.
        pending: True while the config is being compiled or measured.
    """

    config: Config
    cost: float | None
    pending: bool = False


class Strategy(Protocol):
    """Choose the next configs from a space and the history of a search.

    Each search makes a new strategy. With the same seed and history a strategy proposes the same configs. It
    never proposes a config twice, one that is in `history`, or one outside `space`. It returns fewer than
    `count` configs only when the space is exhausted. From call to call the history only grows, and a pending
    entry is replaced by its outcome in the same place.
    """

    def propose(
        self, space: SearchSpace, history: Sequence[Observation], count: int
    ) -> list[dict[str, int | float | str | bool]]:
        """Return up to `count` configs to try next."""
        ...
