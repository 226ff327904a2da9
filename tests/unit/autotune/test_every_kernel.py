"""Every kernel that comes with the package is tuned with every backend that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune import Budget, Inputs, Kernel, Timing, tune
from autotune.kernels import gemm, rmsnorm_linear, softmax, transpose
from autotune.verify import own_kernels

BRIEF = Timing(warmup_s=0, max_s=0.1)
SMALL = {
    "gemm_lhs_rhs": gemm.inputs(17, 32, 19),
    "gemm_lhsT_rhs": gemm.inputs(17, 32, 19, lhs_transposed=True),
    "rmsnorm_linear": rmsnorm_linear.inputs(17, 32, 5),
    "softmax": softmax.inputs(17, 32),
    "transpose": transpose.inputs(17, 32),
}
EVERY = [(kernel, backend) for kernel in own_kernels().values() for backend in kernel.generators]


@pytest.mark.parametrize(("kernel", "backend"), EVERY, ids=lambda each: getattr(each, "name", each))
def test_a_kernel_is_tuned_with_its_own_space(kernel: Kernel, backend: str, tmp_path: Path) -> None:
    inputs: Inputs = SMALL[kernel.name]

    results = tune(kernel, inputs, backend=backend, budget=Budget(trials=3), timing=BRIEF, cache_dir=tmp_path)

    assert {"ok"} == {trial.status.value for trial in results.trials}, results.trials
    assert kernel.space_of(backend, inputs.specs).parameters.keys() == results.trials[0].config.keys()
