"""Every strategy keeps one contract, whatever the space, the failures and the configs in flight."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from autotune import search
from autotune.model.errors import UsageError
from autotune.model.space import Config, SearchSpace, Value
from autotune.search import Bayesian, Observation, Strategy

Key = tuple[Value, ...]


def fits(config: Config) -> bool:
    return int(config["block"]) * int(config["unroll"]) <= 64


def small() -> SearchSpace:
    return SearchSpace(
        {"block": [4, 8, 16, 32], "unroll": [1, 2, 4, 8], "order": ["MNK", "KMN"], "pack": [False, True]},
        (fits,),
    )


def vast() -> SearchSpace:
    """A product of 10^8 of which three configs in four are refused."""
    sums_even = [
        lambda config: (config["p0"] + config["p1"]) % 2 == 0,
        lambda config: (config["p2"] + config["p3"]) % 2 == 0,
    ]
    return SearchSpace({f"p{i}": list(range(10)) for i in range(8)}, tuple(sums_even))


def cost(config: Config) -> float | None:
    """A cost with one optimum, in a corner of which every config fails."""
    values = [value if isinstance(value, int) else len(str(value)) for value in config.values()]
    if values[0] == 32 and values[1] >= 2:
        return None
    return 1.0 + sum((math.log2(value + 1) - 2.5) ** 2 for value in values)


def key(config: Config) -> Key:
    return tuple(config.values())


def run(strategy: Strategy, space: SearchSpace, rounds: int, count: int = 1) -> Iterator[Config]:
    """Search with every round measured before the next."""
    history: list[Observation] = []
    for _ in range(rounds):
        for config in strategy.propose(space, history, count):
            history.append(Observation(config, cost(config)))
            yield config


@pytest.mark.parametrize("name", search.STRATEGIES)
class TestEveryStrategy:
    @pytest.mark.parametrize("count", [1, 3, 200])
    def test_proposes_each_config_of_the_space_once_and_then_none(self, name: str, count: int) -> None:
        proposed = list(run(search.get(name, seed=1), small(), rounds=100, count=count))
        assert sorted(map(repr, small())) == sorted(map(repr, proposed))

    def test_proposes_as_many_as_it_is_asked_for_until_the_space_ends(self, name: str) -> None:
        strategy, history = search.get(name), list[Observation]()
        sizes = []
        for _ in range(9):
            proposed = strategy.propose(small(), history, 7)
            sizes.append(len(proposed))
            history += [Observation(config, cost(config)) for config in proposed]
        assert [7] * 7 + [3, 0] == sizes

    def test_is_the_same_under_the_same_seed(self, name: str) -> None:
        assert list(run(search.get(name, 5), small(), 30)) == list(run(search.get(name, 5), small(), 30))

    def test_never_proposes_what_the_history_held_before_it_began(self, name: str) -> None:
        known = random.Random(0).sample(list(small()), 25)
        history = [Observation(config, cost(config)) for config in known]
        proposed = search.get(name).propose(small(), history, 100)
        assert sorted(repr(config) for config in small() if config not in known) == sorted(
            map(repr, proposed)
        )

    def test_takes_no_notice_of_history_from_outside_the_space(self, name: str) -> None:
        history = [
            Observation({"block": 5, "unroll": 1, "order": "MNK", "pack": True}, 1.0),
            Observation({"colour": "red"}, 2.0),
        ]
        assert len(list(small())) == len(search.get(name).propose(small(), history, 100))

    @pytest.mark.parametrize("flight", [1, 4, 9])
    def test_proposes_nothing_twice_while_configs_are_in_flight(self, name: str, flight: int) -> None:
        rng, strategy = random.Random(3), search.get(name, seed=2)
        history: list[Observation] = []
        open_places: list[int] = []
        while len(history) < len(small()) or open_places:
            for config in strategy.propose(small(), history, flight - len(open_places)):
                open_places.append(len(history))
                history.append(Observation(config, None, pending=True))
            done = open_places.pop(rng.randrange(len(open_places)))
            history[done] = Observation(history[done].config, cost(history[done].config))
        assert sorted(map(repr, small())) == sorted(repr(seen.config) for seen in history)

    @pytest.mark.parametrize("outcome", [None, 1.0, 1e-9])
    def test_exhausts_a_space_where_every_config_ends_alike(self, name: str, outcome: float | None) -> None:
        strategy, history = search.get(name), list[Observation]()
        while proposed := strategy.propose(small(), history, 1):
            history.append(Observation(proposed[0], outcome))
        assert len(small()) == len({key(seen.config) for seen in history}) == len(history)

    def test_searches_a_space_too_large_to_list(self, name: str) -> None:
        space = vast()
        proposed = list(run(search.get(name), space, rounds=30, count=2))
        assert 60 == len({key(config) for config in proposed})
        assert [] == [config for config in proposed if config not in space]

    def test_ends_a_space_of_one_config(self, name: str) -> None:
        space = SearchSpace({"block": [4]})
        assert [{"block": 4}] == list(run(search.get(name), space, rounds=3))


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
