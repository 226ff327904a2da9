"""What counts as right, and what is said where it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from vector_add import INPUTS, KERNEL

from autotune.model.errors import DataError, UsageError
from autotune.model.kernel import TensorSpec
from autotune.model.tensors import dtype_of, materialize
from autotune.sites.correctness import Golden, Mismatch, regions, tolerance
from autotune.sites.poison import bits, is_poison, word

Array = NDArray[Any]


def golden(values: Any, dtype: str = "float32", terms: int = 1) -> Golden:
    """Return a golden of these values."""
    exact = np.asarray(values, dtype=np.float64)
    finite = exact[np.isfinite(exact)]
    scale = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    allowed = tolerance(exact, np.dtype(dtype), terms, scale)
    return Golden((TensorSpec("out", exact.shape, dtype),), (exact,), (allowed,))


def poisoned(shape: tuple[int, ...], dtype: str = "float32", turn: int = 0) -> Array:
    """Return an output as a candidate finds it."""
    made = np.zeros(shape, dtype)
    bits(made)[...] = word(made.dtype, turn)
    return made


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_bounds_are_the_first_numbers_at_or_beyond_the_tolerance(dtype: str) -> None:
    exact = golden(np.random.default_rng(0).standard_normal(1000), dtype, terms=64)
    (value,), (allowed,), ((least, largest),) = exact.values, exact.tolerances, exact.bounds
    assert (np.dtype(dtype), np.dtype(dtype)) == (least.dtype, largest.dtype)
    for last, outwards in ((least, -np.inf), (largest, np.inf)):
        within = np.nextafter(last, -outwards, dtype=dtype)
        rounding = 1e-15  # of the difference itself, in float64
        assert (np.abs(within - value) <= allowed + rounding).all()
        assert (np.abs(last - value) >= allowed - rounding).all()


def test_arrays_are_the_same_for_the_same_seed() -> None:
    first, again, other = (materialize(replace(INPUTS, seed=seed)) for seed in (1, 1, 2))
    same = [np.array_equal(a, b) for a, b in zip(first, again, strict=True)]
    assert ([True, True], False, False) == (
        same,
        np.array_equal(first[0], other[0]),
        np.array_equal(first[0], first[1]),
    )


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("complex64", "tensor 'a': no tolerance for dtype 'complex64'; use float64, float32,"),
        ("longdouble", "tensor 'a': no tolerance for dtype 'longdouble'; use float64, float32,"),
        ("int4", "tensor 'a': no tolerance for dtype 'int4'; use float64, float32,"),
        ("float31", "tensor 'a': no dtype 'float31' here"),
        ("fp8_e4m3", "tensor 'a': dtype 'fp8_e4m3' has several meanings: float8_e4m3fn (largest 448,"),
    ],
)
def test_a_dtype_without_tolerance_is_refused(dtype: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        dtype_of(TensorSpec("a", (1,), dtype))
    assert str(refusal.value).startswith(message)


def test_nan_in_the_inputs_is_refused() -> None:
    bad = np.zeros(1000, "f4")
    bad[[3, 5]] = np.nan, np.inf
    with pytest.raises(DataError, match="input 'b': 2 of 1000 elements are NaN or Inf"):
        materialize(replace(INPUTS, arrays=(np.zeros(1000, "f4"), bad)))


def test_an_array_that_is_not_what_its_spec_says_is_refused() -> None:
    with pytest.raises(DataError, match=r"input 'a': float64 \(1000,\), its spec float32 \(1000,\)"):
        materialize(replace(INPUTS, arrays=(np.zeros(1000), np.zeros(1000, "f4"))))


def test_a_golden_of_another_shape_is_refused() -> None:
    wrong = replace(KERNEL, golden=lambda a, _b: (a[1:],))
    with pytest.raises(DataError, match=r"kernel 'add': its golden has shapes \[\(999,\)\], its outputs"):
        Golden.of(wrong, INPUTS.specs, materialize(INPUTS))


@pytest.mark.parametrize("terms", [1, 64, 4096])
def test_a_sum_rounded_in_its_own_dtype_is_right_and_a_lost_term_is_not(terms: int) -> None:
    rng = np.random.default_rng(terms)
    left, right = (rng.standard_normal((200, terms)).astype("f4") for _ in range(2))
    products = (left.astype(np.float64) * right).sum(1)
    rounded = np.zeros(200, "f4")
    for k in range(terms):
        rounded = (rounded + left[:, k] * right[:, k]).astype("f4")
    assert golden(products, "float32", terms).compare([rounded]) is None
    lost = products - left[:, 0].astype(np.float64) * right[:, 0]
    found = golden(products, "float32", terms).compare([lost.astype("f4")])
    assert found is not None
    assert found.wrong > 190


def test_nan_and_inf_are_compared_exactly() -> None:
    exact = [np.nan, np.inf, -np.inf, 1.0]
    assert golden(exact).compare([np.array(exact, "f4")]) is None


@pytest.mark.parametrize(
    ("place", "instead"),
    [(0, 1.0), (0, np.inf), (1, 3e38), (1, -np.inf), (1, np.nan), (2, np.inf), (3, np.nan), (3, np.inf)],
)
def test_nan_and_inf_in_the_wrong_place_are_wrong(place: int, instead: float) -> None:
    exact = [np.nan, np.inf, -np.inf, 1.0]
    got = np.array(exact, "f4")
    got[place] = instead
    found = golden(exact).compare([got])
    assert found is not None
    assert (1, (place,)) == (found.wrong, found.worst)


def test_an_unwritten_element_is_wrong_even_where_nan_is_right() -> None:
    got = poisoned((3,))
    got[1:] = np.nan
    found = golden([np.nan] * 3).compare([got])
    assert found is not None
    assert (1, 1, ((0, 1),)) == (found.wrong, found.unwritten, found.regions[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_what_was_never_written_is_seen(dtype: str) -> None:
    for turn in range(2):
        got = poisoned((4, 6), dtype, turn)
        got[:3] = 1
        found = golden(np.ones((4, 6)), dtype).compare([got], turn)
        assert found is not None
        assert (6, 6, (((3, 4), (0, 6)),)) == (found.wrong, found.unwritten, found.regions)


def test_the_report_names_count_worst_element_and_regions() -> None:
    exact = np.ones((8, 8))
    got = exact.astype("f4")
    got[2:4, 5:8] = 2
    got[7, 0] = -9
    found = golden(exact).compare([got])
    allowed = float(tolerance(exact, np.dtype("f4"), 1, 1.0)[0, 0])
    expected = Mismatch(
        output="out",
        wrong=7,
        total=64,
        worst=(7, 0),
        expected=1.0,
        actual=-9.0,
        tolerance=allowed,
        regions=(((2, 4), (5, 8)), ((7, 8), (0, 1))),
    )
    assert expected == found
    assert str(found) == (
        "out: 7 of 64 elements wrong; worst at [7, 0]: expected 1, got -9, allowed ±1.91e-06; "
        "in [2:4, 5:8] [7:8, 0:1]"
    )


def test_a_nan_is_worse_than_any_number() -> None:
    got = np.array([5e30, np.nan, 0.0], "f4")
    found = golden([0.0, 0.0, 0.0]).compare([got])
    assert found is not None
    assert (1,) == found.worst


def test_integers_must_be_exact() -> None:
    found = golden([1000, 2000], "int32").compare([np.array([1000, 2001], "i4")])
    assert found is not None
    assert (1, 0.0) == (found.wrong, found.tolerance)


def test_a_scalar_output_is_compared_too() -> None:
    found = golden(3.0).compare([np.array(4.0, "f4")])
    assert found is not None
    assert ((), ((),)) == (found.worst, found.regions)


def test_the_second_output_is_compared_too() -> None:
    two = golden([1.0])
    both = Golden(two.specs * 2, two.values * 2, two.tolerances * 2)
    right, wrong = np.ones(1, "f4"), np.zeros(1, "f4")
    assert both.compare([right, right]) is None
    assert both.compare([right, wrong]) is not None


def test_only_the_poisons_own_bits_are_poison() -> None:
    both = np.concatenate([poisoned((1,)), np.array([np.nan], "f4")])
    assert [True, False] == is_poison(both, 0).tolist()


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))))
def test_regions_hold_every_wrong_element_and_are_few(wrong: NDArray[np.bool_]) -> None:
    covered = np.zeros_like(wrong)
    for box in regions(wrong):
        covered[tuple(slice(*bounds) for bounds in box)] = True
    assert (True, True) == (bool((covered >= wrong).all()), len(regions(wrong)) <= 8)


@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(1, 5))
def test_one_block_is_one_region(top: int, height: int, left: int, width: int) -> None:
    wrong = np.zeros((12, 12), bool)
    wrong[top : top + height, left : left + width] = True
    assert (((top, top + height), (left, left + width)),) == regions(wrong)
