"""Softmax's candidates agree with the golden for any row, however long, wide apart or extreme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import Array, draw, golden, run

from autotune.kernels import softmax

RELATIVE = {"float32": 4e-6, "float64": 1e-14}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


def config(**others: Any) -> dict[str, Any]:
    return {"variant": "three_passes", "vector_bytes": 32, "unroll": 2, "threads": 1, **others}


def assert_softmax(x: Array, folder: Path, out: Array | None = None, **others: Any) -> None:
    actual = run(softmax.kernel, config(**others), [x], folder, out)
    np.testing.assert_allclose(actual, golden(softmax.kernel, [x]), rtol=RELATIVE[x.dtype.name], atol=1e-37)


@pytest.mark.parametrize("variant", ["three_passes", "online"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 16), (7, 31), (2, 257), (4, 1024)], ids=str)
def test_any_shape(shape: tuple[int, int], dtype: str, variant: str, folder: Path) -> None:
    assert_softmax(draw(softmax.inputs(*shape, dtype=dtype).specs)[0], folder, variant=variant)


@pytest.mark.parametrize("vector_bytes", [16, 64])
@pytest.mark.parametrize("unroll", [1, 4, 8])
def test_any_width_and_unrolling(vector_bytes: int, unroll: int, folder: Path) -> None:
    x = draw(softmax.inputs(3, 211).specs)[0]
    for variant in ("three_passes", "online"):
        assert_softmax(x, folder, variant=variant, vector_bytes=vector_bytes, unroll=unroll)


@pytest.mark.parametrize("variant", ["three_passes", "online"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_values_do_not_overflow_and_small_ones_vanish(dtype: str, variant: str, folder: Path) -> None:
    x = np.linspace(-2000, 2000, 3 * 67).reshape(3, 67).astype(dtype)
    x[1, 5] = -np.inf
    assert_softmax(x, folder, variant=variant)


@pytest.mark.parametrize("variant", ["three_passes", "online"])
def test_a_nan_spoils_its_row_and_no_other(variant: str, folder: Path) -> None:
    x = draw(softmax.inputs(3, 40).specs)[0]
    x[1, 7] = np.nan
    actual = run(softmax.kernel, config(variant=variant), [x], folder)
    np.testing.assert_array_equal([False, True, False], np.isnan(actual).all(axis=1))
    assert not np.isnan(actual[[0, 2]]).any()


def test_any_strides_are_followed(folder: Path) -> None:
    x = draw(softmax.inputs(22, 90).specs)[0]
    for view in (x[::2], x[:, ::3], np.asfortranarray(x), x[::-1]):
        assert_softmax(view, folder, np.empty_like(view))


def test_threads_share_the_rows(folder: Path) -> None:
    assert_softmax(draw(softmax.inputs(11, 40).specs)[0], folder, threads=3)


def test_the_numpy_generator_agrees() -> None:
    specs = softmax.inputs(37, 131).specs
    (x,) = draw(specs)
    for each in softmax.numpy_space(specs):
        scope: dict[str, Any] = {}
        exec(softmax.numpy_source(each, specs, softmax.kernel.outputs(specs)), scope)
        actual = np.full_like(x, np.nan)
        scope["softmax"](x, actual)
        np.testing.assert_allclose(actual, golden(softmax.kernel, [x]), rtol=4e-6)
