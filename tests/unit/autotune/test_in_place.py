"""A kernel may change its inputs if it says which: they are restored before each call, and then checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned import BRIEF

from autotune import Inputs, Kernel, SearchSpace, Status, TensorSpec, Timing, backends, tune
from autotune.backends.numpy import NumpyBackend
from autotune.model.errors import UsageError
from autotune.model.tensors import materialize
from autotune.model.workload import workload
from autotune.sites.correctness import Golden
from autotune.sites.local import LocalSite
from autotune.sites.sampling import sample
from autotune.sites.segment import Segment
from autotune.testing import KernelContract

LENGTH = 1000
LOOP = f"for (int i = 0; i < {LENGTH}; i++)"
HEAD = "void scale(float *x, const float *by)"
GOOD = {
    "c": f"{HEAD} {{ {LOOP} x[i] *= *by; }}",
    "numpy": "def scale(x, by):\n    x *= by\n",
}
COLD = replace(BRIEF, caches="cold")
INPUTS = Inputs((TensorSpec("x", (LENGTH,)), TensorSpec("by", (), range=(2, 3))))


def _scaled(x: Any, by: Any) -> tuple[Any]:
    x *= by  # as a kernel in place does it
    return (x,)


KERNEL = Kernel(
    name="scale",
    entry="scale",
    generators={name: lambda *_, text=text: text for name, text in GOOD.items()},
    outputs=lambda _specs: (),
    golden=_scaled,
    baselines={"plain": _scaled},
    flops=lambda _specs: LENGTH,
    bytes_moved=lambda _specs: 8 * LENGTH,
    space=lambda _specs: SearchSpace({"only": (0,)}),
    in_place=("x",),
)


@pytest.fixture(scope="module", params=["c", "numpy", "device"])
def workers(request: pytest.FixtureRequest) -> Iterator[LocalSite]:
    """Measure candidates of this kernel."""
    device = request.param == "device"
    backend = NumpyBackend(process="device") if device else backends.get(request.param)
    with LocalSite(KERNEL, INPUTS, backend, BRIEF) as started:
        yield started


SOURCES = {
    "right": (GOOD["c"], GOOD["numpy"], "ok", ""),
    "forgets half": (
        f"{HEAD} {{ for (int i = 0; i < {LENGTH // 2}; i++) x[i] *= *by; }}",
        f"def scale(x, by):\n    x[:{LENGTH // 2}] *= by\n",
        "wrong_output",
        "x: 500 of 1000 elements wrong; worst",
    ),
    "works in its first call only": (
        f"{HEAD} {{ static int n; if (!n++) {LOOP} x[i] *= *by; }}",
        "calls = []\ndef scale(x, by):\n    if not calls: x *= by\n    calls.append(1)\n",
        "wrong_output",
        "x: 1000 of 1000 elements wrong; worst",
    ),
    "works until the spare copies": (
        f"{HEAD} {{ static float *first; if (!first) first = x; if (x == first) {LOOP} x[i] *= *by; }}",
        "first = []\ndef scale(x, by):\n"
        "    first.append(x.ctypes.data)\n    if x.ctypes.data == first[0]: x *= by\n",
        "wrong_output",
        "x: 1000 of 1000 elements wrong; worst",
    ),
    "writes an input that is not declared": (
        f"{HEAD} {{ {LOOP} x[i] *= *by; *(float *)by = 1; }}",
        "def scale(x, by):\n    x *= by\n    by[...] = 1\n",
        "wrong_output",
        "a kernel changes only the inputs that its in_place names",
    ),
    "writes behind its input": (
        f"{HEAD} {{ {LOOP} x[i] *= *by; x[{LENGTH}] = 1; }}",
        "import ctypes\ndef scale(x, by):\n    x *= by\n"
        f"    ctypes.c_float.from_address(x.ctypes.data + 4 * {LENGTH}).value = 1\n",
        "wrong_output",
        "x: wrote 4 bytes outside the tensor",
    ),
}


@pytest.mark.parametrize("what", SOURCES)
def test_what_is_left_in_an_input_is_checked_like_an_output(workers: LocalSite, what: str) -> None:
    in_c, in_python, status, message = SOURCES[what]
    if workers._backend.isolation() == "device" and "spare" in what:
        pytest.skip("a device has no spare copies")
    source = in_c if workers._backend.name == "c" else in_python
    made = workers.build(source).result()
    assert made.artifact is not None, made.log
    outcome = workers.measure(made.artifact)
    assert (status, True) == (outcome.status.value, message in outcome.message), outcome.message
    assert (1, status == "ok") == (outcome.calls, len(outcome.samples_ms) >= 3)


def test_caches_may_be_cold_and_a_baseline_changes_the_inputs_too(workers: LocalSite) -> None:
    source = GOOD[workers._backend.name]
    made = workers.build(source).result()
    assert made.artifact is not None, made.log
    outcomes = (
        workers.measure(made.artifact, COLD),
        workers.baseline("plain"),
        workers.measure(made.artifact),
    )
    assert [Status.OK] * 3 == [each.status for each in outcomes], outcomes


SLOW_CLOCK = """
import time
import autotune.backends.numpy as timer
timer.timed.__defaults__ = (lambda: time.perf_counter_ns() // 100,)

def scale(x, by):
    for _ in range(500):
        new = x * by
    x[...] = new
"""


@pytest.mark.parametrize("workers", ["numpy", "device"], indirect=True)
def test_a_clock_that_counts_less_than_was_run_is_implausible(workers: LocalSite) -> None:
    made = workers.build(SLOW_CLOCK).result()
    assert made.artifact is not None, made.log
    assert Status.IMPLAUSIBLE is workers.measure(made.artifact, Timing(max_s=0.1)).status


def test_a_kernel_in_place_is_confirmed_in_turns_with_its_baseline(tmp_path: Path) -> None:
    found = tune(KERNEL, INPUTS, timing=BRIEF, cache_dir=tmp_path)
    assert [Status.OK] == [trial.status for trial in found.trials], found.trials
    assert found.best is not None
    assert found.best.confirmed is not None
    assert found.baseline is not None


def test_the_kernel_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs/your_kernel.md").read_text()
    scope: dict[str, Any] = {"Kernel": Kernel, "SearchSpace": SearchSpace}
    exec(
        page.partition("## A kernel that changes its inputs")[2].split("```python\n")[1].split("```")[0],
        scope,
    )
    kernel, inputs = scope["scale"], Inputs((TensorSpec("x", (100,)),))
    with LocalSite(kernel, inputs, backends.get("c"), BRIEF) as workers:
        made = workers.build(kernel.generators["c"]({}, inputs.specs, ())).result()
        assert made.artifact is not None, made.log
        assert Status.OK is workers.measure(made.artifact).status


def test_outputs_come_first_and_inputs_may_be_strided(tmp_path: Path) -> None:
    """Swap two vectors, of which one runs backwards with gaps, and count the calls nowhere."""
    kernel = replace(
        KERNEL,
        name="swap",
        generators={
            "c": lambda *_: (
                f"void scale(float *a, float *b, float *sum) {{ {LOOP} "
                "{ float a_i = a[-2 * i]; sum[i] = a_i + b[i]; a[-2 * i] = b[i]; b[i] = a_i; } }"
            )
        },
        outputs=lambda _specs: (TensorSpec("sum", (LENGTH,)),),
        golden=lambda a, b: (a + b, a, b),
        baselines={},
        in_place=["b", "a"],  # type: ignore[arg-type]
    )
    specs = (TensorSpec("a", (LENGTH,), strides=(-2,)), TensorSpec("b", (LENGTH,)))
    found = tune(kernel, Inputs(specs), backend="c", timing=BRIEF, cache_dir=tmp_path)
    assert [Status.OK] == [trial.status for trial in found.trials], found.trials
    gap = replace(
        kernel,
        generators={
            "c": lambda *_: kernel.generators["c"]({}, (), ()).replace("float a_i", "a[-1] = 0; float a_i")
        },
    )
    found = tune(gap, Inputs(specs), backend="c", timing=BRIEF, cache_dir=tmp_path)
    assert "a: wrote 4 bytes outside the tensor" == found.trials[0].message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_place": ("y",)}, "in_place names 'y'; name each changed input once: x, by"),
        ({"in_place": ("x", "x")}, "in_place names 'x'; name each changed input once"),
        ({"in_place": ()}, "no outputs and nothing in_place, so nothing can be checked"),
    ],
)
def test_what_is_changed_must_be_an_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        workload(replace(KERNEL, **changes), INPUTS, "c", {})


@pytest.mark.parametrize(
    ("shape", "strides", "overlaps"),
    [
        ((4, 3), None, False),
        ((4, 3), (3, 1), False),
        ((4, 3), (-1, 4), False),
        ((4, 3), (2, 1), True),
        ((4,), (0,), True),
        ((1, 3), (0, 1), False),
        ((), None, False),
    ],
)
def test_an_input_with_two_elements_at_one_address_is_not_changed(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, overlaps: bool
) -> None:
    spec = TensorSpec("x", shape, strides=strides)
    assert overlaps == spec.overlaps
    if overlaps:
        with pytest.raises(UsageError, match="elements of 'x' share an address"):
            KERNEL.changed((spec,))


def test_what_a_kernel_changes_is_part_of_its_identity() -> None:
    given = replace(KERNEL, golden=lambda x, _by: (x,), outputs=lambda specs: specs[:1], in_place=())
    contexts = [workload(replace(given, in_place=names), INPUTS, "c", {}).context for names in ((), ("x",))]
    assert [None, ["x"]] == [context.get("in_place") for context in contexts]


def test_the_golden_may_change_its_inputs_and_returns_them_behind_the_outputs() -> None:
    def golden(x: Any, by: Any) -> tuple[Any, Any]:
        before = x.sum()
        x *= by
        return before, x

    kernel = replace(KERNEL, golden=golden, outputs=lambda _specs: (TensorSpec("before", ()),))
    x, by = materialize(INPUTS)
    found = Golden.of(kernel, INPUTS.specs, (x, by))
    assert ["before", "x"] == [spec.name for spec in found.specs]
    np.testing.assert_allclose(x.astype("f8") * by, found.values[1], rtol=1e-15)
    assert 1e-4 > found.tolerances[1].max() > 0


def test_a_changed_input_is_laid_out_as_an_output_and_its_values_cannot_be_written() -> None:
    specs = INPUTS.specs
    values = materialize(INPUTS)
    with closing(Segment(list(zip(specs, values, strict=True)), (), [0])) as made:
        ((place, pristine, below, size),) = made.restored
        readable = [(begin, length) for begin, length, protection in made.protected if protection]
        inside = [
            any(begin <= offset < begin + length for begin, length in readable)
            for offset in (pristine, made.tensors[1][0], *made.tensors[0][:2])
        ]
        held = made._bytes[pristine : pristine + size].view("f4").copy()
    assert (0, 0, 4 * LENGTH) == (place, below, size)
    assert [True, True, False, False] == inside
    assert made.tensors[0][2] > 0 == made.tensors[1][2]
    np.testing.assert_array_equal(values[0], held)


def _program(nanoseconds: int) -> tuple[list[tuple[int, int]], Callable[[int, int, bool], list[int]]]:
    asked: list[tuple[int, int]] = []

    def run(calls: int, samples: int, _cold: bool) -> list[int]:
        asked.append((calls, samples))
        return [calls * nanoseconds] * min(samples, 4096)

    return asked, run


def test_each_sample_is_of_one_call_that_warms_up_too() -> None:
    asked, run = _program(1000)
    taken = sample(run, Timing(warmup_s=0.01), 1000, restore_ns=1)
    assert {1} == {calls for calls, _ in asked}
    assert (1, 10) == (taken.calls, len(taken.nanoseconds))
    assert 9_900 <= sum(min(samples, 4096) for _, samples in asked[:-1]) < 20_000


def test_restoring_much_data_counts_against_the_time_of_a_measurement() -> None:
    """A call that changes a few bytes of a gigabyte."""
    asked, run = _program(100)
    taken = sample(run, Timing(max_s=1, target_ci=0), 100, restore_ns=0.2e9)
    assert [(1, 1), (1, 4)] == asked[:2]
    assert 5 >= len(taken.nanoseconds)


class TestInPlace(KernelContract):
    """Of a kernel in place the contract holds too."""

    @pytest.fixture
    def case(self) -> tuple[Kernel, Inputs]:
        """Return it."""
        return KERNEL, INPUTS
