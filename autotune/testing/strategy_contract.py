"""What every search strategy must do, whatever the space, the failures and the configs in flight."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from autotune.model.space import Config, SearchSpace, Value
from autotune.search import Observation, Strategy

Make = Callable[[int], Strategy]
"""Seed -> strategy."""
Key = tuple[Value, ...]


def fits(config: Config) -> bool:
    """Return whether a config is in the small space."""
    return int(config["block"]) * int(config["unroll"]) <= 64


def small() -> SearchSpace:
    """Return a space of 52 configs."""
    return SearchSpace(
        {"block": [4, 8, 16, 32], "unroll": [1, 2, 4, 8], "order": ["MNK", "KMN"], "pack": [False, True]},
        (fits,),
    )


def vast() -> SearchSpace:
    """Return a product of 10^8 of which three configs in four are refused."""
    sums_even = [
        lambda config: (config["p0"] + config["p1"]) % 2 == 0,
        lambda config: (config["p2"] + config["p3"]) % 2 == 0,
    ]
    return SearchSpace({f"p{i}": list(range(10)) for i in range(8)}, tuple(sums_even))


def cost(config: Config) -> float | None:
    """Return a cost with one optimum, in a corner of which every config fails."""
    values = [value if isinstance(value, int) else len(str(value)) for value in config.values()]
    if values[0] == 32 and values[1] >= 2:
        return None
    return 1.0 + sum((math.log2(value + 1) - 2.5) ** 2 for value in values)


def key(config: Config) -> Key:
    """Return a config's values."""
    return tuple(config.values())


def run(strategy: Strategy, space: SearchSpace, rounds: int, count: int = 1) -> Iterator[Config]:
    """Search, with every round measured before the next."""
    history: list[Observation] = []
    for _ in range(rounds):
        for config in strategy.propose(space, history, count):
            history.append(Observation(config, cost(config)))
            yield config


class StrategyContract:
    """Inherit from it, and define the fixture `make`: it makes a strategy of a seed.

    class TestMine(StrategyContract):
        @pytest.fixture
        def make(self) -> Callable[[int], Strategy]:
            return MyStrategy
    """

    @pytest.mark.parametrize("count", [1, 3, 200])
    def test_proposes_each_config_of_the_space_once_and_then_none(self, make: Make, count: int) -> None:
        """Nothing is left out, nothing is proposed twice."""
        proposed = list(run(make(1), small(), rounds=100, count=count))
        assert sorted(map(repr, small())) == sorted(map(repr, proposed))

    def test_proposes_as_many_as_it_is_asked_for_until_the_space_ends(self, make: Make) -> None:
        """Fewer only at the end."""
        strategy, history = make(0), list[Observation]()
        sizes = []
        for _ in range(9):
            proposed = strategy.propose(small(), history, 7)
            sizes.append(len(proposed))
            history += [Observation(config, cost(config)) for config in proposed]
        assert [7] * 7 + [3, 0] == sizes

    def test_is_the_same_under_the_same_seed(self, make: Make) -> None:
        """A search can be repeated."""
        assert list(run(make(5), small(), 30)) == list(run(make(5), small(), 30))

    def test_never_proposes_what_the_history_held_before_it_began(self, make: Make) -> None:
        """Earlier runs count."""
        known = random.Random(0).sample(list(small()), 25)
        history = [Observation(config, cost(config)) for config in known]
        proposed = make(0).propose(small(), history, 100)
        assert sorted(repr(config) for config in small() if config not in known) == sorted(
            map(repr, proposed)
        )

    def test_takes_no_notice_of_history_from_outside_the_space(self, make: Make) -> None:
        """Other spaces of the kernel do not count."""
        history = [
            Observation({"block": 5, "unroll": 1, "order": "MNK", "pack": True}, 1.0),
            Observation({"colour": "red"}, 2.0),
        ]
        assert len(list(small())) == len(make(0).propose(small(), history, 100))

    @pytest.mark.parametrize("flight", [1, 4, 9])
    def test_proposes_nothing_twice_while_configs_are_in_flight(self, make: Make, flight: int) -> None:
        """In whatever order they end."""
        rng, strategy = random.Random(3), make(2)
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
    def test_exhausts_a_space_where_every_config_ends_alike(self, make: Make, outcome: float | None) -> None:
        """Even if all fail."""
        strategy, history = make(0), list[Observation]()
        while proposed := strategy.propose(small(), history, 1):
            history.append(Observation(proposed[0], outcome))
        assert len(small()) == len({key(seen.config) for seen in history}) == len(history)

    def test_searches_a_space_too_large_to_list(self, make: Make) -> None:
        """It samples."""
        space = vast()
        proposed = list(run(make(0), space, rounds=30, count=2))
        assert 60 == len({key(config) for config in proposed})
        assert [] == [config for config in proposed if config not in space]

    def test_ends_a_space_of_one_config(self, make: Make) -> None:
        """And proposes that one."""
        space = SearchSpace({"block": [4]})
        assert [{"block": 4}] == list(run(make(0), space, rounds=3))
