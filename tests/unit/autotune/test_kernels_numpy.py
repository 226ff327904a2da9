"""The NumPy sources and the baselines of every kernel are right in every float; C says which it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune import Inputs, Kernel, script, tune
from autotune.kernels import attention, gemm, rmsnorm_linear, softmax, transpose
from autotune.model.errors import UsageError
from autotune.model.tensors import FLOATS, dtype_of, materialize
from autotune.sites.correctness import Golden
from autotune.verify import own_kernels

ROOT = Path(__file__).parents[3]
DEPTH = 300
EXAMPLE = """
import sys
from autotune import script
from autotune.kernels import gemm
from autotune.model.tensors import FLOATS
flags = script.parser("Tune a small product.", budget=2, dtypes=FLOATS).parse_args()
sys.exit(script.main(flags, [script.Case(gemm.lhs_rhs, gemm.inputs(8, 8, 64, dtype=flags.dtype))]))
"""


def inputs_of(kernel: Kernel, dtype: str) -> Inputs:
    """Return inputs of a kernel that have several blocks and a rest."""
    made = {
        "attention": lambda: attention.inputs(70, 40, 16, dtype=dtype),
        "gemm_lhs_rhs": lambda: gemm.inputs(33, 40, DEPTH, dtype=dtype),
        "gemm_lhsT_rhs": lambda: gemm.inputs(33, 40, DEPTH, lhs_transposed=True, dtype=dtype),
        "rmsnorm_linear": lambda: rmsnorm_linear.inputs(70, DEPTH, 5, dtype=dtype),
        "softmax": lambda: softmax.inputs(70, DEPTH, dtype=dtype),
        "transpose": lambda: transpose.inputs(70, DEPTH, dtype=dtype),
    }
    return made[kernel.name]()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kernel", own_kernels().values(), ids=lambda kernel: kernel.name)
def test_source_and_baseline_are_right(kernel: Kernel, dtype: str) -> None:
    inputs = inputs_of(kernel, dtype)
    arrays, outputs = materialize(inputs), kernel.outputs(inputs.specs)
    golden = Golden.of(kernel, inputs.specs, arrays)
    configs = list(kernel.space_of("numpy", inputs.specs))
    for config in (configs[0], configs[len(configs) // 2], configs[-1]):
        scope: dict[str, Any] = {}
        exec(kernel.generators["numpy"](config, inputs.specs, outputs), scope)
        written = [np.zeros(spec.shape, dtype_of(spec)) for spec in outputs]
        scope[kernel.entry](*arrays, *written)
        assert golden.compare(written) is None, config
    returned = zip(kernel.baselines["NumPy"](*arrays), outputs, strict=True)
    assert golden.compare([array.astype(dtype_of(spec)) for array, spec in returned]) is None
    assert kernel.bytes_moved(inputs.specs) == sum(each.nbytes for each in (*arrays, *written))


IN_C = [kernel for kernel in own_kernels().values() if "c" in kernel.generators]


@pytest.mark.parametrize("kernel", IN_C, ids=lambda kernel: kernel.name)
def test_c_says_which_dtypes_it_has_and_who_has_the_others(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"C is of float32 or float64, not bfloat16; .* --backend numpy"):
        tune(kernel, inputs_of(kernel, "bf16"), cache_dir=tmp_path)


def test_the_examples_offer_every_float_and_take_short_names() -> None:
    flags = script.parser("Tune it.", budget=1, dtypes=FLOATS)
    assert "bfloat16" == flags.parse_args(["--dtype", "bf16"]).dtype
    with pytest.raises(SystemExit):
        flags.parse_args(["--dtype", "fp8"])


@pytest.mark.parametrize(("backend", "code", "says"), [("numpy", 0, "8x"), ("c", 64, "--backend numpy")])
def test_an_example_tunes_bfloat16(backend: str, code: int, says: str, tmp_path: Path) -> None:
    words = ["--dtype", "bf16", "--backend", backend, "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (code, True) == (done.returncode, says in done.stdout + done.stderr), done
