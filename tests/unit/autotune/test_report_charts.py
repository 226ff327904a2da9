"""What the charts are made of: numbers as one reads them, round ticks, and honest statistics."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len

from autotune.model.space import Value
from autotune.model.trial import Metrics, Status, Trial
from autotune.report.scale import Scale, spanning
from autotune.report.scene import fit
from autotune.report.spread import Effect, Spread, effects, spread
from autotune.report.units import duration, elapsed, figures, interval, ratio


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (2.22e-5, "22.2 ns"),
        (0.00999, "9.99 µs"),
        (0.0312, "31.2 µs"),
        (0.1, "0.100 ms"),
        (4.123, "4.12 ms"),
        (999.4, "999 ms"),
        (1300, "1.30 s"),
    ],
)
def test_a_time_is_written_in_the_unit_that_fits(milliseconds: float, text: str) -> None:
    assert text == duration(milliseconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 00 s"), (192, "3 min 12 s"), (7500, "2 h 05 min")],
)
def test_a_duration_is_written_as_one_says_it(seconds: float, text: str) -> None:
    assert text == elapsed(seconds)


def test_numbers_have_three_figures() -> None:
    assert ["0", "0.00123", "1.23", "12.3", "123", "12346"] == [
        figures(number) for number in (0, 0.001234, 1.234, 12.34, 123.4, 12345.6)
    ]
    assert ["1.32×", "12.4×"] == [ratio(1.321), ratio(12.37)]
    assert ["27.1–27.6 ms", "99.0 µs–0.101 ms"] == [interval(27.1, 27.6), interval(0.099, 0.101)]


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 47, 0, 1), ["0", "10", "20", "30", "40"]),
        (Scale(0, 3, 0, 1, whole=True), ["0", "1", "2", "3"]),
        (Scale(0.9, 5.2, 0, 1, log=True), ["1", "2", "3", "5"]),
        (Scale(0.02, 30, 0, 1, log=True), ["0.1", "1", "10"]),
        (Scale(1, 1.4, 0, 1, log=True), ["1", "1.1", "1.2", "1.3", "1.4"]),
        (Scale(1e-9, 1e9, 0, 1, log=True), ["1e-9", "1e-5", "0.1", "1000", "1e7"]),
    ],
)
def test_ticks_are_round(scale: Scale, ticks: list[str]) -> None:
    assert ticks == [label for _, label in scale.ticks()]


positive = st.floats(1e-12, 1e12)


@given(st.lists(positive, min_size=1), st.booleans())
def test_an_axis_holds_its_values_and_its_ticks(values: list[float], log: bool) -> None:
    scale = spanning(values, 10, 110, log=log)

    assert all(10 <= scale(value) <= 110 for value in values)
    assert all(10 <= scale(value) <= 110 for value, _ in scale.ticks())
    assert len(scale.ticks()) <= 12


@given(st.lists(positive, min_size=1))
def test_a_spread_is_in_order_and_made_of_its_values(values: list[float]) -> None:
    here = spread(values)

    assert here.low <= here.quarter <= here.middle <= here.three_quarters <= here.high
    assert {here.low, here.quarter, here.middle, here.three_quarters, here.high} <= set(values)


def test_a_spread_is_the_percentiles() -> None:
    assert Spread(100, 6, 26, 51, 76, 96) == spread(range(1, 101))


def trial(median_ms: float | None, **config: Value) -> Trial:
    reading = Metrics(*[median_ms] * 5, 1, 0, 1.0, 1.0, 1.0) if median_ms else None
    return Trial(config, Status.OK if reading else Status.CRASH, "", "", metrics=reading)


def test_the_effect_of_a_parameter_is_what_it_explains_alone() -> None:
    trials = [trial(1, a=1, b="x", c=0), trial(1, a=1, b="y", c=0), trial(4, a=2, b="x", c=0)]
    trials += [trial(4, a=2, b="y", c=0), trial(None, a=2, b="y", c=0)]

    assert [
        Effect("a", 1.0, {1: [1, 1], 2: [4, 4]}, {2: 1}),
        Effect("b", 0.0, {"x": [1, 4], "y": [1, 4]}, {"y": 1}),
    ] == effects(trials)


@given(st.text(), st.floats(20, 400))
def test_a_text_is_cut_to_its_room(text: str, width: float) -> None:
    assume(text.isprintable())

    shown = fit(text, width)

    assert shown == text or (shown.endswith("…") and cell_len(shown) <= width / 7.2)
