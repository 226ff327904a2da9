"""Each dtype is drawn, poisoned and compared by its own rules, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tuned import BRIEF
from vector_add import KERNEL

from autotune import SearchSpace, Status, tune
from autotune.model.errors import UsageError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.tensors import FLOATS, Kind, dtype_of, format_of, is_float, kind_of, materialize
from autotune.model.workload import workload, workload_label
from autotune.sites.correctness import Golden, rules
from autotune.sites.poison import TURNS, bits, is_poison, word

Array = NDArray[Any]
NARROW = FLOATS[2:]
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
EVERY = (*FLOATS, *INTEGERS, "bool")


def exactly(values: Any, dtype: str, tolerance: float = 0.0) -> Golden:
    """Return a golden of these values, which may be only rounded, unless there is a tolerance."""
    exact = np.asarray(values)
    return Golden((TensorSpec("out", exact.shape, dtype),), (exact,), (np.full(exact.shape, tolerance),))


def product(dtype: str, depth: int = 256) -> tuple[Kernel, Inputs]:
    """Return a matrix product with a vector."""
    kernel = replace(
        KERNEL,
        golden=lambda a, b: (a @ b,),
        outputs=lambda specs: (TensorSpec("out", specs[0].shape[:1], dtype),),
        reduction_length=lambda specs: specs[0].shape[1],
    )
    return kernel, Inputs((TensorSpec("a", (200, depth), dtype), TensorSpec("b", (depth,), dtype)))


def every_number(dtype: str) -> Array:
    """Return the finite numbers of an 8-bit or 16-bit float, in order."""
    size = np.dtype(dtype).itemsize
    with np.errstate(invalid="ignore"):
        numbers = np.arange(256**size).astype(f"u{size}").view(dtype).astype("f8")
    return np.unique(numbers[np.isfinite(numbers)])


@pytest.mark.parametrize("dtype", EVERY)
def test_each_dtype_is_drawn_and_compared(dtype: str) -> None:
    (drawn,) = materialize(Inputs((TensorSpec("a", (40,), dtype),)))
    given = materialize(Inputs((TensorSpec("a", (40,), dtype),), arrays=(drawn,)))
    kernel = replace(
        KERNEL, golden=lambda a: (a,), outputs=lambda specs: (TensorSpec("out", (40,), specs[0].dtype),)
    )
    golden = Golden.of(kernel, (TensorSpec("a", (40,), dtype),), given)
    wrong = drawn.copy()
    wrong[7:8].view(np.uint8)[-1] ^= 0x44
    found = golden.compare([wrong])
    assert (np.dtype(dtype), None) == (drawn.dtype, golden.compare([drawn]))
    assert found is not None
    assert (1, (7,)) == (found.wrong, found.worst)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *((name, Kind.FLOAT) for name in FLOATS),
        *((name, Kind.SIGNED if name.startswith("i") else Kind.UNSIGNED) for name in INTEGERS),
        ("bool", Kind.BOOL),
        ("complex64", None),
        ("longdouble", None),
        ("float8_e5m2fnuz", None),
        ("datetime64[s]", None),
    ],
)
def test_the_kind_of_a_dtype_is_known_whatever_numpy_calls_it(dtype: str, kind: Kind | None) -> None:
    assert kind is kind_of(np.dtype(dtype))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("bf16", "bfloat16"),
        ("half", "float16"),
        ("fp32", "float32"),
        ("e5m2", "float8_e5m2"),
        ("fp8_e4m3fn", "float8_e4m3fn"),
        (np.dtype("bfloat16"), "bfloat16"),
        (np.dtype("float8_e4m3").type, "float8_e4m3"),
    ],
)
def test_common_names_are_taken(given: Any, name: str) -> None:
    spec = TensorSpec("a", (3,), given)
    assert (name, np.dtype(name), f"3,{name}") == (
        spec.dtype,
        dtype_of(spec),
        workload_label((spec,)) if name != "float32" else "3,float32",
    )


@pytest.mark.parametrize(
    ("dtype", "beyond"),
    [("float8_e4m3fn", 449), ("float8_e4m3", 241), ("float16", 65536), ("int64", 2**63), ("uint64", 2**64)],
)
def test_a_range_that_a_dtype_does_not_hold_is_refused(dtype: str, beyond: float) -> None:
    with pytest.raises(UsageError, match=f"{dtype} does not hold all of range"):
        materialize(Inputs((TensorSpec("a", (3,), dtype, range=(0, beyond)),)))


def test_the_data_of_every_dtype_are_part_of_the_workload() -> None:
    def data(value: float, dtype: str) -> object:
        spec = TensorSpec("a", (3,), dtype)
        kernel = replace(KERNEL, outputs=lambda _specs: (spec,), golden=lambda a: (a,))
        inputs = Inputs((spec,), arrays=(np.full(3, value).astype(dtype),))
        return workload(kernel, inputs, "c", {}).context["data"]

    for dtype in EVERY:
        assert data(1, dtype) == data(1, dtype) != data(0, dtype)


# -- poison


@pytest.mark.parametrize("dtype", EVERY)
def test_an_element_that_was_not_written_is_wrong_under_one_of_the_poisons(dtype: str) -> None:
    """Whatever its golden: each number of a narrow float, NaN, infinity, and what overflows."""
    exact = np.array([0, 1], dtype)
    if is_float(exact.dtype):
        numbers = every_number(dtype) if dtype in NARROW else np.array([0.0, 1.0, 1e30])
        most = float(format_of(exact.dtype).max)
        exact = np.concatenate([numbers, [np.nan, np.inf, -np.inf, most * 1.01, -most * 1.01]])
    wrong = np.zeros((TURNS, exact.size), bool)
    for turn in range(TURNS):
        got = np.zeros(exact.size, dtype)
        bits(got)[...] = word(got.dtype, turn)
        wrong[turn] = ~exactly(exact, dtype)._right(0, got, turn, None)
        assert is_poison(got, turn).all()
    assert wrong.any(axis=0).all(), exact[~wrong.any(axis=0)]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_poison_is_a_signalling_nan_then_a_large_number(dtype: str) -> None:
    first, second = (
        np.array([word(np.dtype(dtype), turn)], f"u{np.dtype(dtype).itemsize}").view(dtype) for turn in (0, 1)
    )
    with np.errstate(invalid="ignore"):
        made = bits(np.array([np.nan, -np.nan]).astype(dtype))
        is_nan = bool(np.isnan(first[0]))
    assert bits(first)[0] not in made
    assert abs(float(second[0])) >= 0.6 * float(format_of(np.dtype(dtype)).max)
    assert is_nan == (dtype != "float8_e4m3fn")


# -- tolerance


@pytest.mark.parametrize("dtype", NARROW)
def test_without_a_tolerance_both_neighbours_are_right_and_no_other(dtype: str) -> None:
    """Halfway between all neighbours, subnormal ones included; and on each number that one alone."""
    numbers = every_number(dtype)
    between = (numbers[1:] + numbers[:-1]) / 2
    golden = exactly(between, dtype)
    ((least, largest),) = golden.bounds
    np.testing.assert_array_equal(numbers[:-1], least)
    np.testing.assert_array_equal(numbers[1:], largest)
    ((least, largest),) = exactly(numbers, dtype).bounds
    np.testing.assert_array_equal(numbers, least)
    np.testing.assert_array_equal(numbers, largest)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_candidate_at_the_bound_is_right_and_one_step_further_is_wrong(dtype: str) -> None:
    kernel, inputs = product(dtype)
    golden = Golden.of(kernel, inputs.specs, materialize(inputs))
    with np.errstate(invalid="ignore"):
        ends = [end.astype(dtype) for end in golden.bounds[0]]
    assert [None, None] == [golden.compare([end]) for end in ends]
    for end, outwards in zip(ends, (-1, 1), strict=True):
        further = end.copy()
        steps = np.where(end.astype("f8") < 0, -outwards, outwards)  # the bits hold sign and magnitude
        steps[bits(end) << 1 == 0] = 0
        bits(further)[...] += steps.astype(bits(end).dtype)
        found = golden.compare([further])
        assert found is not None
        assert np.count_nonzero(steps) == found.wrong


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("depth", [1, 64, 4096])
def test_a_product_with_stored_terms_is_right_and_one_without_a_term_is_wrong(dtype: str, depth: int) -> None:
    """Terms are stored in 16 bits, sums in float32; few bits do not show one term of many."""
    kernel, inputs = product(dtype, depth)
    a, b = materialize(inputs)
    golden = Golden.of(kernel, inputs.specs, (a, b))
    wide = np.float64 if dtype == "float64" else np.float32
    kept = "bfloat16" if dtype.startswith("float8") else dtype
    terms = (a.astype(wide) * b.astype(wide)).astype(kept).astype(wide)
    sums = np.add.accumulate(terms, axis=1)[:, -1]
    assert golden.compare([sums.astype(dtype)]) is None
    lost = terms[:, np.argmax(abs(b.astype(wide)))]
    found = golden.compare([(sums - lost).astype(dtype)])
    if depth <= 64 or dtype.endswith(("64", "32")):
        assert found is not None
        assert found.wrong > (190 if np.dtype(dtype).itemsize > 2 else 60)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
def test_a_sum_that_is_kept_in_few_bits_is_wrong(dtype: str) -> None:
    kernel, inputs = product(dtype, depth=4096)
    inputs = replace(inputs, arrays=tuple(np.ones(spec.shape, dtype) for spec in inputs.specs))
    stalled = np.full(200, {"float16": 2048, "bfloat16": 256, "float8_e4m3fn": 16}[dtype]).astype(dtype)
    found = Golden.of(kernel, inputs.specs, materialize(inputs)).compare([stalled])
    assert found is not None
    assert 200 == found.wrong


@pytest.mark.parametrize(
    ("dtype", "exact", "right", "wrong"),
    [
        ("float32", 1e39, [np.inf, 3.4028235e38], [-np.inf, 3e38, np.nan]),
        ("float16", 1e6, [np.inf, 65504], [np.nan, 65472]),
        ("bfloat16", np.inf, [np.inf], [3.38e38, np.nan]),
        ("float8_e5m2", -1e6, [-np.inf, -57344], [np.inf, -49152, np.nan]),
        ("float8_e5m2", np.inf, [np.inf, 57344], [49152]),
        ("float8_e4m3", 300, [np.inf, 240], [224, np.nan]),
        ("float8_e4m3fn", 1e6, [448, np.nan], [416, -448]),
        ("float8_e4m3fn", -np.inf, [-448, np.nan], [448]),
        ("float8_e4m3fn", 440, [448, 416], [np.nan, 384]),
        ("float8_e4m3fn", np.nan, [np.nan], [448, 0]),
    ],
)
def test_overflow_gives_infinity_or_the_largest_number(
    dtype: str, exact: float, right: list[float], wrong: list[float]
) -> None:
    golden = exactly([exact] * (len(right) + len(wrong)), dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        got = np.array(right + wrong).astype(dtype)
    assert [True] * len(right) + [False] * len(wrong) == golden._right(0, got, 1, None).tolist()


@pytest.mark.parametrize(
    ("dtype", "flushed"),
    [("float64", True), ("float32", True), ("bfloat16", True), ("float16", False), ("float8_e4m3fn", False)],
)
def test_subnormal_results_may_be_zero_if_the_range_is_wide(dtype: str, flushed: bool) -> None:
    small = float(format_of(np.dtype(dtype)).smallest_normal) / 2
    kernel, inputs = product(dtype, depth=1)
    inputs = replace(inputs, arrays=(np.full((200, 1), small).astype(dtype), np.ones(1, dtype)))
    golden = Golden.of(kernel, inputs.specs, materialize(inputs))
    assert golden.compare([np.full(200, small).astype(dtype)]) is None
    assert flushed == (golden.compare([np.zeros(200, dtype)]) is None)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_integers_are_exact_to_their_last_bit(dtype: str) -> None:
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    exact = np.array(limits, dtype)
    kernel = replace(KERNEL, golden=lambda a: (a,), outputs=lambda specs: specs)
    golden = Golden.of(kernel, (TensorSpec("a", (2,), dtype),), [exact])
    other = exact.copy()
    bits(other)[1:] ^= bits(other).dtype.type(1)
    found = golden.compare([other])
    assert golden.compare([exact]) is None
    assert found is not None
    assert (1, (1,), int(exact[1]), int(bits(other)[1]) if dtype == "bool" else int(other[1])) == (
        found.wrong,
        found.worst,
        found.expected,
        found.actual,
    )


def test_the_report_of_a_narrow_float_names_what_is_allowed_at_last() -> None:
    found = exactly([1.3, 2.0], "float8_e4m3fn").compare([np.array([1.75, 2]).astype("float8_e4m3fn")])
    assert "worst at [0]: expected 1.3, got 1.75, allowed ±0.075" in str(found)


BFLOAT16 = """
#include <stdint.h>
typedef union {{ uint32_t bits; float x; }} both;
static float wide(uint16_t bits) {{ return ((both){{.bits = (uint32_t)bits << 16}}).x; }}
static uint16_t narrow(float x) {{
    const uint32_t bits = ((both){{.x = x}}).bits;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}}
void add(const uint16_t *a, const uint16_t *b, uint16_t *out) {{
    for (int i = 0; i < 1000; i++) out[i] = narrow(wide(a[i]) {sign} wide(b[i]));
}}
"""
FLOAT8 = """
import numpy as np

def add(a, b, out):
    out[...] = a.astype(np.float32) {sign} b.astype(np.float32)
"""


@pytest.mark.parametrize(
    ("dtype", "backend", "source"),
    [("bfloat16", "c", BFLOAT16), ("float8_e4m3fn", "numpy", FLOAT8), ("float8_e5m2", "numpy", FLOAT8)],
)
def test_a_narrow_float_is_tuned(dtype: str, backend: str, source: str, tmp_path: Path) -> None:
    kernel = replace(
        KERNEL,
        generators={backend: lambda config, _inputs, _outputs: source.format(sign=config["sign"])},
        space=lambda _specs: SearchSpace({"sign": ("+", "-")}),
        baselines={},
    )
    inputs = Inputs(tuple(TensorSpec(name, (1000,), dtype) for name in "ab"))
    found = tune(kernel, inputs, backend=backend, timing=BRIEF, cache_dir=tmp_path)
    ended = {trial.config["sign"]: trial.status for trial in found.trials}
    assert {"+": Status.OK, "-": Status.WRONG_OUTPUT} == ended, found.trials


def test_the_rules_are_known_by_their_version() -> None:
    assert 3 == rules()["version"]
