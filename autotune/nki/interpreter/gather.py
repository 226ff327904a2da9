"""Views whose place is known at run time only: a scalar offset, a row for each partition, free offsets."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.constants import oob_mode as OobMode
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.access import held, write
from autotune.nki.interpreter.dtypes import Array, cast
from autotune.nki.interpreter.layout import Layout
from autotune.nki.interpreter.session import current
from autotune.nki.interpreter.tensor import NkiTensor, view

_GROUP = 16  # partitions that share a list of free offsets on the vector, scalar and GpSimd engines


def index_values(index: Any) -> Array:
    """Return the integers that a tensor or a register holds; a tensor's, column after column."""
    if isinstance(index, NkiTensor):
        found = held(index)
        return np.asarray(found.reshape(found.shape[0], -1).T.reshape(-1), dtype=np.int64)
    return np.array([int(index)], dtype=np.int64)


def _outside(tensor: NkiTensor, found: Array, size: int, oob: OobMode) -> Array:
    """Tell which indices are inside; raise if one is not and the kernel did not ask to skip it."""
    inside = (found >= 0) & (found < size)
    if oob is not OobMode.skip and not bool(inside.all()):
        worst = int(found[~inside][0])
        raise NkiError(
            f"index {worst} is outside of {tensor.name}: the dimension has {size} elements; "
            "oob_mode=nisa.oob_mode.skip leaves such accesses out",
            tensor=tensor.name,
            memory=tensor.layout.memory,
            number=worst,
            limit=size,
        )
    return inside


def direct(tensor: NkiTensor, oob: OobMode = OobMode.error) -> Layout | None:
    """Return the layout that a scalar offset leads to; None if it is outside and to be skipped."""
    layout = tensor.layout
    assert layout.indirect is not None
    _, stride, size = layout.indirect
    place = index_values(tensor.index)[:1]
    if not bool(_outside(tensor, place, size, oob)[0]):
        return None
    moved = layout.offset + int(place[0]) * stride
    return layout.derive(layout.shape, layout.strides, moved)


def places(tensor: NkiTensor, oob: OobMode = OobMode.error) -> tuple[Array, Array]:
    """Return the element numbers in the storage that a view means, and which of its rows are inside."""
    layout = tensor.layout
    assert layout.indirect is not None
    kind, stride, size = layout.indirect
    if kind == "free":
        return _free_places(tensor, size, oob)
    rows = index_values(tensor.index)[: layout.shape[0]]
    if len(rows) < layout.shape[0]:
        raise NkiError(f"{tensor.name}: {len(rows)} indices for {layout.shape[0]} rows", tensor=tensor.name)
    inside = _outside(tensor, rows, size, oob)
    spot = layout.offset + np.where(inside, rows, 0) * stride
    for count, step in zip(layout.shape[1:], layout.strides[1:], strict=True):
        spot = spot[..., None] + np.arange(count) * step
    return spot, inside


def _free_places(tensor: NkiTensor, size: int, oob: OobMode) -> tuple[Array, Array]:
    layout = tensor.layout
    count = layout.shape[1]
    offsets = held(tensor.index)
    offsets = offsets.reshape(offsets.shape[0], -1).astype(np.int64)
    number = np.arange(count)
    spots = []
    for partition in range(layout.shape[0]):
        group = partition // _GROUP * _GROUP
        spots.append(offsets[group + number % _GROUP, number // _GROUP])
    free = np.array(spots)
    _outside(tensor, free.reshape(-1), size, oob)
    return layout.offset + np.arange(layout.shape[0])[:, None] * layout.strides[0] + free, np.ones(0, bool)


def _elements(tensor: NkiTensor) -> Array:
    """Return the whole storage as one row of the view's dtype."""
    data = tensor.storage.data
    if data is None:
        raise NkiError(f"{tensor.name} has no data here: the kernel is only being recorded")
    size = tensor.dtype.itemsize
    return data[: len(data) // size * size].view(tensor.dtype.numpy)


def gathered(tensor: NkiTensor, oob: OobMode = OobMode.error) -> Array:
    """Return what an indirect view reads; rows that are skipped hold row 0."""
    storage, layout = tensor.storage, tensor.layout
    assert layout.indirect is not None
    if layout.indirect[0] == "scalar":
        found = direct(tensor, oob)
        if found is None:
            return np.zeros(layout.shape, layout.dtype.numpy)
        return held(view(tensor.storage, found))
    spots, inside = places(tensor, oob)
    if not storage.complete and current().strict:
        _check_written(tensor, spots, inside)
    try:
        values = np.asarray(_elements(tensor)[spots])
    except IndexError:
        raise _reaches_beyond(tensor, spots) from None
    if storage.sharing is not None:
        storage.sharing.reads(current().index, layout, spots[inside] if len(inside) == len(spots) else spots)
    return values


def _reaches_beyond(tensor: NkiTensor, spots: Array) -> NkiError:
    held = len(_elements(tensor))
    return NkiError(
        f"the view of {tensor.name} reaches element {int(spots.max())}; it has {held}",
        tensor=tensor.name,
        memory=tensor.layout.memory,
        number=int(spots.max()),
        limit=held,
    )


def _check_written(tensor: NkiTensor, spots: Array, inside: Array) -> None:
    storage = tensor.storage
    if storage.shadow is None:
        raise NkiError(f"{tensor.name} is read where nobody wrote it", tensor=tensor.name)
    starts = spots[inside] if len(inside) == len(spots) else spots
    marks = storage.shadow[np.asarray(starts).reshape(-1) * tensor.dtype.itemsize]
    if not bool(marks.all()):
        raise NkiError(
            f"{tensor.name} in {tensor.layout.memory.upper()} is read where nobody wrote it",
            tensor=tensor.name,
            memory=tensor.layout.memory,
        )


def valid_rows(tensor: NkiTensor, oob: OobMode) -> Array | None:
    """Return which rows of an indirect view are inside; None if all are."""
    indirect = tensor.layout.indirect
    if indirect is None or oob is not OobMode.skip:
        return None
    if indirect[0] == "scalar":
        inside = direct(tensor, oob) is not None
        return None if inside else np.zeros(tensor.shape[0], bool)
    _, rows = places(tensor, oob)
    return None if bool(rows.all()) else rows


def scattered(
    tensor: NkiTensor, given: Array, oob: OobMode = OobMode.error, rows: Array | None = None
) -> None:
    """Write values where an indirect view points, only in the rows given if some are."""
    storage, layout = tensor.storage, tensor.layout
    assert layout.indirect is not None
    if layout.indirect[0] == "scalar":
        found = direct(tensor, oob)
        if found is not None:
            write(view(tensor.storage, found), given)
        return
    spots, inside = places(tensor, oob)
    keep = inside if rows is None else inside & rows
    made = np.broadcast_to(cast(given.reshape(layout.shape), layout.dtype), layout.shape)
    if len(keep) == len(spots) and not bool(keep.all()):
        spots, made = spots[keep], made[keep]
    data = _elements(tensor)
    try:
        if storage.sharing is not None:
            storage.sharing.writes(current().index, layout, data[spots], made, spots)
        data[spots] = made
    except IndexError:
        raise _reaches_beyond(tensor, spots) from None
    if not storage.complete:
        size = layout.dtype.itemsize
        if storage.shadow is None:
            storage.shadow = np.zeros(storage.root.bytes, np.uint8)
        for byte in range(size):
            storage.shadow[spots.reshape(-1) * size + byte] = 255
