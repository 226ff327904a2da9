"""The normed linear map agrees with the golden, fused or not, for any shape, strides and type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import Array, draw, golden, run

from autotune.kernels import rmsnorm_linear

ABSOLUTE = {"float32": 1e-6, "float64": 2e-15}
"""For each term of the sum."""
NORMS = ["in_weights", "in_blocks", "before"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


def assert_layer(arrays: list[Array], folder: Path, out: Array | None = None, **others: Any) -> None:
    first = {"norm": "in_weights", "tiles_per_block": 2, "vector_bytes": 32, "register_tile": "4x2"}
    config = {**first, "unroll_k": 2, "threads": 1, **others}
    actual = run(rmsnorm_linear.kernel, config, arrays, folder, out)
    expected = golden(rmsnorm_linear.kernel, arrays)
    tolerance = ABSOLUTE[arrays[0].dtype.name] * (arrays[0].shape[1] + 10)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
def test_any_shape(norm: str, dtype: str, folder: Path) -> None:
    for shape in [(1, 1, 1), (1, 67, 19), (5, 3, 1), (31, 37, 41), (64, 128, 32)]:
        assert_layer(draw(rmsnorm_linear.inputs(*shape, dtype=dtype).specs), folder, norm=norm)


@pytest.mark.parametrize("norm", NORMS)
def test_any_strides_are_followed(norm: str, folder: Path) -> None:
    x, gain, weight = draw(rmsnorm_linear.inputs(34, 60, 40).specs)
    y = np.empty((34, 40), np.float32)
    assert_layer(
        [
            x[::2],
            gain,
            weight,
        ],
        folder,
        y[::2],
        norm=norm,
    )
    assert_layer([x[:, ::3], gain[::3], weight[::3, ::2]], folder, y[:, ::2], norm=norm)
    assert_layer(
        [np.asfortranarray(x), gain, np.asfortranarray(weight)], folder, np.asfortranarray(y), norm=norm
    )


@pytest.mark.parametrize("norm", NORMS)
def test_threads_share_the_rows(norm: str, folder: Path) -> None:
    assert_layer(draw(rmsnorm_linear.inputs(29, 24, 18).specs), folder, norm=norm, threads=3)


def test_a_row_of_zeros_stays_zero(folder: Path) -> None:
    x, gain, weight = draw(rmsnorm_linear.inputs(6, 40, 20).specs)
    x[2] = 0
    assert_layer([x, gain, weight], folder)


def test_the_numpy_generator_agrees() -> None:
    specs = rmsnorm_linear.inputs(100, 60, 30).specs
    arrays = draw(specs)
    for each in rmsnorm_linear.numpy_space(specs):
        scope: dict[str, Any] = {}
        exec(rmsnorm_linear.numpy_source(each, specs, rmsnorm_linear.kernel.outputs(specs)), scope)
        actual = np.full((100, 30), np.nan, np.float32)
        scope["rmsnorm_linear"](*arrays, actual)
        np.testing.assert_allclose(actual, golden(rmsnorm_linear.kernel, arrays), rtol=0, atol=1e-4)
