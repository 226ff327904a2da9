"""Reading and writing the elements of a view that lies where its layout says."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import Array, cast
from autotune.nki.interpreter.session import current
from autotune.nki.interpreter.tensor import NkiTensor


def held(tensor: NkiTensor) -> Array:
    """Return the elements of a direct view in its own dtype.

    An instruction that computes each partition by itself may get partitions that nobody wrote, as of a ragged
    tile: they read as 0 here, and what it makes of them stays unwritten (`write`).

    Raises:
        NkiError: nobody wrote one of the elements.
    """
    storage, layout = tensor.storage, tensor.layout
    if not storage.complete and layout not in storage.written and not storage.holds(layout):
        program = current()
        if program.strict:
            return _lanes(tensor) if program.by_lane else _unwritten(tensor)
    if storage.sharing is not None:
        storage.sharing.reads(current().index, layout)
    return storage.array(layout)


def _lanes(tensor: NkiTensor) -> Array:
    """Return a tile of which whole partitions were not written, and note which were."""
    flags = tensor.storage.flags(tensor.layout).reshape(tensor.shape[0], -1)
    whole = np.asarray(flags.all(axis=1))
    if not bool(whole.any()) or bool((flags.any(axis=1) & ~whole).any()):
        return _unwritten(tensor)
    program = current()
    program.lanes = whole if program.lanes is None else program.lanes & whole
    found: Array = tensor.storage.array(tensor.layout).copy()
    found[~whole] = 0
    return found


def _unwritten(tensor: NkiTensor) -> NoReturn:
    storage, layout = tensor.storage, tensor.layout
    missing = np.argwhere(~storage.flags(layout))
    first = tuple(int(place) for place in missing[0])
    raise NkiError(
        f"{tensor.name} in {layout.memory.upper()} is read where nobody wrote it: element {first} of the "
        f"view {layout.shape}"
        + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
        + f"; made at {storage.life.at[0]}:{storage.life.at[1]}"
        + ("" if storage.sharing is None else "; if the other core writes it, they need a core_barrier"),
        tensor=tensor.name,
        memory=layout.memory,
        number=len(missing),
        limit=0,
    )


def write(tensor: NkiTensor, given: Array, where: Array | None = None) -> None:
    """Write values into a direct view, converted to its dtype; with a mask, only there."""
    storage, layout = tensor.storage, tensor.layout
    target = storage.array(layout)
    made = cast(given, layout.dtype)
    if made.shape != layout.shape:
        made = made.reshape(layout.shape) if made.size == layout.size else np.broadcast_to(made, layout.shape)
    mask = None if where is None else where.reshape(layout.shape)
    lanes = current().lanes
    if lanes is not None:
        rows = np.broadcast_to(lanes.reshape(-1, *[1] * (len(layout.shape) - 1)), layout.shape)
        mask = rows if mask is None else mask & rows
    if storage.sharing is not None:
        kept = made if mask is None else np.where(mask, made, target)
        storage.sharing.writes(current().index, layout, target, kept)
    if mask is None:
        target[...] = made
    else:
        target[mask] = made[mask]
    if not storage.complete:
        storage.mark(layout, mask)
