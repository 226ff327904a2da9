"""Tune the transpose of a matrix against NumPy's copy of x.T, in and beyond the caches."""

from __future__ import annotations

import sys

from autotune import script
from autotune.kernels import transpose
from autotune.model.tensors import FLOATS

SHAPES = ((1024, 1024), (1021, 509), (2048, 2048))
"""(rows, columns)."""


def main() -> int:
    """Read the flags and tune."""
    flags = script.parser("Tune transpose.", budget=24, dtypes=FLOATS).parse_args()
    inputs = [transpose.inputs(*shape, dtype=flags.dtype) for shape in SHAPES]
    return script.main(flags, [script.Case(transpose.kernel, each) for each in inputs])


if __name__ == "__main__":
    sys.exit(main())
