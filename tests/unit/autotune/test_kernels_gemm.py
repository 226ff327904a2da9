"""The matrix product's candidates compute the product, whatever the shape, strides, type and schedule."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import Array, draw, golden, run

from autotune.kernels import gemm
from autotune.model.kernel import Kernel
from autotune.model.space import Config, Value

ROUNDING = {"float32": 1e-6, "float64": 2e-15}
"""Of a sum of products of standard normals, for each term."""

SHAPES = [
    (1, 1, 1),
    (1, 17, 5),
    (19, 1, 3),
    (5, 3, 1),
    (2, 67, 13),
    (31, 61, 37),
    (97, 101, 103),
    (129, 32, 64),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


def assert_product(
    kernel: Kernel, config: Config, arrays: list[Array], folder: Path, out: Array | None = None
) -> None:
    depth = arrays[1].shape[0]
    expected = golden(kernel, arrays)
    actual = run(kernel, config, arrays, folder, out)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ROUNDING[arrays[0].dtype.name] * (depth + 10))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [gemm.lhs_rhs, gemm.lhsT_rhs], ids=lambda kernel: kernel.name)
def test_any_shape_is_multiplied(
    kernel: Kernel, shape: tuple[int, int, int], dtype: str, folder: Path
) -> None:
    specs = gemm.inputs(*shape, lhs_transposed=kernel is gemm.lhsT_rhs, dtype=dtype).specs
    config = random.Random(str((shape, dtype))).choice(list(kernel.space(specs)))
    assert_product(kernel, config, draw(specs), folder)


def blocked(order: str, lhs_position: int, rhs_position: int, **others: Value) -> dict[str, Value]:
    return {
        "loop_order": order,
        "lhs_position": lhs_position,
        "rhs_position": rhs_position,
        "NUM_BLOCK_M": 2,
        "NUM_BLOCK_N": 2,
        "NUM_BLOCK_K": 3,
        "register_tile": "4x1",
        "vector_bytes": 16,
        **others,
    }


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("MNK")])
def test_any_nest_of_loops_packs_what_it_reads(order: str, folder: Path) -> None:
    arrays = draw(gemm.inputs(19, 23, 29).specs)
    for positions in itertools.product(range(3), range(3)):
        config = blocked(order, *positions)
        if gemm.packs_once(config):
            assert_product(gemm.lhs_rhs, config, arrays, folder)


@pytest.mark.parametrize("pack_lhs", [False, True])
@pytest.mark.parametrize("pack_rhs", [False, True])
def test_an_operand_may_be_read_where_it_lies(pack_lhs: bool, pack_rhs: bool, folder: Path) -> None:
    config = blocked("MNK", 2, 2, pack_lhs=pack_lhs, pack_rhs=pack_rhs)
    for columns in (24, 27):
        assert_product(gemm.lhs_rhs, config, draw(gemm.inputs(19, columns, 29).specs), folder)


def test_nothing_past_the_last_row_is_read(folder: Path) -> None:
    """The last row ends where its page does, and the next page cannot be read."""
    lhs, rhs = draw(gemm.inputs(9, 27, 16).specs)
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = np.frombuffer(memory, np.float32, rhs.size, mmap.PAGESIZE - rhs.nbytes).reshape(rhs.shape)
    end[...] = rhs
    protected = ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0)
    assert protected == 0
    config = blocked("MNK", 2, 2, pack_rhs=False)
    assert_product(gemm.lhs_rhs, config, [lhs, end], folder)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [gemm.lhs_rhs, gemm.lhsT_rhs], ids=lambda kernel: kernel.name)
def test_few_columns_are_summed_along_k(kernel: Kernel, dtype: str, folder: Path) -> None:
    for columns, tile, pack in [(1, "8x1", False), (3, "4x3", True), (5, "2x2", True)]:
        specs = gemm.inputs(13, columns, 67, lhs_transposed=kernel is gemm.lhsT_rhs, dtype=dtype).specs
        config = blocked("NKM", 2, 1, vector_axis="K", register_tile=tile, NUM_BLOCK_M=1, NUM_BLOCK_N=1)
        assert_product(kernel, {**config, "pack_lhs": pack, "pack_rhs": pack}, draw(specs), folder)


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
@pytest.mark.parametrize("tile", ["1x1", "3x2", "6x4"])
def test_any_register_tile_keeps_to_the_matrix(vector_bytes: int, tile: str, folder: Path) -> None:
    config = blocked("NKM", 2, 1, register_tile=tile, vector_bytes=vector_bytes, NUM_BLOCK_M=1, NUM_BLOCK_N=1)
    whole = np.full((41 + 2, 131 + 2), 7.0, np.float32)
    inside = whole[1:-1, 1:-1]
    assert_product(gemm.lhs_rhs, config, draw(gemm.inputs(41, 131, 10).specs), folder, inside)
    inside[...] = 7.0
    np.testing.assert_array_equal(np.full_like(whole, 7.0), whole)


@pytest.mark.parametrize("pack_lhs", [False, True])
def test_any_strides_are_followed(pack_lhs: bool, folder: Path) -> None:
    lhs, rhs = draw(gemm.inputs(60, 80, 70).specs)
    out = np.empty((60, 80), np.float32)
    views = {
        "every other row": (lhs[::2], rhs, out[::2]),
        "every other of K": (lhs[:, ::2], rhs[::2], out),
        "every third column": (lhs, rhs[:, ::3], out[:, ::3]),
        "transposed in memory": (np.asfortranarray(lhs), np.asfortranarray(rhs), np.asfortranarray(out)),
        "backwards": (lhs[::-1], rhs, out),
    }
    config = blocked("NKM", 2, 1, pack_lhs=pack_lhs)
    for a, b, c in views.values():
        assert_product(gemm.lhs_rhs, config, [a, b], folder, c)


@pytest.mark.parametrize("shape", [(64, 16, 8), (8, 96, 8)], ids=["rows shared out", "columns shared out"])
def test_threads_share_the_longer_side(shape: tuple[int, int, int], folder: Path) -> None:
    config = blocked("NKM", 2, 1, threads=3, NUM_BLOCK_M=1, NUM_BLOCK_N=1, NUM_BLOCK_K=1)
    assert_product(gemm.lhs_rhs, config, draw(gemm.inputs(*shape).specs), folder)


def test_the_space_has_no_two_configs_that_do_the_same() -> None:
    specs = gemm.inputs(256, 256, 256).specs
    outputs = gemm.lhs_rhs.outputs(specs)
    sources = [gemm.lhs_rhs.generators["c"](config, specs, outputs) for config in gemm.lhs_rhs.space(specs)]
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize("kernel", [gemm.lhs_rhs, gemm.lhsT_rhs], ids=lambda kernel: kernel.name)
def test_every_config_of_the_numpy_generator_multiplies(kernel: Kernel) -> None:
    transposed = kernel is gemm.lhsT_rhs
    specs = gemm.inputs(257, 258, 259, lhs_transposed=transposed).specs
    arrays = draw(specs)
    expected = golden(kernel, arrays)
    for config in gemm.numpy_space(specs, lhs_transposed=transposed):
        scope: dict[str, Any] = {}
        exec(kernel.generators["numpy"](config, specs, kernel.outputs(specs)), scope)
        actual = np.full_like(expected, np.nan)
        scope[kernel.entry](*arrays, actual)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-4)


def test_flops_and_bytes_are_those_of_the_mathematics() -> None:
    specs = gemm.inputs(3, 5, 7).specs
    assert (2 * 3 * 5 * 7, 4 * (3 * 7 + 7 * 5 + 3 * 5)) == (
        gemm.lhs_rhs.flops(specs),
        gemm.lhs_rhs.bytes_moved(specs),
    )
