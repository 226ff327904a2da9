"""Tune the softmax of each row of a matrix against NumPy's, for a few rows and for many."""

from __future__ import annotations

import sys

from autotune import script
from autotune.kernels import softmax
from autotune.model.tensors import FLOATS

SHAPES = ((1024, 1024), (37, 131), (4096, 64))
"""(rows, columns)."""


def main() -> int:
    """Read the flags and tune."""
    flags = script.parser("Tune softmax.", budget=24, dtypes=FLOATS).parse_args()
    inputs = [softmax.inputs(*shape, dtype=flags.dtype) for shape in SHAPES]
    return script.main(flags, [script.Case(softmax.kernel, each) for each in inputs])


if __name__ == "__main__":
    sys.exit(main())
