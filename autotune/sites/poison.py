"""Poison: the values that fill outputs, and surround all tensors, before a candidate is called."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.tensors import is_float

_WORDS = {
    "float8_e4m3fn": (0x7D, 0xFD),
    "float8_e4m3": (0x7A, 0x76),
    "float8_e5m2": (0x7D, 0x7A),
    "float16": (0x7DA5, 0x7BA5),
    "bfloat16": (0x7FA5, 0x7F25),
    "float32": (0x7FA5A5A5, 0x7F25A5A5),
    "float64": (0x7FF5A5A5A5A5A5A5, 0x7FE5A5A5A5A5A5A5),
}
"""First a signalling NaN with a payload, which no instruction makes, then a finite number near the largest.
The two NaNs of float8_e4m3fn are what instructions make, and overflow may give them: it has 416 and -416."""
_BYTES = (0xA5, 0x5A)
"""Of integers: far from the values that kernels compute. Of bool: illegal."""
TURNS = 2


@functools.cache
def word(dtype: np.dtype[Any], turn: int) -> int:
    """Return the bits of one poisoned element.

    There are two poisons. An element that was not written is wrong under at least one of them, even if it
    should be NaN, or if one of them happens to be the right value.

    Args:
        dtype: the element type.
        turn: 0 or 1.
    """
    if is_float(dtype):
        return _WORDS[dtype.name][turn]
    return int.from_bytes(bytes([_BYTES[turn]]) * dtype.itemsize, "little")


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array's elements as unsigned integers, without a copy."""
    return array.view(f"u{array.dtype.itemsize}")


def is_poison(array: NDArray[Any], turn: int) -> NDArray[np.bool_]:
    """Return which elements still are the poison, bit for bit."""
    found: NDArray[np.bool_] = bits(array) == word(array.dtype, turn)
    return found
