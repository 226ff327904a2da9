"""Our own NKI kernels: what they compute, and what the model says of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from autotune.estimating.candidate import Candidates, Task
from autotune.kernels import attention, gemm, gemm_nki, gemm_nki_space, rmsnorm_linear, softmax, transpose
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.tensors import materialize
from autotune.model.trial import Status
from autotune.model.workload import workload
from autotune.nki import NkiError, estimate, simulate
from autotune.sites.correctness import Golden

SQUARE = ((2048, 2048), "bfloat16")
DEFAULT = {"tiles_m": 2, "tiles_k": 2, "psum_banks": 7}


def specs(m: int, n: int, k: int, *, lhs_transposed: bool) -> tuple[TensorSpec, TensorSpec]:
    lhs = (k, m) if lhs_transposed else (m, k)
    return TensorSpec("lhs", lhs, "bfloat16"), TensorSpec("rhs", (k, n), "bfloat16")


@pytest.mark.parametrize("shape", [(129, 520, 130), (5, 3, 7), (300, 1100, 257)], ids=str)
@pytest.mark.parametrize("transpose", ["none", "dma", "tensor"])
def test_edges_are_right(shape: tuple[int, int, int], transpose: str) -> None:
    m, n, k = shape
    draw = np.random.default_rng(0)
    lhs, rhs = (draw.integers(-4, 5, size).astype(bfloat16) for size in ((m, k), (k, n)))
    expected = (lhs.astype(np.float32) @ rhs.astype(np.float32)).astype(bfloat16)
    config = {**DEFAULT, "tiles_n": 2, "loop_order": "KNM", "sums": "together"}
    if transpose == "none":
        product = simulate(gemm_nki.gemm_lhsT_rhs)(np.ascontiguousarray(lhs.T), rhs, **config)
    else:
        product = simulate(gemm_nki.gemm_lhs_rhs)(lhs, rhs, transpose=transpose, **config)
    np.testing.assert_array_equal(expected, product)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sums": "apart", "drain": "vector"},
        {"loop_order": "KMN", "tiles_k": 1, "lhs_buffers": 1, "rhs_buffers": 1},
        {"loop_order": "MKN", "tiles_m": 1, "tiles_n": 2, "tiles_k": 1, "drain": "scalar"},
    ],
    ids=str,
)
def test_products_are_right(config: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    lhs = draw.integers(-4, 5, (256, 256)).astype(bfloat16)
    rhs = draw.integers(-4, 5, (256, 1024)).astype(bfloat16)
    expected = (lhs.T.astype(np.float32) @ rhs.astype(np.float32)).astype(bfloat16)
    full = {**DEFAULT, **config}
    np.testing.assert_array_equal(expected, simulate(gemm_nki.gemm_lhsT_rhs)(lhs, rhs, **full))
    straight = np.ascontiguousarray(lhs.T)
    for by in ("dma", "tensor"):
        product = simulate(gemm_nki.gemm_lhs_rhs)(straight, rhs, transpose=by, **full)
        np.testing.assert_array_equal(expected, product)


def test_estimated_above_nine_tenths_of_the_peak() -> None:
    found = estimate(gemm_nki.gemm_lhsT_rhs, SQUARE, SQUARE)
    assert found.mfu >= 0.90
    assert estimate(gemm_nki.gemm_lhs_rhs, SQUARE, SQUARE).mfu >= 0.87
    assert "tensor" == found.bound_by
    assert 2 * 2048**3 / found.us / 78.6432e6 == pytest.approx(found.mfu)
    assert 96 * 1024 <= found.peak_sbuf_bytes / 128 <= 104 * 1024  # six buffers of 16 KiB, and results


def test_too_many_banks_are_refused_with_the_line() -> None:
    with pytest.raises(NkiError) as refused:
        estimate(gemm_nki.gemm_lhs_rhs, SQUARE, SQUARE, transpose="tensor", psum_banks=8)
    assert refused.value.file.endswith("gemm_nki.py")
    assert refused.value.line > 0
    assert ("turned", "psum") == (refused.value.tensor, refused.value.memory)


def test_the_space_has_the_default_and_no_config_twice() -> None:
    for lhs_transposed in (True, False):
        space = gemm_nki_space.space(
            specs(1024, 512, 256, lhs_transposed=lhs_transposed), lhs_transposed=lhs_transposed
        )
        configs = [tuple(config.items()) for config in space]
        assert len(configs) == len(set(configs))
        assert all(config["tiles_k"] in (1, 2) and config["tiles_n"] == 1 for config in map(dict, configs))


def test_the_text_of_a_candidate_runs() -> None:
    text = gemm_nki_space.source({"tiles_m": 1, "tiles_k": 1}, (), (), lhs_transposed=True)
    names: dict[str, Any] = {"__name__": "candidate"}
    exec(compile(text, "candidate.py", "exec"), names)
    ones = np.ones((128, 128), np.float32)
    product = simulate(names["KERNEL"])(ones, np.ones((128, 256), np.float32), **names["CONFIG"])
    np.testing.assert_array_equal(np.full((128, 256), 128, np.float32), product)


def table(rows: int, columns: int, dtype: str) -> Inputs:
    return Inputs((TensorSpec("x", (rows, columns), dtype),))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kernel", "inputs"),
    [
        (softmax.kernel, lambda dtype: table(130, 515, dtype)),
        (transpose.kernel, lambda dtype: table(259, 131, dtype)),
        (rmsnorm_linear.kernel, lambda dtype: rmsnorm_linear.inputs(130, 257, 530, dtype=dtype)),
        (attention.kernel, lambda dtype: attention.inputs(130, 515, 48, dtype=dtype)),
        (gemm.lhs_rhs, lambda dtype: gemm.inputs(130, 515, 129, dtype=dtype)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_config_of_a_space_is_right_or_refused(
    kernel: Kernel, inputs: Callable[[str], Inputs], dtype: str
) -> None:
    given = inputs(dtype)
    arrays = materialize(given)
    work = workload(kernel, given, "nki", {})
    candidates = Candidates(Task(given.specs, "trn2", 0, arrays, Golden.of(kernel, given.specs, arrays)))
    configs = list(kernel.space_of("nki", given.specs))
    for config in random.Random(0).sample(configs, min(12, len(configs))):
        status, message, _ = candidates.reply(work.source(config))
        assert status is Status.OK or "does not fit" in message, (config, status, message)
