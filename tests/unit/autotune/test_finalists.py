"""Finalists take turns until what is known of them is steady."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from autotune.model.trial import Status
from autotune.sites.site import RunOutcome
from autotune.tuning.confirm import MOST_TURNS, TURNS, take_turns


class Program:
    """A program whose medians are known beforehand; counts how often it was run, and when."""

    def __init__(self, medians_ms: Iterable[float], clock: Iterable[int] = itertools.count()) -> None:
        self.medians_ms = itertools.cycle(medians_ms)
        self.clock = iter(clock)
        self.ran_at: list[int] = []

    def __call__(self) -> RunOutcome:
        """Run once."""
        self.ran_at.append(next(self.clock))
        return RunOutcome(Status.OK, samples_ms=(next(self.medians_ms),))


def turns_of(*programs: Program, baselines: tuple[Program, ...] = (), max_s: float = 10) -> list[int]:
    """Let programs take turns; return how many each had."""
    return [len(turns) for turns in take_turns(programs, baselines, lambda: None, max_s)]


def test_steady_programs_take_as_many_turns_as_bound_a_median() -> None:
    assert [TURNS, TURNS] == turns_of(Program([1.0, 1.01]), Program([5.0]))


def test_one_that_is_not_steady_gives_all_more_turns() -> None:
    assert [MOST_TURNS, MOST_TURNS] == turns_of(Program([1.0, 1.2, 1.4]), Program([5.0]))


def test_a_reading_off_now_and_then_needs_a_few_more() -> None:
    first, second = turns_of(Program([1.4, *[1.0] * 30]), Program([5.0]))
    assert first == second
    assert TURNS < first < MOST_TURNS


def test_the_baselines_may_be_as_unsteady_as_they_like() -> None:
    assert [TURNS, TURNS] == turns_of(Program([1.0]), baselines=(Program([1.0, 9.0]),))


def test_the_time_of_all_turns_is_bounded() -> None:
    assert [TURNS + 2] == turns_of(Program([10.0, 20.0]), max_s=0.115)


def test_who_fails_has_no_further_turn() -> None:
    failed = RunOutcome(Status.TIMEOUT, "did not return within 30 s")
    outcomes = take_turns([lambda: failed, Program([1.0])], (), lambda: None, 10)
    assert [[failed], TURNS] == [outcomes[0], len(outcomes[1])]


def test_memory_is_placed_anew_for_each_turn_and_turns_go_to_and_fro() -> None:
    clock = itertools.count()
    first, second, placed = Program([1.0], clock), Program([1.0], clock), list[int]()
    take_turns([first, second], (), lambda: placed.append(next(clock)), 10)
    assert [0, 3, 6, 9, 12, 15] == placed
    assert ([1, 5, 7, 11, 13, 17], [2, 4, 8, 10, 14, 16]) == (first.ran_at, second.ran_at)
