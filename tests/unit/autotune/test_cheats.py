"""Nothing that a candidate does makes it look better than it is; and what is right stays right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned import BRIEF, INPUTS, kernel, run, space
from vector_add import GOOD, KERNEL, LENGTH, LOOP, body

from autotune import Inputs, SearchSpace, Status, TensorSpec, Timing, Trial, tune
from autotune.model.errors import DataError, UsageError
from autotune.model.kernel import ALIGNMENT
from autotune.model.roofline import Roofline
from autotune.model.tensors import materialize
from autotune.sites.correctness import Golden
from autotune.testing import CHEATS, Cheat, believed


def only(source: str, **changes: Any) -> dict[str, Any]:
    """Return the options of a run with one candidate."""
    made = kernel(generators={"c": lambda *_: source}, **changes)
    return {"kernel": made, "searched": space("good")}


def trial(cache: Path, source: str, inputs: Inputs = INPUTS, **changes: Any) -> Trial:
    """Tune one candidate."""
    (found,) = run(cache, inputs=inputs, **only(source, **changes)).trials
    return found


def timings(cheat: Cheat) -> list[object]:
    """Return how a cheat is timed: as users time, and briefly; a slow clock makes the first take its time."""
    slow = [pytest.mark.long] if cheat.name == "clock" else []
    users = pytest.param(cheat, None, id=f"{cheat.name}-default", marks=slow)
    return [users, pytest.param(cheat, BRIEF, id=f"{cheat.name}-brief")]


@pytest.mark.parametrize(("cheat", "timing"), [each for cheat in CHEATS for each in timings(cheat)])
def test_a_cheat_is_not_believed(cheat: Cheat, timing: Timing | None) -> None:
    assert {} == believed([cheat], timing)


def test_an_honest_candidate_is_believed() -> None:
    honest = replace(CHEATS[0], kernel=replace(CHEATS[0].kernel, generators={"c": lambda *_: GOOD}))
    assert [honest.name] == list(believed([honest], BRIEF))


def test_a_candidate_may_keep_threads_of_its_own(tmp_path: Path) -> None:
    source = body(
        "static pthread_t id; static sem_t go, done; "
        "void *work(void *_) { for (;;) { sem_wait(&go); sem_post(&done); } } "
        f"if (!id) sem_init(&go, 0, 0), sem_init(&done, 0, 0), pthread_create(&id, 0, work, 0); "
        f"sem_post(&go); {LOOP} out[i] = a[i] + b[i]; sem_wait(&done);",
        "pthread",
        "semaphore",
    )
    assert Status.OK is trial(tmp_path, source).status


def test_a_nan_of_any_payload_is_right_if_nan_is(tmp_path: Path) -> None:
    source = body(f"{LOOP} ((unsigned *)out)[i] = i % 2 ? 0xFFFFFFFF : 0x7FC00000;")
    golden = lambda a, _b: (np.full(a.shape, np.nan),)  # noqa: E731
    assert Status.OK is trial(tmp_path, source, golden=golden).status


def test_an_output_that_should_be_nan_must_be_written(tmp_path: Path) -> None:
    golden = lambda a, _b: (np.full(a.shape, np.nan),)  # noqa: E731
    found = trial(tmp_path, body(""), golden=golden)
    assert (Status.WRONG_OUTPUT, True) == (found.status, "1000 never written" in found.message)


def test_what_a_difference_leaves_is_held_against_its_terms(tmp_path: Path) -> None:
    """An error of 0.05 is rounding if it is left of two millions, and wrong if it is left of 1 and 0.25."""
    a, b = (np.where(np.arange(LENGTH) % 2, *pair).astype("f4") for pair in ((1000.5, 1), (1000, 0.5)))
    inputs = Inputs(INPUTS.specs, arrays=(a, b))
    off = body(f"{LOOP} out[i] = a[i] * a[i] - b[i] * b[i] + 0.05f * (a[i] > 2);")
    golden = lambda a, b: (a * a - b * b,)  # noqa: E731
    assert Status.OK is trial(tmp_path / "large", off, inputs, golden=golden).status
    always = off.replace("(a[i] > 2)", "1")
    assert Status.WRONG_OUTPUT is trial(tmp_path / "small", always, inputs, golden=golden).status


def test_tensors_are_aligned_as_promised_and_no_better(tmp_path: Path) -> None:
    check = body(
        f"if ((unsigned long)a % {ALIGNMENT} || (unsigned long)out % {ALIGNMENT}) abort(); "
        f"{LOOP} out[i] = a[i] + b[i];",
        "stdlib",
    )
    assert Status.OK is trial(tmp_path / "promised", check).status
    more = check.replace(f"% {ALIGNMENT}", f"% {2 * ALIGNMENT}")
    assert Status.CRASH is trial(tmp_path / "more", more).status


def test_a_kernel_may_bring_its_own_comparison(tmp_path: Path) -> None:
    """A sum split over two outputs has many right answers."""
    source = body(f"{LOOP} out[i] = a[i] + b[i] + (i % 2 ? 1 : -1);")
    says = lambda actual, exact: "" if abs(actual[0] - exact[0]).max() < 2 else "too far"  # noqa: E731
    assert Status.OK is trial(tmp_path / "own", source, compare=says).status
    found = trial(tmp_path / "far", source.replace("? 1", "? 3"), compare=says)
    assert (Status.WRONG_OUTPUT, "too far") == (found.status, found.message)


# -- any kernel


def test_inputs_may_be_infinite_if_that_is_meant(tmp_path: Path) -> None:
    mask = np.where(np.arange(LENGTH) % 3, 0, -np.inf).astype("f4")
    arrays = (np.ones(LENGTH, "f4"), mask)
    with pytest.raises(DataError, match=r"finite=False"):
        run(tmp_path, inputs=Inputs(INPUTS.specs, arrays=arrays))
    meant = Inputs(INPUTS.specs, arrays=arrays, finite=False)
    assert Status.OK is trial(tmp_path, GOOD, meant).status


@pytest.mark.parametrize(
    ("strides", "address"),
    [((-1,), "-i"), ((0,), "0"), ((3,), "3 * i"), ((-2,), "-2 * i")],
)
def test_strides_may_be_negative_or_zero(tmp_path: Path, strides: tuple[int], address: str) -> None:
    specs = (TensorSpec("a", (LENGTH,), strides=strides), TensorSpec("b", (LENGTH,)))
    source = body(f"{LOOP} out[i] = a[{address}] + b[i];")
    outputs = lambda _specs: (TensorSpec("out", (LENGTH,)),)  # noqa: E731
    assert Status.OK is trial(tmp_path, source, Inputs(specs), outputs=outputs).status


def test_an_output_may_have_negative_strides(tmp_path: Path) -> None:
    outputs = lambda _specs: (TensorSpec("out", (LENGTH,), strides=(-1,)),)  # noqa: E731
    assert (
        Status.OK is trial(tmp_path / "right", body(f"{LOOP} out[-i] = a[i] + b[i];"), outputs=outputs).status
    )
    found = trial(tmp_path / "wrong", body(f"{LOOP} out[-i] = a[i] + b[i]; out[1] = 0;"), outputs=outputs)
    assert (Status.WRONG_OUTPUT, True) == (found.status, "outside the tensor" in found.message)


def test_values_of_one_address_must_agree() -> None:
    spec = TensorSpec("a", (4,), strides=(0,))
    assert 1 == len(set(materialize(Inputs((spec,)))[0].tolist()))
    with pytest.raises(DataError, match="elements of one address have different values"):
        materialize(Inputs((spec,), arrays=(np.arange(4, dtype="f4"),)))


def test_scalars_and_no_inputs_and_a_golden_of_one_array(tmp_path: Path) -> None:
    made = replace(
        KERNEL,
        name="fill",
        generators={"c": lambda *_: "void add(float *out) { *out = 2; }"},
        outputs=lambda _specs: (TensorSpec("out", ()),),
        golden=lambda: np.array(2.0),
        baselines={},
        flops=lambda _specs: 0,
        bytes_moved=lambda _specs: 4,
    )
    found = tune(made, Inputs(()), cache_dir=tmp_path, timing=BRIEF)
    assert (Status.OK, "no_inputs") == (found.trials[0].status, found.shapes)


def test_a_golden_that_the_output_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="that uint8 cannot hold"):
        run(tmp_path, **only(GOOD, outputs=lambda _specs: (TensorSpec("out", (LENGTH,), "uint8"),)))


def test_integers_are_given_to_the_golden_as_integers() -> None:
    specs = (TensorSpec("a", (5,), "uint8", range=(250, 255)), TensorSpec("b", (5,), "int32"))
    seen = []
    made = replace(
        KERNEL,
        golden=lambda a, b: (seen.append((a.dtype, b.dtype)) or (a.astype("i8") << 2) + b,),
        outputs=lambda _specs: (TensorSpec("out", (5,), "int64"),),
    )
    Golden.of(made, specs, materialize(Inputs(specs)))
    assert (np.dtype("u8"), np.dtype("i8")) == seen[0]


def test_the_range_of_integers_is_told_and_can_be_given(tmp_path: Path) -> None:
    specs = tuple(TensorSpec(name, (LENGTH,), "int32") for name in "ab")
    source = f"void add(const int *a, const int *b, int *out) {{ {LOOP} out[i] = a[i] + b[i]; }}"
    found = run(tmp_path, inputs=Inputs(specs), **only(source))
    assert any("input 'a' (int32) is drawn from -8 to 8" in note for note in found.notes)
    given = Inputs(tuple(replace(spec, range=(100, 200)) for spec in specs))
    values = np.concatenate(materialize(given))
    assert (100, 200) == (values.min(), values.max())
    assert not any("is drawn from" in note for note in run(tmp_path, inputs=given, **only(source)).notes)
    with pytest.raises(UsageError, match=r"uint8 does not hold all of range \(0, 300\)"):
        materialize(Inputs((TensorSpec("a", (5,), "uint8", range=(0, 300)),)))


def test_what_numpys_users_pass_is_taken() -> None:
    array = np.zeros((2, 3), np.float32)
    assert TensorSpec("a", array.shape) == TensorSpec("a", [np.int64(2), 3], array.dtype)  # type: ignore[arg-type]
    assert TensorSpec("a", (2, 3), np.float64).dtype == "float64"  # type: ignore[arg-type]
    assert SearchSpace({"x": np.array([1, 2])}) == SearchSpace({"x": (1, 2)})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="another byte order"):
        materialize(Inputs((TensorSpec("a", (2,), np.dtype(">f4")),)))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [(1, 2), None, float("inf"), float("nan"), Status.OK, b"x", 1j])
def test_a_value_that_would_not_come_back_as_it_was_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="parameter 'x' has the value"):
        SearchSpace({"x": (1, value)})  # type: ignore[dict-item]


# -- what cannot be


@pytest.mark.parametrize(
    ("flops", "moved", "median_ms", "says"),
    [
        (1e9, 0, 1.0, "GFLOP/s"),
        (1e8, 0, 1.0, ""),
        (0, 4e6, 0.01, "GB/s"),
        (0, 4e6, 0.2, ""),
        (0, 4e4, 0.0002, ""),  # in a cache it is true
        (0, 4e4, 0.00002, "GB/s"),
    ],
)
def test_a_time_above_the_roofline_is_implausible(
    flops: float, moved: float, median_ms: float, says: str
) -> None:
    limits = Roofline(200.0, 25.0, ((16384, 220.0), (262144, 120.0), (1048576, 60.0)), "float32")
    reason = limits.rules_out("float32", flops, moved, median_ms)
    assert says in reason
    assert bool(says) == bool(reason)
    assert "GFLOP/s" not in limits.rules_out("float16", flops, moved, median_ms)


def test_an_implausible_candidate_is_not_the_best(tmp_path: Path) -> None:
    found = run(tmp_path, space("good"), kernel=kernel(flops=lambda _specs: 10**12))
    assert (None, Status.IMPLAUSIBLE) == (found.best, found.trials[0].status)
    assert any("no config ended ok; 1 of 1 ended with implausible" in note for note in found.notes)
