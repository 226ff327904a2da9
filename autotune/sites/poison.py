"""Poison: the values that fill outputs, and surround all tensors, before a candidate is called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = {
    "float16": (0x7DA5, 0x7BA5),
    "float32": (0x7FA5A5A5, 0x7F25A5A5),
    "float64": (0x7FF5A5A5A5A5A5A5, 0x7FE5A5A5A5A5A5A5),
}
"""First a NaN with a payload that no instruction makes, then a finite number near the largest."""
_BYTES = (0xA5, 0x5A)
"""Of integers: far from the values that kernels compute. Of bool: illegal."""
TURNS = 2


def word(dtype: np.dtype[Any], turn: int) -> int:
    """Return the bits of one poisoned element.

    There are two poisons. An element that was not written is wrong under at least one of them, even if it
    should be NaN, or if one of them happens to be the right value.

    Args:
        dtype: the element type.
        turn: 0 or 1.
    """
    if dtype.kind == "f":
        return _WORDS[dtype.name][turn]
    return int.from_bytes(bytes([_BYTES[turn]]) * dtype.itemsize, "little")


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array's elements as unsigned integers, without a copy."""
    return array.view(f"u{array.dtype.itemsize}")


def is_poison(array: NDArray[Any], turn: int) -> NDArray[np.bool_]:
    """Return which elements still are the poison, bit for bit."""
    found: NDArray[np.bool_] = bits(array) == word(array.dtype, turn)
    return found
