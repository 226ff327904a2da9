"""The operands of an instruction as arrays: in their own dtype, or in float32 as engines compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.interpreter.access import held, write
from autotune.nki.interpreter.dtypes import Array, float32_of
from autotune.nki.interpreter.gather import gathered, scattered
from autotune.nki.interpreter.tensor import NkiTensor


def raw(tensor: NkiTensor) -> Array:
    """Return the elements of a tensor in its own dtype, after checking that they were written."""
    return held(tensor) if tensor.layout.indirect is None else gathered(tensor)


def moved(tensor: NkiTensor) -> tuple[Array, Array | None]:
    """Return what a copy or a transpose takes from a tile, and a mask of what was written; None if all was.

    Moving computes with nothing, and ragged tiles are commonly moved whole. So what nobody wrote stays
    unwritten where it goes, and is refused when something computes with it or stores it; a tile of which
    nothing was written is refused at once.
    """
    storage, layout = tensor.storage, tensor.layout
    if layout.indirect is not None or storage.holds(layout) or storage.untouched(layout):
        return raw(tensor), None
    return storage.array(layout), storage.flags(layout)


def turned(tensor: NkiTensor) -> tuple[Array, Array | None]:
    """Return a tile as `moved` does, but transposed."""
    rows = tensor.shape[0]
    found, mask = moved(tensor)
    return found.reshape(rows, -1).T, None if mask is None else mask.reshape(rows, -1).T


def values(operand: Any, like: NkiTensor | None = None) -> Any:
    """Return an operand in float32; a vector broadcasts over the shape of another operand."""
    if not isinstance(operand, NkiTensor):
        return np.float32(operand)
    found = float32_of(raw(operand))
    if like is not None:
        found = found.reshape(found.shape[0], *([1] * (len(like.shape) - 1)))
    return found


def flat(operand: NkiTensor) -> Array:
    """Return the elements in float32, a row for each partition."""
    return float32_of(raw(operand)).reshape(operand.shape[0], -1)


def put(tensor: NkiTensor, given: Array, where: Array | None = None) -> None:
    """Write values into a tensor, converted to its dtype; with a mask, only there."""
    if tensor.layout.indirect is None:
        write(tensor, given, where)
    else:
        scattered(tensor, given)
