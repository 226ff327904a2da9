"""Every kernel that comes with the package keeps the contract of kernels."""

from __future__ import annotations

import pytest

from autotune import Inputs, Kernel
from autotune.kernels import attention, gemm, rmsnorm_linear, softmax, transpose
from autotune.testing import KernelContract
from autotune.verify import own_kernels

SMALL = {
    "attention": attention.inputs(17, 32, 8),
    "gemm_lhs_rhs": gemm.inputs(17, 32, 19),
    "gemm_lhsT_rhs": gemm.inputs(17, 32, 19, lhs_transposed=True),
    "rmsnorm_linear": rmsnorm_linear.inputs(17, 32, 5),
    "softmax": softmax.inputs(17, 32),
    "transpose": transpose.inputs(17, 32),
}


class TestEveryKernel(KernelContract):
    """With each backend that it has."""

    @pytest.fixture(params=own_kernels())
    def case(self, request: pytest.FixtureRequest) -> tuple[Kernel, Inputs]:
        """Return one kernel."""
        return own_kernels()[request.param], SMALL[request.param]
