"""Reading and writing the elements of a view that lies where its layout says."""

from __future__ import annotations

import numpy as np

from autotune.nki.dtypes import Array, cast
from autotune.nki.errors import NkiError
from autotune.nki.session import current
from autotune.nki.tensor import NkiTensor


def held(tensor: NkiTensor) -> Array:
    """Return the elements of a direct view in its own dtype.

    Raises:
        NkiError: nobody wrote one of them.
    """
    storage, layout = tensor.storage, tensor.layout
    if not storage.complete and layout not in storage.written and not storage.holds(layout):
        _unwritten(tensor)
    return storage.array(layout)


def _unwritten(tensor: NkiTensor) -> None:
    if not current().strict:
        return
    storage, layout = tensor.storage, tensor.layout
    missing = np.argwhere(~storage.flags(layout))
    first = tuple(int(place) for place in missing[0])
    raise NkiError(
        f"{tensor.name} in {layout.memory.upper()} is read where nobody wrote it: element {first} of the "
        f"view {layout.shape}"
        + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
        + f"; made at {storage.life.at[0]}:{storage.life.at[1]}",
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
    if mask is None:
        target[...] = made
    else:
        target[mask] = made[mask]
    if not storage.complete:
        storage.mark(layout, mask)
