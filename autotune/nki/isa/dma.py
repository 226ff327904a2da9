"""The DMA engines: copies between HBM and SBUF, with conversion, gather, scatter, transposition, addition."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any

import numpy as np

from autotune.nki.constants import dge_mode as DgeMode
from autotune.nki.constants import engine as Engine
from autotune.nki.constants import oob_mode as OobMode
from autotune.nki.interpreter.dtypes import Array, DType, float32_of
from autotune.nki.interpreter.gather import gathered, scattered, valid_rows
from autotune.nki.interpreter.operands import moved, put, raw
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue

_MOST_SOURCES = 16
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}


def member(kind: type[Enum], given: Any) -> Any:
    """Return the member of an enumeration that a number means: published kernels still give numbers."""
    return kind(given) if type(given) is int and given in {each.value for each in kind} else given


def _check_modes(call: Call, mode: DgeMode, oob: OobMode, priority: int | None, indirect: bool) -> None:
    if not isinstance(mode, DgeMode):
        call.fail(f"dge_mode={mode!r} is no member of nki.isa.dge_mode")
    if not isinstance(oob, OobMode):
        call.fail(f"oob_mode={oob!r} is no member of nki.isa.oob_mode")
    if mode is DgeMode.hwdge:
        call.since(3)
    if priority is not None:
        call.since(4)
        if priority not in range(4):
            call.fail(f"priority={priority} is not 0 to 3", "", priority, 3)
    if oob is OobMode.skip and not indirect:
        call.fail("oob_mode.skip needs an index that is known at run time")


def _check_copy(call: Call) -> None:
    priority, oob, mode, asked = call.options
    dst, src = call.memory("dst", "hbm", "sbuf"), call.memory("src", "hbm", "sbuf")
    _check_modes(call, mode, oob, priority, bool(dst.indirect or src.indirect))
    if dst.size != src.size:
        call.fail(
            f"has {dst.size} elements {dst.shape}, src {src.size} {src.shape}", "dst", dst.size, src.size
        )
    if mode is DgeMode.hwdge and dst.dtype != src.dtype:
        call.fail(f"is {dst.dtype}, src {src.dtype}: a copy by dge_mode.hwdge converts nothing", "dst")
    if asked is not Engine.unknown and (
        mode is not DgeMode.hwdge or asked not in (Engine.sync, Engine.scalar)
    ):
        call.fail("engine is sync or scalar, and goes with dge_mode.hwdge only")
    call.engine = "dma"


def converted(values: Array, dtype: DType) -> Array:
    """Return values as a DMA passes them on: as they are, or through float32 into another dtype."""
    return values if values.dtype == dtype.numpy else float32_of(values)


def _copy(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src,), oob = writes, reads, options[1]
    if dst.layout.indirect is None and src.layout.indirect is None:
        found, written = moved(src) if dst.layout.on_chip and src.layout.on_chip else (raw(src), None)
        put(dst, converted(found, dst.dtype), written)
        return
    rows = valid_rows(src, oob)
    values = converted(gathered(src, oob) if src.layout.indirect else raw(src), dst.dtype)
    if dst.layout.indirect:
        scattered(dst, values, oob, rows if rows is not None and len(rows) == dst.shape[0] else None)
    elif rows is None:
        put(dst, values)
    else:
        mask = np.broadcast_to(rows.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        put(dst, values, mask)


_COPY = Kind("dma_copy", ("dst",), ("src",), _check_copy, _copy, moves=True)


def dma_copy(
    dst: NkiTensor,
    src: NkiTensor,
    priority: int | None = None,
    oob_mode: OobMode = OobMode.error,
    dge_mode: DgeMode = DgeMode.unknown,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Copy between HBM and SBUF, element by element, row-major; another dtype goes through float32."""
    options = (priority, member(OobMode, oob_mode), member(DgeMode, dge_mode), member(Engine, engine))
    return issue(_COPY, (dst,), (src,), options)


def _check_transpose(call: Call) -> None:
    axes, priority, mode, oob = call.options
    dst, src = call.memory("dst", "sbuf", "hbm"), call.memory("src", "hbm", "sbuf")
    _check_modes(call, mode, oob, priority, bool(src.indirect))
    expected = _AXES.get(len(src.shape))
    if expected is None:
        call.fail(
            f"has the shape {src.shape}; a DMA transposes 2, 3 or 4 dimensions", "src", len(src.shape), 4
        )
    if axes is not None and axes != expected:
        call.fail(f"axes={axes}; of {len(src.shape)} dimensions they are {expected}")
    wanted = tuple(src.shape[axis] for axis in expected)
    if dst.shape != wanted:
        call.fail(f"has the shape {dst.shape}; the transpose of src {src.shape} has {wanted}", "dst")
    call.same_dtype("src", "dst")
    if src.indirect and src.indirect[0] == "vector":
        _check_gather_transpose(call)
    elif mode is DgeMode.hwdge:
        _check_hardware_transpose(call)
    elif mode not in (DgeMode.unknown, DgeMode.none):
        call.fail(f"dge_mode.{mode.name}: a transpose takes unknown or hwdge")
    call.engine, call.flags = "dma", ("transpose",)


def _check_hardware_transpose(call: Call) -> None:
    src = call.tensor("src")
    if len(src.shape) == 2 and src.shape[0] != 16:
        call.fail(f"has {src.shape[0]} rows; by dge_mode.hwdge it has 16", "src", src.shape[0], 16)
    if len(src.shape) > 2 and (src.shape[0] not in (1, 2, 4, 8, 16) or src.shape[0] * src.shape[-2] % 16):
        call.fail(
            f"has the shape {src.shape}, which dge_mode.hwdge does not transpose", "src", src.shape[0], 16
        )
    _check_narrow(call)


def _check_narrow(call: Call) -> None:
    src = call.tensor("src")
    if src.shape[-1] > 128:
        call.fail(
            f"has rows of {src.shape[-1]} elements; up to 128 are transposed", "src", src.shape[-1], 128
        )
    if src.dtype.itemsize != 2:
        call.fail(f"is {src.dtype}; this transpose takes dtypes of two bytes", "src", src.dtype.itemsize, 2)


def _check_gather_transpose(call: Call) -> None:
    call.since(3)
    mode = call.options[2]
    if mode not in (DgeMode.unknown, DgeMode.swdge):
        call.fail(f"dge_mode.{mode.name}: a transpose by indices takes unknown or swdge")
    call.memory("src", "hbm")
    src = call.tensor("src")
    if src.shape[0] % 16:
        call.fail(f"has {src.shape[0]} rows; by indices it has a multiple of 16", "src", src.shape[0], 16)
    _check_narrow(call)
    index = call.operands["src"].index.layout
    if index.shape[0] % 16 or index.shape[0] > 128 or index.size < src.shape[0]:
        call.fail(
            f"takes {src.shape[0]} rows by indices of the shape {index.shape}", "src", index.shape[0], 128
        )


def _transpose(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src,), oob = writes, reads, options[3]
    if src.layout.on_chip and dst.layout.on_chip and src.layout.indirect is None:
        found, written = moved(src)
        axes = _AXES[found.ndim]
        put(dst, found.transpose(axes), None if written is None else written.transpose(axes))
        return
    rows = valid_rows(src, oob)
    values = gathered(src, oob) if src.layout.indirect else raw(src)
    axes = _AXES[values.ndim]
    if rows is None:
        put(dst, values.transpose(axes))
        return
    mask = np.broadcast_to(rows.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    put(dst, values.transpose(axes), mask.transpose(axes))


_TRANSPOSE = Kind("dma_transpose", ("dst",), ("src",), _check_transpose, _transpose, moves=True)


def dma_transpose(
    dst: NkiTensor,
    src: NkiTensor,
    axes: Sequence[int] | None = None,
    priority: int | None = None,
    dge_mode: DgeMode = DgeMode.unknown,
    oob_mode: OobMode = OobMode.error,
    name: str | None = None,
) -> NkiInstruction:
    """Transpose by DMA: (1, 0) of two dimensions, (2, 1, 0) of three, (3, 1, 2, 0) of four."""
    order = None if axes is None else tuple(axes)
    options = (order, priority, member(DgeMode, dge_mode), member(OobMode, oob_mode))
    return issue(_TRANSPOSE, (dst,), (src,), options)


def _check_compute(call: Call) -> None:
    oob, scales, unique = call.options[1:]
    (operator,) = call.operators(reduce_op=call.options[0])
    names = call.kind.reads
    dst = call.memory("dst", "hbm", "sbuf")
    indirect = bool(dst.indirect)
    for name in names:
        layout = call.memory(name, "hbm", "sbuf")
        indirect = indirect or bool(layout.indirect)
        if layout.size != dst.size:
            call.fail(f"has {layout.size} elements, dst {dst.size}", name, layout.size, dst.size)
    if operator.name != "add":
        call.fail(f"reduce_op={operator.name}; a DMA can add only")
    if scales is not None and any(scale != 1.0 for scale in scales):
        call.fail(f"scales={list(scales)}; all of them have to be 1.0")
    if indirect and (len(names) != 2 or not unique):
        call.fail("with indices it takes exactly two sources, and unique indices")
    _check_modes(call, DgeMode.unknown, oob, None, indirect)
    call.engine = "dma"


def _compute(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), oob = writes, options[1]
    total: Array | None = None
    rows: Array | None = None
    for src in reads:
        found = float32_of(gathered(src, oob) if src.layout.indirect else raw(src)).reshape(dst.shape)
        total = found if total is None else total + found
        kept = valid_rows(src, oob)
        rows = kept if kept is not None else rows
    assert total is not None
    if dst.layout.indirect:
        scattered(dst, total, oob)
    elif rows is None:
        put(dst, total)
    else:
        put(dst, total, np.broadcast_to(rows.reshape(-1, *[1] * (total.ndim - 1)), total.shape))


@cache
def _compute_kind(sources: int) -> Kind:
    return Kind(
        "dma_compute", ("dst",), tuple(f"srcs[{n}]" for n in range(sources)), _check_compute, _compute
    )


def dma_compute(
    dst: NkiTensor,
    srcs: Sequence[NkiTensor],
    reduce_op: Any,
    scales: Sequence[float] | None = None,
    unique_indices: bool = True,
    oob_mode: OobMode = OobMode.error,
    name: str | None = None,
) -> NkiInstruction:
    """Add up to 16 tensors by DMA, in float32."""
    sources = tuple(srcs)[: _MOST_SOURCES + 1]
    kind = _compute_kind(len(sources))
    if not 1 <= len(sources) <= _MOST_SOURCES:
        from autotune.nki.errors import NkiError

        raise NkiError(f"dma_compute: {len(tuple(srcs))} sources; it takes 1 to {_MOST_SOURCES}")
    factors = None if scales is None else tuple(scales)
    return issue(kind, (dst,), sources, (reduce_op, oob_mode, factors, bool(unique_indices)))
