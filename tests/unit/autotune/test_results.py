import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.trial import Metrics, Status, Trial
from autotune.store.results import ranking


def metrics(median, half=0.0):
    return Metrics(median, median, median, median - half, median + half, 5, 0, 1.0, 1.0, 1.0)


def trial(name, first, confirmed=None, half=0.1, status=Status.OK):
    reading = metrics(first) if status is Status.OK else None
    again = None if confirmed is None else metrics(confirmed, half)
    return Trial({}, status, name, name, metrics=reading, confirmed=again)


def chosen(*trials, lengths=None):
    shuffled = random.sample(trials, len(trials))
    ranked = ranking(shuffled, lambda identity: (lengths or {}).get(identity, 0))
    return (
        ranked.best and ranked.best.path,
        [each.path for each in ranked.ties],
        [each.path for each in ranked.trials],
    )


def test_a_first_reading_never_beats_a_confirmed_one():
    assert ("sober", [], ["sober", "lucky"]) == chosen(trial("lucky", 1.0), trial("sober", 1.5, 2.0))


def test_the_confirmed_reading_counts_not_the_first():
    assert ("b", [], ["b", "a"]) == chosen(trial("a", 1.0, 3.0), trial("b", 2.0, 2.0))


def test_of_two_that_overlap_within_2_percent_the_shorter_source_is_used():
    trials = trial("long", 1.0, 1.0), trial("short", 1.0, 1.015), trial("far", 1.0, 1.05)
    assert ("short", ["long"], ["short", "long", "far"]) == chosen(
        *trials, lengths={"long": 20, "short": 10, "far": 1}
    )


def test_among_equally_long_ties_the_fastest_is_used():
    assert ("a", ["b"], ["a", "b"]) == chosen(trial("b", 1.0, 1.01), trial("a", 1.0, 1.0))


def test_without_confirmation_the_least_first_reading_is_used():
    assert ("a", [], ["a", "b"]) == chosen(trial("b", 2.0), trial("a", 1.0))


def test_failures_come_last_and_are_never_used():
    failed = trial("x", 0.0, status=Status.CRASH)
    assert ("a", [], ["a", "x"]) == chosen(failed, trial("a", 1.0))
    assert (None, [], ["x"]) == chosen(failed)
    assert (None, [], []) == chosen()


READINGS = st.floats(0.001, 1000)


@given(
    st.lists(
        st.tuples(READINGS, st.none() | READINGS, st.sampled_from([Status.OK, Status.CRASH])), max_size=12
    )
)
def test_ranking_loses_no_trial_and_its_ties_overlap_the_winner(drawn):
    trials = [
        trial(str(n), first, confirmed if status is Status.OK else None, status=status)
        for n, (first, confirmed, status) in enumerate(drawn)
    ]
    ranked = ranking(trials, lambda identity: int(identity) % 3)
    assert sorted(each.path for each in trials) == sorted(each.path for each in ranked.trials)
    assert (ranked.best is None) == all(each.status is not Status.OK for each in trials)
    confirmed = [each.confirmed for each in trials if each.confirmed]
    if confirmed:
        winner = min(confirmed, key=lambda reading: reading.median_ms)
        assert all(each.confirmed.ci95_low_ms <= winner.ci95_high_ms for each in [ranked.best, *ranked.ties])


def test_a_trial_comes_back_from_its_plain_form():
    whole = Trial(
        {"a": 1}, Status.OK, "id", "a=1", 3, "", metrics(1.0), metrics(2.0), 0.1, "2026-01-01", (1.0, 2.0)
    )
    for each in (whole, trial("x", 1.0, status=Status.TIMEOUT)):
        assert each == Trial.from_dict(each.to_dict())


@pytest.mark.parametrize(
    "damage", [{"status": "great"}, {"metrics": {"x": 1}}, {"more": 1}, {"samples_ms": 3}]
)
def test_what_is_no_trial_is_refused(damage):
    with pytest.raises((TypeError, ValueError, KeyError)):
        Trial.from_dict({**trial("a", 1.0).to_dict(), **damage})
