"""Strategies: which configs to try next. `get` makes one by name; `DEFAULT` finds good configs soonest."""

from __future__ import annotations

from collections.abc import Callable

from autotune.model.errors import UsageError
from autotune.model.space import nearest
from autotune.search._base import Observation, Strategy
from autotune.search.bayesian import Bayesian
from autotune.search.exhaustive import Exhaustive
from autotune.search.random import Random

DEFAULT = "bayesian"  # `benchmarks/search.py` shows why
STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "bayesian": Bayesian,
    "exhaustive": Exhaustive,
    "random": Random,
}


def get(name: str = DEFAULT, seed: int = 0) -> Strategy:
    """Make the named strategy, for one search.

    Args:
        name: `bayesian`, `exhaustive` or `random`.
        seed: of its random numbers.

    Raises:
        UsageError: no strategy has this name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"search: no strategy {name!r}{nearest(name, STRATEGIES)}")
    return STRATEGIES[name](seed)


__all__ = ["DEFAULT", "STRATEGIES", "Bayesian", "Exhaustive", "Observation", "Random", "Strategy", "get"]
