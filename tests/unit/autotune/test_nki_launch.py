"""Launching kernels: decorators, arguments, results, two cores, and scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from autotune.nki import NkiError, NkiWarning, isa, jit, simulate
from autotune.nki import language as nl
from autotune.nki.launch import record

ROOT = Path(__file__).parents[3]
X = np.arange(32, dtype=np.float32).reshape(4, 8)


@jit
def double(x: Any, factor: float = 2.0) -> Any:
    """Multiply by a factor."""
    tile = nl.load(x)
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.multiply(tile, factor))
    return out


def test_a_kernel_is_called_as_it_is_or_simulated() -> None:
    for call in (double, simulate(double), double[1], simulate(double, target="trn1")):
        np.testing.assert_array_equal(2 * X, call(X))
    np.testing.assert_array_equal(3 * X, double(X, factor=3.0))
    np.testing.assert_array_equal(2 * X, double.with_schedule([("later", "earlier")])(X))
    np.testing.assert_array_equal(3 * X, jit(mode="trace")(double.function)(X, 3.0))


def test_arrays_of_ml_dtypes_go_in_and_come_out() -> None:
    result = double(X.astype(ml_dtypes.bfloat16))
    assert ml_dtypes.bfloat16 == result.dtype
    np.testing.assert_array_equal(2 * X, result.astype(np.float32))


def test_arguments_in_containers_and_objects_become_tensors() -> None:
    @dataclass
    class Pair(nl.NKIObject):
        left: Any
        right: Any = None

    def kernel(pairs: Any, named: Any) -> Any:
        out = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        total = nl.load(pairs[0].left)
        for each in (pairs[0].right, named["more"]):
            total = nl.add(total, nl.load(each))
        nl.store(out, total)
        return {"sum": out, "rows": out.shape[0]}

    made = simulate(kernel)((Pair(X, X),), named={"more": X})
    assert 4 == made["rows"]
    np.testing.assert_array_equal(3 * X, made["sum"])


@pytest.mark.parametrize("x", [np.zeros((4, 8), np.float32), np.zeros((8, 4), np.float32).T])
def test_an_input_is_written_in_place(x: Any) -> None:
    def kernel(target: Any) -> None:
        nl.store(target, nl.ones((4, 8), nl.float32))

    simulate(kernel)(x)
    assert 32.0 == x.sum()


def test_an_array_that_may_not_be_written_is_copied() -> None:
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(2 * X, double(x))


def test_platform_target_is_refused_as_nki_does() -> None:
    with pytest.raises(NkiError, match="NEURON_PLATFORM_TARGET_OVERRIDE"):
        jit(platform_target="trn1")(double.function)


def test_the_environment_chooses_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "gen4")
    seen: list[Any] = []
    simulate(lambda: seen.append(isa.get_nc_version()))()
    assert [isa.nc_version.gen4] == seen
    assert seen[0] >= isa.nc_version.gen3


def test_device_print_and_print_show_values(capsys: pytest.CaptureFixture[str]) -> None:
    def kernel(x: Any) -> None:
        tile = nl.load(x)
        nl.device_print("tile", tile[0:1, 0:2])
        print(tile[0:1, 1:3])

        half = nl.ndarray((1, 4), nl.float32)
        isa.memset(half[:, 0:2], 1.0)
        print(half)

    simulate(kernel)(X)
    shown = capsys.readouterr().out
    assert "<half: float32[1, 4] in SBUF, partly unwritten\n[[ 1.  1. nan nan]]>\n" in shown
    assert "tile\n[[0. 1.]]\n<tile: float32[1, 2] in SBUF\n[[1. 2.]]>\n" in shown


# Registers and loops


def test_loops_over_registers() -> None:
    def kernel(x: Any, count: Any) -> Any:
        out = nl.zeros((4, 8), nl.float32, buffer=nl.shared_hbm)
        total = nl.zeros((1, 8), nl.float32)
        bound = isa.register_alloc()
        isa.register_load(bound, nl.load(count))

        def add_row(row: Any) -> None:
            part = nl.ndarray((1, 8), nl.float32)
            isa.dma_copy(part, x.ap([[8, 1], [1, 8]], scalar_offset=row, indirect_dim=0))
            isa.tensor_tensor(total, total, part, nl.add)

        nl.fori_loop(1, bound, add_row)
        for row in nl.dynamic_range(bound):
            add_row(row)
        nl.store(out[0:1], total)
        return out

    made = simulate(kernel)(X, np.array([[3]], np.int32))
    np.testing.assert_array_equal(X[1:3].sum(0) + X[:3].sum(0), made[0])


def test_a_while_loop_ends_when_its_register_is_zero() -> None:
    def kernel() -> Any:
        left = nl.full((1, 1), 3, nl.int32)
        total = nl.zeros((1, 1), nl.float32)
        out = nl.ndarray((1, 1), nl.float32, buffer=nl.shared_hbm)

        def body(register: Any) -> Any:
            isa.tensor_scalar(total, total, nl.add, 1.0)
            isa.tensor_scalar(left, left, nl.subtract, 1.0)
            isa.register_load(register, left)
            return register

        nl.while_loop(isa.register_alloc(3), body)
        register = isa.register_alloc(2)
        while register:
            isa.tensor_scalar(total, total, nl.add, 10.0)
            isa.register_move(register, register - 1)
        nl.store(out, total)
        return out

    assert 23.0 == simulate(kernel)()[0, 0]


def test_a_number_known_at_run_time_only_cannot_bound_a_recorded_loop() -> None:
    def kernel(count: Any) -> None:
        bound = isa.register_alloc()
        isa.register_load(bound, nl.load(count))
        nl.fori_loop(0, bound, lambda _: None)

    with pytest.raises(NkiError, match="only recorded"):
        record(kernel, [((1, 1), "int32")])


# Two cores


def test_two_cores_share_hbm_and_meet() -> None:
    def kernel(x: Any) -> Any:
        core, cores = nl.program_id(0), nl.num_programs(0)
        assert (2, 1) == (cores, nl.program_ndim())
        whole = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        rows = slice(core * 2, core * 2 + 2)
        nl.store(whole[rows], nl.multiply(nl.load(x[rows]), 2.0))
        isa.core_barrier(whole, (0, 1))
        out = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        other = slice(2 - core * 2, 4 - core * 2)
        nl.store(out[other], nl.load(whole[other]))  # what the other core wrote
        return out

    np.testing.assert_array_equal(2 * X, simulate(jit(kernel)[2])(X))


def test_without_the_barrier_it_fails_in_every_run() -> None:
    def kernel(x: Any) -> Any:
        whole = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        core = nl.program_id(0)
        nl.store(whole[core * 2 : core * 2 + 2], nl.load(x[core * 2 : core * 2 + 2]))
        return nl.load(whole)

    for _ in range(3):
        with pytest.raises(NkiError, match="whole in HBM is read where nobody wrote it"):
            simulate(jit(kernel)[2])(X)


def test_cores_exchange_tiles() -> None:
    def kernel(x: Any) -> Any:
        core = nl.program_id(0)
        mine, theirs = nl.ndarray((16, 8), nl.float32), nl.ndarray((16, 8), nl.float32)
        isa.dma_copy(mine[:2], x[core * 2 : core * 2 + 2])  # the rest is padding that nobody writes
        isa.sendrecv(mine, theirs, send_to_rank=1 - core, recv_from_rank=1 - core, pipe_id=0)
        out = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        nl.store(out[core * 2 : core * 2 + 2], theirs[:2])
        return out

    np.testing.assert_array_equal(np.concatenate([X[2:], X[:2]]), simulate(jit(kernel)[2])(X))


def both_write(x: Any, *, barrier: bool, factor: float) -> Any:
    """Write a tensor on both cores; core 1 writes `factor` times what core 0 writes."""
    core = nl.program_id(0)
    tile = nl.ndarray((4, 8), nl.float32)
    isa.tensor_scalar(tile, nl.load(x), nl.multiply, factor if core else 1.0)
    out = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
    if core == 0:
        nl.store(out, tile)
    if barrier:
        isa.core_barrier(out, (0, 1))
    if core == 1:
        nl.store(out, tile)
    return out


def test_cores_that_write_one_place_without_a_barrier_are_warned_of() -> None:
    with pytest.warns(NkiWarning, match="core 1 writes out in shared HBM where core 0 touches it"):
        simulate(jit(both_write)[2])(X, barrier=False, factor=2.0)


@pytest.mark.parametrize(("barrier", "factor"), [(True, 2.0), (False, 1.0)])
@pytest.mark.filterwarnings("error")
def test_cores_may_write_one_place_in_order_or_alike(barrier: bool, factor: float) -> None:
    made = simulate(jit(both_write)[2])(X, barrier=barrier, factor=factor)
    np.testing.assert_array_equal(X * factor, made)


def test_a_core_that_reads_without_a_barrier_is_warned_of() -> None:
    def kernel(x: Any, places: Any) -> Any:
        out = nl.ndarray((4, 8), nl.float32, buffer=nl.shared_hbm)
        tile = nl.load(x)
        if nl.program_id(0) == 0:
            nl.store(out.ap([[8, 4], [1, 8]], vector_offset=nl.load(places), indirect_dim=0), tile)
        else:
            isa.dma_copy(tile, out.ap([[8, 4], [1, 8]], vector_offset=nl.load(places), indirect_dim=0))
        return out

    with pytest.warns(NkiWarning, match="core 1 reads out in shared HBM where core 0 writes it"):
        made = simulate(jit(kernel)[2])(X, np.arange(4, dtype=np.int32)[::-1].reshape(4, 1))
    np.testing.assert_array_equal(X[::-1], made)


def test_a_core_that_waits_in_vain_is_told_so() -> None:
    def kernel(x: Any) -> None:
        if nl.program_id(0) == 0:
            isa.core_barrier(x, (0, 1))

    with pytest.raises(NkiError, match=r"core 0 waits in core_barrier at .* core 1 has ended"):
        simulate(jit(kernel)[2])(X)


def test_an_error_of_one_core_ends_both() -> None:
    def kernel(x: Any) -> None:
        if nl.program_id(0) == 1:
            nl.ndarray((129, 1), nl.float32)
        isa.core_barrier(x, (0, 1))

    with pytest.raises(NkiError, match="129 partitions"):
        simulate(jit(kernel)[2])(X)


def test_a_kernel_spans_at_most_two_cores() -> None:
    with pytest.raises(NkiError, match="1 or 2 on trn2"):
        double[4](X)
    with pytest.raises(NkiError, match="asks for 2 cores; a kernel spans 1 on trn1"):
        simulate(double[2], target="trn1")(X)


# Scripts

SCRIPT = """\
import sys
import numpy as np
import nki, nki.isa as nisa, nki.language as nl
from nki.isa.constants import engine

@nki.jit
def kernel(x):
    rows = int(sys.argv[1])
    tile = nl.ndarray((rows, 4), nl.float32, buffer=nl.sbuf)
    nisa.memset(tile, 1.0, engine=engine.vector)
    out = nl.ndarray((rows, 4), nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out

print(nki.simulate(kernel)(np.zeros((1, 1), np.float32)).sum())
"""


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script above by the command line."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "autotune", "nki", "run", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


def test_a_script_finds_the_interpreter(tmp_path: Path) -> None:
    done = run(tmp_path, "--memory", "script.py", "8")
    told = "nki: interpreted on this CPU within the limits of trn2; nothing ran on a device\n"
    assert (0, "32.0\n", told) == (done.returncode, done.stdout, done.stderr[: len(told)])
    assert "SBUF at its peak: 16 of 229,376 bytes a partition" in done.stderr


def test_a_scripts_kernel_that_is_refused_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--target", "trn1", "script.py", "200")
    lines = done.stderr.splitlines()
    assert (65, "") == (done.returncode, done.stdout)
    assert lines[-1].endswith(
        "script.py:9: tile has 200 partitions; SBUF has 128: the first dimension of a tensor on chip is its "
        "partitions, so tile it"
    )


def test_a_table_of_who_holds_what_is_printed_in_lines(tmp_path: Path) -> None:
    many = "    nisa.memset(tile, 1.0, engine=engine.vector)\n"
    kept = "    kept = [nl.zeros((128, 2048), nl.float32) for _ in range(40)]\n"
    used = "    for each in kept: nisa.tensor_copy(tile, each[0:rows, 0:4])\n"
    script = SCRIPT.replace(many, many + kept + used)
    (tmp_path / "other.py").write_text(script)
    done = run(tmp_path, "other.py", "8")
    lines = done.stderr.splitlines()
    assert (65, "SBUF at its peak: 327,696 of 229,376 bytes a partition") == (done.returncode, lines[-3])
    assert lines[-2].startswith("    327,680  kept (40 x 8,192)")


def test_a_stub_named_nki_is_not_taken_for_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "nki").mkdir()
    (tmp_path / "nki" / "__init__.py").write_text("raise RuntimeError('install from another index')\n")
    code = "from autotune.nki import activate; print(activate()); import nki; print(nki.jit.__module__)"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ("True\nautotune.nki.launch\n", "") == (done.stdout, done.stderr)


def test_a_real_one_is_left_alone_unless_forced(tmp_path: Path) -> None:
    for name, text in (
        ("__init__", "def jit(fn): pass\n"),
        ("language", "def ndarray(): pass\n"),
        ("isa", "def nc_matmul(): pass\n"),
    ):
        (tmp_path / "nki").mkdir(exist_ok=True)
        (tmp_path / "nki" / f"{name}.py").write_text(text)
    code = (
        "from autotune.nki import activate; print(activate()); import nki; print(nki.__file__ is not None);"
        "print(activate(force=True)); import nki.language; print(nki.language.__name__)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ("False\nTrue\nTrue\nautotune.nki.language\n", "") == (done.stdout, done.stderr)
