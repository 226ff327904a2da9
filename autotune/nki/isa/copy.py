"""Copies within SBUF and PSUM: whole, by a predicate, across partitions; and filling with a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.nki.constants import engine as Engine
from autotune.nki.interpreter.dtypes import Array, bool_, float32_of, uint8, uint16, uint32
from autotune.nki.interpreter.operands import moved, put, raw, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.machine import QUADRANT

_UNMODIFIED = 255  # in a shuffle's mask: leave this partition alone


def _check_copy(call: Call) -> None:
    call.tiles("dst", "src")
    call.alike("src", "dst")
    asked = call.runs_on(call.options, "vector", "scalar", "gpsimd")
    if asked == "scalar" and call.machine.generation < 3:
        call.fail("the scalar engine of trn1 does not have it; use activation with op=nl.copy")


def through_float32(source: Array, dtype: np.dtype[Any]) -> Array:
    """Return values unchanged if the dtypes are the same, otherwise in float32."""
    return source if source.dtype == dtype else float32_of(source)


def _give(dst: NkiTensor, made: Array, mask: Array | None = None) -> None:
    """Write values, and note of a tile in PSUM that a matmul must not add to them before trn3."""
    put(dst, made, mask)
    if dst.layout.memory == "psum":
        dst.storage.valued = bool(np.any(made))


def _copy(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src,) = writes, reads
    found, mask = moved(src)
    _give(dst, through_float32(found, dst.dtype.numpy), mask)


_COPY = Kind("tensor_copy", ("dst",), ("src",), _check_copy, _copy)


def tensor_copy(
    dst: NkiTensor,
    src: NkiTensor,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Copy a tile within SBUF and PSUM: bit by bit if the dtypes agree, otherwise through float32."""
    return issue(_COPY, (dst,), (src,), engine)


def _check_memset(call: Call) -> None:
    call.tiles("dst")
    dst, value = call.tensor("dst").dtype, call.operands["value"]
    call.runs_on(call.options[0], "vector", "gpsimd")
    call.op = "zero" if call.options[1] else ""
    if not isinstance(value, (int, float, np.generic)):
        call.fail(f"value has to be a number, not {type(value).__name__}")
    if dst.kind == "packed" and value != 0:
        call.fail(f"is {dst}, whose elements are packed by four: it can be set to 0 only", "dst")
    if dst.kind == "int" and isinstance(value, (float, np.floating)):
        call.fail(f"is {dst}: the value has to be an integer, not {value!r}", "dst")


def _memset(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (value,) = writes, reads
    exact = dst.dtype.kind == "int" and not isinstance(value, (float, np.floating))
    _give(dst, np.asarray(value, dtype=np.int64 if exact else np.float32))


_MEMSET = Kind("memset", ("dst",), ("value",), _check_memset, _memset)


def memset(
    dst: NkiTensor,
    value: float,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Fill a tile of SBUF or PSUM with a constant, an integer if the tile holds integers."""
    return issue(_MEMSET, (dst,), (value,), (engine, value == 0))


def _check_predicated(call: Call) -> None:
    call.tiles("dst", "predicate")
    call.alike("predicate", "dst")
    call.dtype("predicate", uint8, uint16, uint32, bool_)
    if call.has("src"):
        call.tiles("src")
        call.alike("predicate", "src")
        call.same_dtype("src", "dst")
        call.not_both_psum("src", "predicate")
    else:
        call.per_partition("src", "dst")
    call.engine = "vector"


def _predicated(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src, predicate) = writes, reads
    mask = (raw(predicate) != 0).reshape(dst.shape)
    found = raw(src) if isinstance(src, NkiTensor) else values(src)
    put(dst, found, ~mask if options else mask)


_PREDICATED = Kind(
    "tensor_copy_predicated", ("dst",), ("src", "predicate"), _check_predicated, _predicated, by_lane=True
)


def tensor_copy_predicated(
    dst: NkiTensor,
    src: float | NkiTensor,
    predicate: NkiTensor,
    reverse_pred: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Copy a tile or a number to where a predicate is true, and leave the rest as it is."""
    return issue(_PREDICATED, (dst,), (src, predicate), bool(reverse_pred))


def _check_shuffle(call: Call) -> None:
    call.tiles("dst", "src")
    call.same_dtype("src", "dst")
    call.same_elements("src", "dst")
    if len(call.options) != QUADRANT:
        call.fail(
            f"shuffle_mask has {len(call.options)} numbers; it has to have 32", "", len(call.options), 32
        )
    for place in call.options:
        if place != _UNMODIFIED and not 0 <= place < QUADRANT:
            call.fail(f"shuffle_mask has {place}; it holds 0 to 31, or 255", "", place, QUADRANT - 1)
    call.engine = "vector"


def _shuffle(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src,) = writes, reads
    found, flags = moved(src)
    source = found.reshape(src.shape[0], -1)
    written = np.ones(source.shape, bool) if flags is None else flags.reshape(source.shape)
    made = np.zeros((dst.shape[0], source.shape[1]), source.dtype)
    kept = np.zeros(made.shape, bool)
    for partition in range(dst.shape[0]):
        quadrant, lane = divmod(partition, QUADRANT)
        place = options[lane]
        taken = quadrant * QUADRANT + place
        if place != _UNMODIFIED and taken < len(source):
            made[partition], kept[partition] = source[taken], written[taken]
    put(dst, made, kept)


_SHUFFLE = Kind("nc_stream_shuffle", ("dst",), ("src",), _check_shuffle, _shuffle)


def nc_stream_shuffle(
    dst: NkiTensor,
    src: NkiTensor,
    shuffle_mask: Sequence[int],
    name: str | None = None,
) -> NkiInstruction:
    """Move whole partitions within each 32: partition i gets shuffle_mask[i], and 255 leaves it as it is."""
    return issue(_SHUFFLE, (dst,), (src,), tuple(int(place) for place in shuffle_mask))
