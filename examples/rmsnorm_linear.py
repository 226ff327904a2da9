"""Tune a root-mean-square norm and the linear map behind it against NumPy's, narrow and wide."""

from __future__ import annotations

import sys

from autotune import script
from autotune.kernels import rmsnorm_linear
from autotune.model.tensors import FLOATS

SHAPES = ((4096, 512, 8), (2048, 1024, 16), (257, 509, 31))
"""(rows, depth, columns): the gates of a mixture of experts are this narrow."""


def main() -> int:
    """Read the flags and tune."""
    flags = script.parser("Tune rmsnorm and linear.", budget=24, dtypes=FLOATS).parse_args()
    inputs = [rmsnorm_linear.inputs(*shape, dtype=flags.dtype) for shape in SHAPES]
    return script.main(flags, [script.Case(rmsnorm_linear.kernel, each) for each in inputs])


if __name__ == "__main__":
    sys.exit(main())
