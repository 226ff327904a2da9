"""The model beside what others measured: frozen, so that no change of it goes unseen."""

from __future__ import annotations

import itertools

import pytest

from autotune.nki.timing.estimates import Estimate, estimate_trace
from tests.unit.autotune.nki_published import PUBLISHED, Published


@pytest.fixture(scope="module")
def estimates() -> dict[str, Estimate]:
    """Return what the model says of each published kernel."""
    found = {}
    for each in PUBLISHED:
        trace = each.build()
        found[each.name] = estimate_trace(trace, renames=each.renames)
    return found


def test_the_estimates_are_the_frozen_ones(estimates: dict[str, Estimate]) -> None:
    assert {each.name: each.estimated_us for each in PUBLISHED} == {
        name: round(found.us, 1) for name, found in estimates.items()
    }


def error(each: Published) -> float:
    return abs(each.estimated_us / each.us - 1)


def test_products_above_half_of_the_peak_are_within_a_fifth() -> None:
    other = [error(each) for each in PUBLISHED if each.mfu and each.mfu > 50 and not each.used]
    every = [error(each) for each in PUBLISHED if each.mfu and each.mfu > 50]
    assert len(other) >= 6
    assert sum(other) / len(other) <= 0.10
    assert sum(every) / len(every) <= 0.10
    assert max(every) <= 0.20


def test_slower_kernels_are_within_a_factor_of_two_and_say_so(estimates: dict[str, Estimate]) -> None:
    for each in PUBLISHED:
        if each.mfu is None or each.mfu < 50:
            assert 0.5 <= each.estimated_us / each.us <= 2
            assert "low" == estimates[each.name].confidence


def test_pairs_that_differ_by_more_than_a_fifth_are_in_order() -> None:
    pairs = [
        (one, other)
        for one, other in itertools.combinations(PUBLISHED, 2)
        if one.task == other.task and max(one.us, other.us) > 1.2 * min(one.us, other.us)
    ]
    right = [(one.us < other.us) == (one.estimated_us < other.estimated_us) for one, other in pairs]
    assert len(pairs) >= 25
    assert sum(right) >= 0.95 * len(pairs)


def test_the_kernel_whose_loads_are_inside_is_bound_by_dma(estimates: dict[str, Estimate]) -> None:
    assert estimates["kernel_14, loads inside"].bound_by.startswith("DMA")
    assert "tensor" == estimates["hand lhsT_rhs"].bound_by


def test_the_range_covers_the_estimate(estimates: dict[str, Estimate]) -> None:
    for found in estimates.values():
        assert found.low_us <= found.us <= found.high_us
        assert found.by_profile["nominal"] == found.us


def test_a_line_for_people_says_that_nothing_was_run(estimates: dict[str, Estimate]) -> None:
    text = str(estimates["hand lhsT_rhs"])
    assert text.startswith("estimated 238.7 us (")
    assert text.endswith("nothing was run on a NeuronCore")
    assert " ms" not in text
