"""Every strategy keeps one contract; ours find the best soon."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest

from autotune import search
from autotune.model.errors import UsageError
from autotune.model.space import Config, SearchSpace
from autotune.search import Bayesian, Observation
from autotune.testing import StrategyContract
from autotune.testing.strategy_contract import Make, cost, key


class TestEveryStrategy(StrategyContract):
    """Those that have a name."""

    @pytest.fixture(params=search.STRATEGIES)
    def make(self, request: pytest.FixtureRequest) -> Make:
        """Make one by its name."""
        return functools.partial(search.get, request.param)


def evaluations_to(best: Config, space: SearchSpace, cost: Callable[[Config], float | None]) -> int:
    """Return the most evaluations that Bayesian search needs for the best config, over five seeds."""
    most = 0
    for seed in range(5):
        history: list[Observation] = []
        strategy = Bayesian(seed)
        while not history or history[-1].config != best:
            (config,) = strategy.propose(space, history, 1)
            history.append(Observation(config, cost(config)))
        most = max(most, len(history))
    return most


def test_bayesian_search_finds_the_best_of_4096_smooth_costs_within_60_evaluations() -> None:
    space = SearchSpace({f"p{i}": list(range(8)) for i in range(4)})
    best = {"p0": 5, "p1": 5, "p2": 5, "p3": 5}
    assert evaluations_to(best, space, cost) <= 60


def test_bayesian_search_finds_the_best_of_400_costs_next_to_a_region_where_all_fail() -> None:
    space = SearchSpace({"a": list(range(20)), "b": list(range(20))})

    def faster_until_it_fails(config: Config) -> float | None:
        a, b = int(config["a"]), int(config["b"])
        return None if a > 9 else 40.0 - a - b

    assert evaluations_to({"a": 9, "b": 19}, space, faster_until_it_fails) <= 60


def test_bayesian_search_follows_configs_that_another_tuner_measured() -> None:
    space = SearchSpace({f"p{i}": list(range(8)) for i in range(4)})
    strategy, history = Bayesian(seed=0), list[Observation]()
    others = iter(random.Random(1).sample(list(space), len(space)))
    for _ in range(100):
        (config,) = strategy.propose(space, history, 1)
        history.append(Observation(config, cost(config)))
        other = next(config for config in others if config not in [seen.config for seen in history])
        history.append(Observation(other, cost(other)))
    assert 200 == len({key(seen.config) for seen in history})


def test_an_unknown_strategy_is_named_beside_the_nearest() -> None:
    with pytest.raises(UsageError, match="no strategy 'baysian'; did you mean 'bayesian'"):
        search.get("baysian")
