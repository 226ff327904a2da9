"""A kernel from a function that exists already: what is tuned, what decides a result, what is refused."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import declared
import numpy as np
import pytest

import autotune
from autotune import Status, TensorSpec, Timing
from autotune.backends.function import candidate
from autotune.backends.travel import import_first
from autotune.model.errors import UnavailableError, UsageError
from autotune.model.fingerprint import function_digest, values_read
from autotune.model.project import project_files
from autotune.tuner import silent

BRIEF = Timing(warmup_s=0, min_repeats=3, max_repeats=5, max_s=0.02)
ROOT = Path(__file__).parents[3]
X = np.arange(-3, 5, dtype=np.float32)


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls before the first tuning find nothing."""
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "none"))


def tuned(kernel: autotune.Tunable, *tensors: Any, folder: Path, **options: Any) -> autotune.Results:
    """Tune quickly."""
    return kernel.tune(*tensors, cache_dir=folder, timing=BRIEF, progress=silent, **options)


# -- from declaration to result


def test_a_function_that_returns_its_output_is_tuned_and_called(tmp_path: Path, capfd: Any) -> None:
    results = tuned(declared.returned, X.shape, folder=tmp_path)

    assert [Status.OK] * 2 == [trial.status for trial in results.trials]
    assert 0 < results.trials[0].metrics.gflops
    assert (2 * X).tolist() == declared.returned(X).tolist()
    assert "" == capfd.readouterr().err


def test_a_function_that_writes_its_outputs_is_tuned_and_called(tmp_path: Path, capfd: Any) -> None:
    assert 2 == len([declared.written(X), declared.written(X)])
    told = capfd.readouterr().err
    results = tuned(declared.written, X, folder=tmp_path)
    twice, positive = declared.written(x=X)

    assert [Status.OK] * 2 == [trial.status for trial in results.trials]
    assert ((2 * X).tolist(), (X > 0).tolist()) == (twice.tolist(), positive.tolist())
    assert "was never tuned; it runs with the first config of its space, {'rows': 4}" in told
    assert 1 == len(told.splitlines())
    assert None is results.trials[0].metrics.gflops is results.trials[0].metrics.roofline_fraction


def test_a_generator_of_c_is_tuned_and_called(tmp_path: Path) -> None:
    x = np.ones((3, 5), np.float32)
    with pytest.raises(UsageError, match="kernel row_sums 3x5: was never tuned; tune it first"):
        declared.sums(x)

    results = tuned(declared.sums, (3, 5), folder=tmp_path)

    assert (["ok"] * 2, [5.0] * 3) == (
        [each.status.value for each in results.trials],
        declared.sums(x).tolist(),
    )


UNGUARDED = """
import autotune, numpy as np
print("imported as", __name__)

@autotune.kernel(space={"rows": [1, 2]}, golden=np.tanh)
def first(x, *, rows):
    return np.tanh(x)

results = first.tune(x=(8, 8), cache_dir="cache")
print(len(results.trials), first(np.zeros((8, 8), np.float32)).sum())

def late(x, *, rows):
    return np.tanh(x)

late = autotune.kernel(late, space={"rows": [1]}, golden=np.tanh)
print(late.tune(x=8, cache_dir="cache").trials[0].message)
"""


def test_a_script_without_a_guard_is_executed_up_to_its_first_tuning(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )

    lines = done.stdout.splitlines()
    assert ["imported as __main__", "2 0.0"] == lines[:2], done.stderr
    assert "late is not defined where the script first tunes; put the calls of tune() under" in lines[2]


def test_a_module_that_tunes_while_it_is_imported_is_not_for_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import declared\ndeclared.returned.tune((4, 4))\n"
    (tmp_path / "tunes_at_once.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        UnavailableError, match=r"cannot import t\.py: ImportError: it tunes while it is imported"
    ):
        import_first([("tunes_at_once", "t.py")])


# -- what decides a result

PROJECT = {
    "pyproject.toml": "",
    "ops.py": "import helper\nfrom pkg import deep\ndef f(x, *, a):\n    return helper.g(x)\n",
    "helper.py": "def g(x):\n    from other import h\n    return h(x)\n",
    "other.py": "import json, numpy\ndef h(x):\n    return x\n",
    "pkg/__init__.py": "",
    "pkg/deep.py": "from . import sibling\nfrom .sibling import K\n",
    "pkg/sibling.py": "K = 1\n",
    "pkg/unused.py": "",
    "elsewhere.py": "import ops\n",
    "site-packages/json.py": "",
    "site-packages/a/__init__.py": "",
    "site-packages/a/b.py": "import a, json",
}
IMPORTED = ["helper.py", "ops.py", "other.py", "pkg/__init__.py", "pkg/deep.py", "pkg/sibling.py"]


def test_the_files_that_a_file_imports_are_found(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = project_files(tmp_path / "ops.py")
    for name in PROJECT:
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
    after = project_files(tmp_path / "ops.py")

    assert (IMPORTED, IMPORTED) == ([*before], [*after])
    assert [] == [name for name in IMPORTED if before[name] == after[name]]
    assert {"pkg/__init__.py", "pkg/deep.py", "pkg/sibling.py"} == {*project_files(tmp_path / "pkg/deep.py")}
    assert ["__init__.py", "b.py"] == [*project_files(tmp_path / "site-packages/a/b.py")]


def source(kernel: autotune.Tunable) -> str:
    """Return the text of the first candidate."""
    made = kernel.kernel
    specs = (TensorSpec("x", (8,)),)
    config = next(iter(made.space(specs)))
    return made.generators[kernel.backend.name](config, specs, made.outputs(specs))


def test_a_value_that_the_function_reads_decides_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source(declared.returned)
    again = source(declared.returned)
    monkeypatch.setattr(declared, "FACTOR", 3.0)

    assert before == again != source(declared.returned)
    assert "declared.py' " in before


def test_a_value_that_is_another_one_in_the_candidate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = values_read(declared.returned.function)
    assert declared.returned.function is candidate("declared", "returned", reads)
    monkeypatch.setattr(declared, "FACTOR", 3.0)

    with pytest.raises(UsageError, match="returned reads double, which has another value in the tuner"):
        candidate("declared", "returned", reads)


# -- what is refused


def plain(x: Any, *, a: int) -> Any:
    return x + a


def interactive() -> Callable[..., Any]:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x, *, a): return x", scope)
    made: Callable[..., Any] = scope["f"]
    return made


def nested() -> Callable[..., Any]:
    def inner(x: Any, *, a: int) -> Any:
        return x + a

    return inner


def untuned(x: Any) -> Any:
    return x


def starred(*x: Any, a: int) -> Any:
    return x, a


def reserved(seconds: Any, *, a: int) -> Any:
    return seconds + a


SPACE = {"a": [1]}
REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "lambda": (lambda x, *, a: x + a, {}, r"a lambda \(.*write it with `def` at the top of a file"),
    "nested": (nested(), {}, "kernel inner: inner is defined inside of another function: write it"),
    "interactive": (interactive(), {}, "f is defined in an interactive session: save it in a file"),
    "not a function": (len, {}, "no function written in Python"),
    "nothing tuned": (untuned, {}, r"nothing to tune: put a \* before .*def untuned\(x, \*, block\)"),
    "star": (starred, {}, r"write out what \*x stands for, parameter by"),
    "an option's name": (reserved, {}, "'seconds' is an argument of tune"),
    "golden": (plain, {"golden": lambda x, y: x + y}, "golden takes 2 tensors, the function 1"),
    "space": (
        plain,
        {"space": {"a": [1], "b": [2]}},
        "the space has 'b', which is no keyword-only parameter",
    ),
    "no values": (plain, {"space": {}}, "the space has no values for a"),
    "backend": (plain, {"backend": "nunpy"}, "no backend 'nunpy'; did you mean 'numpy'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_tuned_is_refused_with_what_to_do(what: str) -> None:
    function, changes, message = REFUSED[what]
    with pytest.raises(UsageError, match=message):
        autotune.kernel(function, **{"space": SPACE, "golden": np.abs, **changes})


def test_a_value_that_cannot_be_described_is_refused_by_name(tmp_path: Path) -> None:
    reads_lock = autotune.kernel(declared.locked, space={"rows": [1]}, golden=np.abs)
    golden_reads_lock = autotune.kernel(plain, space=SPACE, golden=lambda x: [x, declared.LOCK][0])
    golden = autotune.kernel(plain, space=SPACE, golden=lambda x, lock=declared.LOCK: (x, lock)[0])

    with pytest.raises(UsageError, match=r"kernel locked: reads LOCK, a _thread\.lock, whose value"):
        reads_lock.tune(8, cache_dir=tmp_path)
    with pytest.raises(UsageError, match=r"kernel plain: golden reads .*, a _thread\.lock, whose value"):
        golden.tune(8, cache_dir=tmp_path)
    assert golden_reads_lock.kernel  # an attribute of a module counts by the module's name


def test_a_function_that_has_another_name_in_its_module_is_refused() -> None:
    renamed = type(plain)(plain.__code__, plain.__globals__, "plain", None, None)
    renamed.__kwdefaults__ = None
    kernel = autotune.kernel(renamed, space=SPACE, golden=np.abs)

    with pytest.raises(UsageError, match=r"kernel plain: test_declare\.plain is not this function"):
        kernel.tune(8)


# -- inputs and outputs


def two(x: Any, y: Any, *, a: int) -> Any:
    return x + a, y


PAIR = autotune.kernel(two, space=SPACE, golden=lambda x, y: (x + y, x.argmax(), y > 0))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", ["float32", "int64", "bool"]),
        ({"x": "float16", "y": "float32"}, ["float32", "int64", "bool"]),
        ({"x": "float16", "y": "float16"}, ["float16", "int64", "bool"]),
        ({"x": "int8", "y": "float64"}, ["float64", "int64", "bool"]),
        ({"x": "int8", "y": "int32"}, ["int64", "int64", "bool"]),
        ("bf16", ["bfloat16", "int64", "bool"]),
        ({"x": "float8_e5m2", "y": "float32"}, ["float32", "int64", "bool"]),
    ],
)
def test_outputs_are_those_of_the_golden(dtype: Any, expected: list[str]) -> None:
    specs = PAIR.kernel.outputs(PAIR.inputs((4, 3), y=(3,), dtype=dtype).specs)

    assert [("out0", (4, 3)), ("out1", ()), ("out2", (4, 3)[1:])] == [
        (each.name, each.shape) for each in specs
    ]
    assert expected == [each.dtype for each in specs]


def test_floats_without_a_common_dtype_need_one_for_the_output() -> None:
    inputs = PAIR.inputs((4, 3), y=(3,), dtype={"x": "bfloat16", "y": "float16"})
    with pytest.raises(UsageError, match="bfloat16 and float16 have no common dtype; give output_dtype"):
        PAIR.kernel.outputs(inputs.specs)


def test_the_dtype_of_an_output_can_be_said() -> None:
    kernel = autotune.kernel(plain, space=SPACE, golden=np.abs, output_dtype="float16")
    assert ["float16"] == [each.dtype for each in kernel.kernel.outputs((TensorSpec("x", (2,)),))]


def test_inputs_are_shapes_arrays_and_specs_by_place_or_name() -> None:
    ranged = TensorSpec("any", (2,), "int8", range=(0, 1))
    assert (TensorSpec("x", (4,)), TensorSpec("y", (2,), "int8", range=(0, 1))) == PAIR.inputs(
        4, y=ranged
    ).specs
    array = np.zeros((3, 4)).T
    mixed = PAIR.inputs(y=array, x=(3,), dtype="float16")
    assert (TensorSpec("x", (3,), "float16"), TensorSpec("y", (4, 3), "float64", (1, 4))) == mixed.specs
    assert (2, True) == (len(mixed.arrays), mixed.arrays[1] is array)


@pytest.mark.parametrize(
    ("tensors", "named", "message"),
    [
        ((4,), {}, "no shape or array for y"),
        ((4, 4, 4), {}, "3 tensors, and it has 2"),
        ((4,), {"x": 4}, "x is given twice"),
        ((4,), {"z": 4}, "no tensor 'z'"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(tensors: Any, named: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"kernel two: {message}"):
        PAIR.inputs(*tensors, **named)


def test_a_golden_that_fails_is_named_with_its_inputs() -> None:
    with pytest.raises(UsageError, match=r"kernel two: its golden fails for x \(2,\), y \(3,\): ValueError"):
        PAIR.tune(2, 3)


def test_the_terms_of_a_sum_are_the_most_that_the_shapes_allow() -> None:
    kernel = autotune.kernel(plain, space=SPACE, golden=lambda x: x.sum(axis=1))
    said = autotune.kernel(plain, space=SPACE, golden=np.abs, reduction_length=lambda x: x.shape[0])
    specs = (TensorSpec("x", (4, 96)),)
    assert (96, 4) == (kernel.kernel.reduction_length(specs), said.kernel.reduction_length(specs))


def test_a_module_that_was_edited_makes_other_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that the function's file only imports."""
    (tmp_path / "edited_helper.py").write_text("K = 1\n")
    text = "import autotune, edited_helper\n@autotune.kernel(space={'a': [1]}, golden=abs)\n"
    (tmp_path / "edited_ops.py").write_text(text + "def f(x, *, a):\n    return abs(x)\n")
    monkeypatch.syspath_prepend(tmp_path)
    kernel = importlib.import_module("edited_ops").f
    helper = importlib.import_module("edited_helper")
    before, golden = source(kernel), function_digest(lambda: helper.K)
    (tmp_path / "edited_helper.py").write_text("K = 2\n")

    assert before != source(kernel)
    assert golden != function_digest(lambda: helper.K)
