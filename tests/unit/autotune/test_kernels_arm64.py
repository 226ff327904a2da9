"""The kernels' C is right on arm64: cross-compiled, and run under QEMU, which computes but does not time."""

from __future__ import annotations

import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import Array, draw, golden

from autotune.kernels import c_source, gemm, rmsnorm_linear, softmax, transpose
from autotune.model.kernel import Inputs, Kernel, Specs
from autotune.model.space import Config
from tests import needs

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
pytestmark = needs.skip_without(*needs.ARM64)
TOLERANCE = {"float32": 2e-5, "float64": 2e-14}
DTYPES = ["float32", "float64"]
SAMPLED = 1
"""How many configs of each space are tried."""


@pytest.fixture(autouse=True, params=[1, pytest.param(5, marks=pytest.mark.long)])
def arm64(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the default spaces be those of an arm64 host; the long form tries more of their configs."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys.modules[__name__], "SAMPLED", request.param)
    c_source.host_vector_bytes.cache_clear()
    yield
    monkeypatch.undo()
    c_source.host_vector_bytes.cache_clear()


def emulated(kernel: Kernel, config: Config, arrays: list[Array], specs: Specs, folder: Path) -> Array:
    """Return what a candidate writes on arm64, NaN where it writes nothing."""
    (output,) = kernel.outputs(specs)
    source = kernel.generators["c"](config, specs, (output,))
    sizes = {f"in{i}": array.size for i, array in enumerate(arrays)}
    reads = "".join(f"    if (fread({name}, sizeof {name}, 1, stdin) != 1) return 1;\n" for name in sizes)
    count = int(np.prod(output.shape))
    main = (
        "\n#include <stdio.h>\n"
        + "".join(f"static T {name}[{size}];\n" for name, size in sizes.items())
        + f"static T out[{count}];\n\nint main(void) {{\n{reads}"
        + f'    for (int i = 0; i < {count}; i++) out[i] = __builtin_nan("");\n'
        + f"    {kernel.entry}({', '.join(sizes)}, out);\n"
        + "    return fwrite(out, sizeof out, 1, stdout) != 1;\n}\n"
    )
    text, program = folder / "candidate.c", folder / "candidate"
    text.write_text(source + main, encoding="ascii")
    flags = ("-O3", "-fno-math-errno", "-Wall", "-Werror", "-static")
    subprocess.run([COMPILER, *flags, "-o", program, text, "-lm", "-lpthread"], check=True, timeout=120)
    given = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    done = subprocess.run([EMULATOR, program], input=given, capture_output=True, check=True, timeout=120)
    return np.frombuffer(done.stdout, output.dtype).reshape(output.shape)


def assert_right(kernel: Kernel, inputs: Inputs, folder: Path, **method: Any) -> None:
    """Try a few configs of the default space of this method; method names what they have in common."""
    configs = [each for each in kernel.space(inputs.specs) if method.items() <= each.items()]
    assert configs, "the default space of an arm64 host has no such config"
    arrays = draw(inputs.specs)
    expected = golden(kernel, arrays)
    for config in random.Random(0).sample(configs, min(SAMPLED, len(configs))):
        actual = emulated(kernel, config, arrays, inputs.specs, folder)
        tolerance = TOLERANCE[actual.dtype.name] * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=str(config))


def test_vectors_have_16_bytes_and_32_registers() -> None:
    assert (16, 32) == (c_source.host_vector_bytes(), c_source.host_registers())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 31, 67), (131, 257, 130)], ids=str)
@pytest.mark.parametrize("kernel", [gemm.lhs_rhs, gemm.lhsT_rhs], ids=lambda kernel: kernel.name)
def test_products(kernel: Kernel, shape: tuple[int, int, int], dtype: str, tmp_path: Path) -> None:
    transposed = kernel is gemm.lhsT_rhs
    assert_right(kernel, gemm.inputs(*shape, lhs_transposed=transposed, dtype=dtype), tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_whose_vectors_run_along_k(dtype: str, tmp_path: Path) -> None:
    assert_right(gemm.lhs_rhs, gemm.inputs(13, 1, 67, dtype=dtype), tmp_path, vector_axis="K")


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_operands_that_are_not_packed(dtype: str, tmp_path: Path) -> None:
    inputs = gemm.inputs(31, 37, 41, dtype=dtype)
    for pack_lhs, pack_rhs in [(False, False), (True, False), (False, True)]:
        assert_right(gemm.lhs_rhs, inputs, tmp_path, pack_lhs=pack_lhs, pack_rhs=pack_rhs, threads=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["three_passes", "online"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 101)], ids=str)
def test_softmax(variant: str, shape: tuple[int, int], dtype: str, tmp_path: Path) -> None:
    assert_right(softmax.kernel, softmax.inputs(*shape, dtype=dtype), tmp_path, variant=variant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["in_weights", "in_blocks", "before"])
def test_rmsnorm_linear(norm: str, dtype: str, tmp_path: Path) -> None:
    for shape in [(1, 67, 19), (31, 37, 41)]:
        assert_right(rmsnorm_linear.kernel, rmsnorm_linear.inputs(*shape, dtype=dtype), tmp_path, norm=norm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("method", "shape"), [("shuffle", (1, 33)), ("shuffle", (97, 71)), ("in_place", (61, 61))], ids=str
)
def test_transpose(method: str, shape: tuple[int, int], dtype: str, tmp_path: Path) -> None:
    assert_right(transpose.kernel, transpose.inputs(*shape, dtype=dtype), tmp_path, method=method)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_without_vectors(dtype: str, tmp_path: Path) -> None:
    inputs = transpose.inputs(19, 23, dtype=dtype)
    config = {**next(iter(transpose.kernel.space(inputs.specs))), "method": "plain"}
    (x,) = draw(inputs.specs)
    np.testing.assert_array_equal(x.T, emulated(transpose.kernel, config, [x], inputs.specs, tmp_path))


def test_threads_share_the_work(tmp_path: Path) -> None:
    inputs = softmax.inputs(64, 33)
    config = {"variant": "online", "vector_bytes": 16, "unroll": 2, "threads": 3}
    arrays = draw(inputs.specs)
    actual = emulated(softmax.kernel, config, arrays, inputs.specs, tmp_path)
    np.testing.assert_allclose(actual, golden(softmax.kernel, arrays), rtol=0, atol=1e-6)
