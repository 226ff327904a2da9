"""A search space holds what its constraints allow, and can be listed, sampled and walked without waste."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.errors import UsageError
from autotune.model.space import Config, Constraint, SearchSpace, Value, nearest


def fits(config: Config) -> bool:
    return int(config["block"]) * int(config["unroll"]) <= 16


def rule(function: Callable[..., bool]) -> Constraint:
    """Return a constraint; values in it are of any type."""
    return function


def space() -> SearchSpace:
    return SearchSpace({"block": [4, 8, 16], "unroll": [1, 2, 4], "order": ["MN", "NM"]}, (fits,))


def digits(count: int) -> dict[str, list[Value]]:
    return {f"p{i}": list(range(10)) for i in range(count)}


def test_lists_every_valid_config_with_the_last_parameter_varying_fastest() -> None:
    assert [
        (4, 1, "MN"),
        (4, 1, "NM"),
        (4, 2, "MN"),
        (4, 2, "NM"),
        (4, 4, "MN"),
        (4, 4, "NM"),
        (8, 1, "MN"),
        (8, 1, "NM"),
        (8, 2, "MN"),
        (8, 2, "NM"),
        (16, 1, "MN"),
        (16, 1, "NM"),
    ] == [tuple(config.values()) for config in space()]


def test_a_space_without_parameters_holds_one_config() -> None:
    assert ([{}], 1) == (list(SearchSpace({})), len(SearchSpace({})))


def test_counts_its_configs_and_lists_them_alike_before_and_after() -> None:
    listed = space()
    before = list(map(dict, listed))
    assert 12 == len(listed)
    assert before == list(listed)
    assert before == [listed.config(code) for code in listed.codes.tolist()]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rules=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(0, 2)), max_size=3
    ),
)
def test_pruning_never_changes_what_is_listed(
    sizes: list[int], rules: list[tuple[int, int, int, int]]
) -> None:
    names = [f"p{i}" for i in range(len(sizes))]

    def refuse(a: int, b: int, modulus: int, rest: int) -> Constraint:
        first, second = names[a % len(names)], names[b % len(names)]
        return rule(lambda config: config[first] < 2 or (config[first] + config[second]) % modulus != rest)

    constraints = tuple(refuse(*each) for each in rules)
    pruned = SearchSpace(
        {name: list(range(size)) for name, size in zip(names, sizes, strict=True)}, constraints
    )
    configs = [dict(zip(names, values, strict=True)) for values in itertools.product(*map(range, sizes))]
    assert [config for config in configs if all(allows(config) for allows in constraints)] == list(pruned)


@pytest.mark.parametrize(
    "allows",
    [
        rule(lambda config: sum(config.values()) == 3),
        rule(lambda config: len(config) == 3 and config.get("p0", 9) == 1),
        rule(lambda config: dict(config) != {} and "p2" in config and config["p2"] == 2),
        rule(lambda config: {**config}["p1"] == 4),
    ],
)
def test_a_constraint_may_read_the_config_in_any_way(allows: Constraint) -> None:
    parameters = digits(3)
    configs = [dict(zip(parameters, each, strict=True)) for each in itertools.product(range(10), repeat=3)]
    assert [config for config in configs if allows(config)] == list(SearchSpace(parameters, (allows,)))


def test_a_space_far_smaller_than_its_product_is_listed_at_once() -> None:
    def alike(a: str, b: str) -> Constraint:
        return rule(lambda config: config[a] == config[b])

    chained = tuple(alike(f"p{i}", f"p{i + 1}") for i in range(11))
    assert 10 == len(SearchSpace(digits(12), chained))


def test_knows_which_configs_it_holds() -> None:
    asked: list[object] = [
        {"block": 4, "unroll": 4, "order": "MN"},
        {"order": "MN", "unroll": 4, "block": 4},
        {"block": 8, "unroll": 4, "order": "MN"},
        {"block": 5, "unroll": 1, "order": "MN"},
        {"block": 4, "unroll": 4},
        {"block": 4, "unroll": 4, "order": "MN", "pack": 1},
        "block",
    ]
    assert [True, True, False, False, False, False, False] == [config in space() for config in asked]


def test_is_false_where_the_constraints_refuse_all() -> None:
    assert (True, False) == (bool(space()), bool(SearchSpace({"a": [1]}, (lambda _config: False,))))


def test_neighbours_differ_in_one_parameter_and_come_nearest_first() -> None:
    config: dict[str, Value] = {"block": 4, "unroll": 2, "order": "MN"}
    found = [tuple(near.values()) for near in space().neighbours(config)]
    assert [(8, 2, "MN"), (4, 1, "MN"), (4, 4, "MN"), (4, 2, "NM")] == found
    far = SearchSpace(digits(1))
    assert [4, 6, 3, 7, 2, 8, 1, 9, 0] == [near["p0"] for near in far.neighbours({"p0": 5})]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"block": 4, "unrol": 2, "order": "MN"}, "no parameter 'unrol'; did you mean 'unroll'?"),
        ({"block": 4, "order": "MN"}, r"unroll=None is none of \[1, 2, 4\]"),
        ({"block": 5, "unroll": 2, "order": "MN"}, r"block=5 is none of \[4, 8, 16\]"),
    ],
)
def test_a_config_of_another_space_is_refused_with_what_is_wrong(
    config: dict[str, Value], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        space().indices(config)


@pytest.mark.parametrize("values", [[], "abc", [1, 1], [1, True]])
def test_values_that_cannot_be_searched_are_refused(values: list[Value]) -> None:
    with pytest.raises(UsageError, match="search space: parameter 'block'"):
        SearchSpace({"block": values})


def test_a_constraint_that_asks_for_an_unknown_parameter_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="constraint <lambda> asks for 'blok'; did you mean 'block'"):
        list(SearchSpace({"block": [1, 2], "unroll": [1, 2]}, (lambda config: config["blok"] == 1,)))


def test_a_constraint_that_fails_is_named_with_the_config() -> None:
    with pytest.raises(UsageError, match=r"constraint <lambda> fails on \{'a': 0\}: ZeroDivisionError"):
        list(SearchSpace({"a": [0]}, (rule(lambda config: 1 / config["a"] > 0),)))


@pytest.mark.parametrize("count", [0, 1, 5, 12, 99])
def test_samples_are_distinct_valid_and_the_same_under_a_seed(count: int) -> None:
    sample = space().sample(random.Random(1), count)
    assert min(count, 12) == len(sample) == len({tuple(config.values()) for config in sample})
    assert sample == space().sample(random.Random(1), count)
    assert [] == [config for config in sample if config not in space()]


def test_a_space_too_large_to_list_is_sampled_all_the_same() -> None:
    vast = SearchSpace(digits(30), (rule(lambda config: config["p0"] < config["p1"]),))
    sample = vast.sample(random.Random(0), 50)
    assert 50 == len({tuple(config.values()) for config in sample})
    assert [] == [config for config in sample if config not in vast]


def test_a_vast_space_of_few_configs_is_sampled_by_walking_it() -> None:
    def narrow_to(name: str) -> Constraint:
        return rule(lambda config: config[name] in (3, 4))

    narrow = SearchSpace(digits(12), tuple(narrow_to(f"p{i}") for i in range(12)))
    sample = narrow.sample(random.Random(0), 20)
    assert 20 == len({tuple(config.values()) for config in sample})
    assert [] == [config for config in sample if config not in narrow]


def test_names_the_nearest_of_what_is_known() -> None:
    assert "; did you mean 'unroll'? Known: block, unroll." == nearest("unrol", ["block", "unroll"])
    assert ". Known: block, unroll." == nearest("xyz", ["block", "unroll"])
