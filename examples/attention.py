"""Tune attention of one head: in NumPy against what one writes without a tuner; in NKI by estimates."""

from __future__ import annotations

import sys

from autotune import script
from autotune.kernels import attention
from autotune.model.tensors import FLOATS

SHAPES = ((37, 131, 64), (1024, 1024, 128))
"""(queries, keys, depth)."""


def main() -> int:
    """Read the flags and tune."""
    parser = script.parser("Tune attention of one head.", budget=16, dtypes=FLOATS)
    parser.set_defaults(backend="numpy")
    flags = parser.parse_args()
    inputs = [attention.inputs(*shape, dtype=flags.dtype) for shape in SHAPES]
    return script.main(flags, [script.Case(attention.kernel, each) for each in inputs])


if __name__ == "__main__":
    sys.exit(main())
