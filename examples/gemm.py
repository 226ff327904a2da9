"""Tune C = A B and C = AᵀB against NumPy's matmul, for three shapes: one small, one odd, one large."""

from __future__ import annotations

import sys

from autotune import script
from autotune.kernels import gemm
from autotune.model.tensors import FLOATS

SHAPES = ((128, 512, 128), (129, 512, 128), (1024, 1024, 1024))
"""(M, N, K)."""

MODES = {"lhs_rhs": ("lhs_rhs",), "lhsT_rhs": ("lhsT_rhs",), "both": ("lhs_rhs", "lhsT_rhs")}


def case(mode: str, shape: tuple[int, int, int], dtype: str) -> script.Case:
    """Return one product to tune."""
    transposed = mode == "lhsT_rhs"
    inputs = gemm.inputs(*shape, lhs_transposed=transposed, dtype=dtype)
    return script.Case(gemm.lhsT_rhs if transposed else gemm.lhs_rhs, inputs)


def main() -> int:
    """Read the flags and tune."""
    parser = script.parser("Tune the matrix product.", budget=16, dtypes=FLOATS)
    parser.add_argument(
        "--mode", choices=tuple(MODES), default="both", help="which product (default: %(default)s)"
    )
    flags = parser.parse_args()
    return script.main(
        flags, [case(mode, shape, flags.dtype) for mode in MODES[flags.mode] for shape in SHAPES]
    )


if __name__ == "__main__":
    sys.exit(main())
