"""Floats of 8 and 16 bits in NumPy: computed in float32, as hardware does it, and rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels.c_source import C_TYPES
from autotune.model.kernel import Specs
from autotune.model.tensors import dtype_of

Golden = Callable[..., tuple[NDArray[Any], ...]]


def is_narrow(specs: Specs) -> bool:
    """Return whether a generator of NumPy source must have these tensors widened.

    NumPy adds up bfloat16 and float8 in themselves, so that a sum of ones ends at 256 or at 16. Its product
    of float16 matrices does not go through the BLAS.
    """
    return any(spec.dtype not in C_TYPES for spec in specs)


def baseline(golden: Golden) -> Golden:
    """Return what NumPy users write: the golden's code, which computes with narrow floats in float32."""

    def widened(*inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return golden(*(each.astype(np.float32) if each.itemsize < 4 else each for each in inputs))

    return widened


def total_bytes(*specs: Specs) -> int:
    """Return the bytes of all elements of some tensors."""
    counts = ((int(np.prod(spec.shape)), dtype_of(spec).itemsize) for group in specs for spec in group)
    return sum(count * size for count, size in counts)
