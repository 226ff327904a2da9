"""Transpose's candidates move every element to its place, and touch nothing else."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import compiled, draw, run

from autotune.kernels import transpose

SHAPES = [(1, 1), (1, 33), (33, 1), (16, 16), (31, 61), (64, 48), (129, 67)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


def config(**others: Any) -> dict[str, Any]:
    first = {"method": "shuffle", "vector_bytes": 16, "block_rows": 32, "block_columns": 16}
    return {**first, "outer": "rows", "inner": "columns", "threads": 1, **others}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["plain", "shuffle"])
def test_any_shape(method: str, shape: tuple[int, int], dtype: str, folder: Path) -> None:
    (x,) = draw(transpose.inputs(*shape, dtype=dtype).specs)
    np.testing.assert_array_equal(x.T, run(transpose.kernel, config(method=method), [x], folder))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
@pytest.mark.parametrize("outer", ["rows", "columns"])
def test_any_vector_and_order(vector_bytes: int, outer: str, dtype: str, folder: Path) -> None:
    (x,) = draw(transpose.inputs(97, 71, dtype=dtype).specs)
    whole = np.full((73, 99), 7.0, dtype)
    each = config(vector_bytes=vector_bytes, outer=outer, inner=outer)
    np.testing.assert_array_equal(x.T, run(transpose.kernel, each, [x], folder, whole[1:-1, 1:-1]))
    whole[1:-1, 1:-1] = 7.0
    np.testing.assert_array_equal(np.full_like(whole, 7.0), whole)


@pytest.mark.parametrize("side", [1, 7, 16, 61, 128])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_square_is_transposed_in_place(side: int, dtype: str, folder: Path) -> None:
    (x,) = draw(transpose.inputs(side, side, dtype=dtype).specs)
    each = config(method="in_place", block_columns=32)
    np.testing.assert_array_equal(x.T, run(transpose.kernel, each, [x], folder))
    square = x.copy()
    library = ctypes.CDLL(compiled(transpose.kernel, each, [x], folder).path)
    library.transpose_in_place(ctypes.c_void_p(square.ctypes.data))
    np.testing.assert_array_equal(x.T, square)


def test_any_strides_are_followed(folder: Path) -> None:
    (x,) = draw(transpose.inputs(60, 90).specs)
    for view in (x[::2], x[:, ::3], np.asfortranarray(x), x[::-1]):
        np.testing.assert_array_equal(view.T, run(transpose.kernel, config(), [view], folder))


def test_threads_share_the_rows(folder: Path) -> None:
    (x,) = draw(transpose.inputs(50, 20).specs)
    np.testing.assert_array_equal(x.T, run(transpose.kernel, config(threads=3), [x], folder))


def test_only_squares_are_tried_in_place() -> None:
    methods = {each["method"] for each in transpose.kernel.space(transpose.inputs(64, 32).specs)}
    assert {"shuffle"} == methods


def test_the_numpy_generator_agrees() -> None:
    specs = transpose.inputs(100, 300).specs
    (x,) = draw(specs)
    for each in transpose.numpy_space(specs):
        scope: dict[str, Any] = {}
        exec(transpose.numpy_source(each, specs, transpose.kernel.outputs(specs)), scope)
        actual = np.full_like(x.T, np.nan)
        scope["transpose"](x, actual)
        np.testing.assert_array_equal(x.T, actual)
