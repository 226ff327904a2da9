"""Searches within partitions: the largest eight, their places, gathers by index, nonzero elements."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import Array, bfloat16, float32, int32, uint16, uint32
from autotune.nki.interpreter.operands import flat, moved, put, raw
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue

_EIGHT = 8
_LONGEST = 16384
_GROUP = 16  # partitions of one GpSimd core


def _check_length(call: Call, name: str) -> None:
    found = call.tensor(name).elements
    if not _EIGHT <= found <= _LONGEST:
        call.fail(f"has {found} elements in a partition; it takes 8 to 16,384", name, found, _LONGEST)


def _check_eight(call: Call, name: str) -> None:
    found = call.tensor(name).elements
    if found != _EIGHT:
        call.fail(f"has {found} elements in a partition; it has to have 8", name, found, _EIGHT)


def _check_max8(call: Call) -> None:
    call.tiles("dst", "src")
    call.same_partitions("src", "dst")
    _check_length(call, "src")
    _check_eight(call, "dst")
    call.engine = "vector"


def _max8(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    put(writes[0], -np.sort(-flat(reads[0]), axis=1)[:, :_EIGHT])


_MAX8 = Kind("max8", ("dst",), ("src",), _check_max8, _max8, by_lane=True)


def max8(dst: NkiTensor, src: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Write the eight largest values of each partition, the largest first."""
    return issue(_MAX8, (dst,), (src,))


def _check_find(call: Call) -> None:
    call.tiles("dst", "data", "vals")
    call.same_partitions("data", "vals", "dst")
    _check_length(call, "data")
    _check_eight(call, "vals")
    _check_eight(call, "dst")
    call.dtype("dst", uint16, uint32)
    call.engine = "vector"


def _find(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data, vals) = writes, reads
    rows, wanted = flat(data), flat(vals)
    found = np.full(wanted.shape, dst.dtype.high, np.int64)
    for row, (line, values) in enumerate(zip(rows, wanted, strict=True)):
        used: dict[float, int] = {}  # equal values take one occurrence after the other
        for place, value in enumerate(values):
            hits = np.flatnonzero(line == value)
            turn = used.get(float(value), 0)
            if turn < len(hits):
                found[row, place] = hits[turn]
            used[float(value)] = turn + 1
    put(dst, found)


_FIND = Kind("nc_find_index8", ("dst",), ("data", "vals"), _check_find, _find, by_lane=True)


def nc_find_index8(
    dst: NkiTensor,
    data: NkiTensor,
    vals: NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Write where eight values first occur in each partition; all ones if a value does not."""
    return issue(_FIND, (dst,), (data, vals))


def _check_replace(call: Call) -> None:
    call.tiles("dst", "data", "vals")
    call.alike("data", "dst")
    call.same_partitions("data", "vals")
    _check_length(call, "data")
    _check_eight(call, "vals")
    if call.has("dst_idx"):
        call.tiles("dst_idx")
        call.same_partitions("data", "dst_idx")
        _check_eight(call, "dst_idx")
        call.dtype("dst_idx", uint16, uint32)
    call.engine = "vector"


def _replace(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, dst_idx), (data, vals, imm) = writes, reads
    rows, wanted = flat(data).copy(), flat(vals)
    high = dst_idx.dtype.high if dst_idx is not None else 0
    found = np.full(wanted.shape, high, np.int64)
    for row, (line, values) in enumerate(zip(rows, wanted, strict=True)):
        taken = np.zeros(len(line), bool)
        for place in range(_EIGHT - 1, -1, -1):
            hits = np.flatnonzero((line == values[place]) & ~taken)
            if len(hits):
                found[row, place] = hits[0]
                taken[hits[0]] = True
        rows[row, taken] = np.float32(imm)
    put(dst, rows)
    if dst_idx is not None:
        put(dst_idx, found)


_REPLACE = Kind(
    "nc_match_replace8", ("dst", "dst_idx"), ("data", "vals", "imm"), _check_replace, _replace, by_lane=True
)


def nc_match_replace8(
    dst: NkiTensor,
    data: NkiTensor,
    vals: NkiTensor,
    imm: float,
    dst_idx: NkiTensor | None = None,
    name: str | None = None,
) -> NkiInstruction:
    """Replace the first occurrence of each of eight values by a number; say where they were."""
    return issue(_REPLACE, (dst, dst_idx), (data, vals, imm))


def _check_local_gather(call: Call) -> None:
    each, valid = call.options
    for name in ("dst", "src_buffer", "index"):
        call.memory(name, "sbuf")
    call.tiles("dst", "src_buffer", "index")
    call.same_partitions("src_buffer", "index", "dst")
    call.same_dtype("src_buffer", "dst")
    call.dtype("index", uint16)
    partitions = call.tensor("index").partitions
    if partitions % _GROUP:
        call.fail(
            f"spans {partitions} partitions; it has to be a multiple of 16", "index", partitions, _GROUP
        )
    if each not in (1, 2, 4, 8, 16, 32):
        call.fail(f"num_elem_per_idx={each}: it is 1, 2, 4, 8, 16 or 32")
    held = call.tensor("index").elements * _GROUP
    count = held if valid is None else valid
    if count > held or count > 4096:
        call.fail(
            f"{count} indices for each GpSimd core; there are {held}, and 4,096 at most",
            "",
            count,
            min(held, 4096),
        )
    if call.tensor("dst").elements != count * each:
        found = call.tensor("dst").elements
        call.fail(
            f"has {found} elements in a partition; the gather makes {count * each}",
            "dst",
            found,
            count * each,
        )
    call.engine = "gpsimd"


def _rows(tensor: NkiTensor) -> tuple[Array, Array]:
    """Return the elements of each partition that a gather chooses from, and whether each was written."""
    found, written = moved(tensor)
    found = found.reshape(tensor.shape[0], -1)
    return found, np.ones(found.shape, bool) if written is None else written.reshape(found.shape)


def _local_gather(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src, index), (each, valid) = writes, reads, options
    source, written = _rows(src)
    held = raw(index).reshape(index.shape[0], -1)
    out = np.zeros((dst.shape[0], dst.layout.elements), source.dtype)
    kept = np.zeros(out.shape, bool)
    for first in range(0, len(held), _GROUP):
        group = slice(first, first + _GROUP)
        wanted = held[group].T.reshape(-1)[:valid].astype(np.int64)
        spots = (wanted[:, None] + np.arange(each)[None, :]).reshape(-1)
        inside = spots < source.shape[1]  # what lies outside is undefined: nobody writes it
        spots = spots * inside
        out[group], kept[group] = source[group, spots], written[group, spots] & inside
    put(dst, out, kept)


_LOCAL_GATHER = Kind("local_gather", ("dst",), ("src_buffer", "index"), _check_local_gather, _local_gather)


def local_gather(
    dst: NkiTensor,
    src_buffer: NkiTensor,
    index: NkiTensor,
    num_elem_per_idx: int = 1,
    num_valid_indices: int | None = None,
    name: str | None = None,
) -> NkiInstruction:
    """Gather free elements by indices that the 16 partitions of each GpSimd core share."""
    valid = None if num_valid_indices is None else int(num_valid_indices)
    return issue(_LOCAL_GATHER, (dst,), (src_buffer, index), (int(num_elem_per_idx), valid))


def _check_gather(call: Call) -> None:
    for name in ("dst", "data", "indices"):
        call.memory(name, "sbuf")
    call.tiles("dst", "data", "indices")
    call.same_partitions("data", "indices", "dst")
    call.same_elements("indices", "dst")
    call.same_dtype("data", "dst")
    call.dtype("indices", uint32)
    call.engine = "gpsimd"


def _gather(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data, indices) = writes, reads
    source, written = _rows(data)
    places = raw(indices).reshape(indices.shape[0], -1).astype(np.int64)
    if places.size and int(places.max()) >= source.shape[1]:
        raise NkiError(
            f"nc_n_gather: index {int(places.max())} is outside of data ({data.name}), which has "
            f"{source.shape[1]} elements in a partition",
            tensor=data.name,
            memory="sbuf",
            number=int(places.max()),
            limit=source.shape[1],
        )
    put(dst, np.take_along_axis(source, places, axis=1), np.take_along_axis(written, places, axis=1))


_GATHER = Kind("nc_n_gather", ("dst",), ("data", "indices"), _check_gather, _gather, by_lane=True)


def nc_n_gather(
    dst: NkiTensor,
    data: NkiTensor,
    indices: NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Gather free elements within each partition by its own indices."""
    return issue(_GATHER, (dst,), (data, indices))


def _check_nonzero(call: Call) -> None:
    call.since(3)
    for name in ("dst", "src"):
        call.memory(name, "sbuf")
    call.tiles("dst", "src")
    call.same_partitions("src", "dst")
    call.dtype("src", float32, int32)
    call.dtype("dst", int32)
    if call.tensor("dst").elements != call.tensor("src").elements + 1:
        found, wanted = call.tensor("dst").elements, call.tensor("src").elements + 1
        call.fail(
            f"has {found} elements in a partition; it takes one more than src, {wanted}", "dst", found, wanted
        )
    call.engine = "gpsimd"


def _nonzero(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src,), (offset, padding) = writes, reads, options
    lanes = range(0, src.shape[0], _GROUP)
    out = np.zeros((dst.shape[0], dst.layout.elements), np.int64)
    mask = np.zeros(out.shape, bool)
    for lane in lanes:
        row = raw(src[lane : lane + 1]).reshape(-1)
        hits = np.flatnonzero(row)
        out[lane, :-1] = padding
        out[lane, : len(hits)] = hits + offset
        out[lane, -1] = len(hits)
        mask[lane] = True
    put(dst, out, mask)


_NONZERO = Kind("nonzero_with_count", ("dst",), ("src",), _check_nonzero, _nonzero)


def nonzero_with_count(
    dst: NkiTensor,
    src: NkiTensor,
    index_offset: int = 0,
    padding_val: int = -1,
    name: str | None = None,
) -> NkiInstruction:
    """Write the places of nonzero elements, padding, and their count; for partitions 0, 16, ... 112 only."""
    return issue(_NONZERO, (dst,), (src,), (int(index_offset), int(padding_val)))


def _check_bounds(call: Call) -> None:
    call.tiles("dst", "segment_ids")
    for name in ("dst", "segment_ids"):
        call.dtype(name, float32, int32)
    if call.tensor("segment_ids").partitions != 1:
        found = call.tensor("segment_ids").partitions
        call.fail(f"spans {found} partitions; it has to be 1", "segment_ids", found, 1)
    if call.tensor("dst").elements != 2 * call.tensor("segment_ids").elements:
        found, wanted = call.tensor("dst").elements, 2 * call.tensor("segment_ids").elements
        call.fail(f"has {found} elements; it takes two for each, {wanted}", "dst", found, wanted)
    call.engine = "gpsimd"
    call.reached_by_gpsimd()


def _bounds(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    ids = flat(reads[0])[0]
    count = len(ids)
    first, last = np.full(count, count, np.int64), np.full(count, -1, np.int64)
    starts = [0, *(np.flatnonzero(np.diff(ids)) + 1), count]
    for start, end in itertools.pairwise(starts):
        if ids[start] != 0:
            first[start:end], last[start:end] = start, end
    put(writes[0], np.stack([first, last]))


_BOUNDS = Kind("sequence_bounds", ("dst",), ("segment_ids",), _check_bounds, _bounds)


def sequence_bounds(dst: NkiTensor, segment_ids: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Write where the segment of each element starts, and behind its last element; padding has id 0."""
    return issue(_BOUNDS, (dst,), (segment_ids,))


def _check_topk(call: Call) -> None:
    for name in ("val_dst", "idx_dst", "src"):
        call.memory(name, "sbuf")
    call.tiles("val_dst", "idx_dst", "src")
    call.same_partitions("src", "val_dst", "idx_dst")
    call.same_elements("val_dst", "idx_dst")
    call.dtype("src", bfloat16)
    call.dtype("val_dst", bfloat16)
    call.dtype("idx_dst", uint32)
    count, wanted = call.options, call.tensor("val_dst").elements
    src = call.tensor("src")
    if src.partitions % _GROUP:
        call.fail(
            f"spans {src.partitions} partitions; it has to be a multiple of 16", "src", src.partitions, _GROUP
        )
    if not 8 <= count < 65536 or src.elements < math.ceil(count / _GROUP):
        call.fail(
            f"n={count}: it is 8 to 65,535, and src holds {src.elements * _GROUP}",
            "",
            count,
            src.elements * _GROUP,
        )
    if wanted > count:
        call.fail(f"has {wanted} elements in a partition; n is {count}", "val_dst", wanted, count)
    call.engine = "gpsimd"


def _topk(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (val_dst, idx_dst), (src,) = writes, reads
    rows, wanted = flat(src), val_dst.layout.elements
    top, places = np.zeros((len(rows), wanted), np.float32), np.zeros((len(rows), wanted), np.int64)
    for first in range(0, len(rows), _GROUP):
        snake = rows[first : first + _GROUP].T.reshape(-1)[:options]
        order = np.argsort(snake, kind="stable")[-wanted:]
        top[first : first + _GROUP], places[first : first + _GROUP] = snake[order], order
    put(val_dst, top)
    put(idx_dst, places)


_TOPK = Kind("topk", ("val_dst", "idx_dst"), ("src",), _check_topk, _topk)


def topk(
    val_dst: NkiTensor,
    idx_dst: NkiTensor,
    src: NkiTensor,
    n: int,
    name: str | None = None,
) -> NkiInstruction:
    """Write the largest values, smallest first, and their places among n elements of 16 partitions."""
    return issue(_TOPK, (val_dst, idx_dst), (src,), int(n))
