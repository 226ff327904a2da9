"""The tensor engine: matrix multiplication and transposition."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from autotune.nki.constants import engine as Engine
from autotune.nki.constants import matmul_perf_mode as PerfMode
from autotune.nki.errors import NkiError, NkiWarning, kernel_line
from autotune.nki.interpreter.dtypes import (
    FP8,
    FULL_FLOATS,
    Array,
    bfloat16,
    cast,
    float8_e4m3,
    float8_e4m3fn,
    float16,
    float32,
    float32_of,
)
from autotune.nki.interpreter.operands import flat, put, turned
from autotune.nki.interpreter.session import Program, current
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.machine import PARTITIONS, PSUM_BANK_BYTES, QUADRANT, STATIONARY_FREE

_MOVING_FREE = 512  # elements, before trn3
_WHOLE: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # no tiling of the systolic array
_INPUTS = frozenset((*FP8, bfloat16, float16, *FULL_FLOATS))


def check_bank(call: Call, name: str) -> None:
    """Check that a matmul's output lies within one bank of PSUM (on trn3: within PSUM)."""
    layout = call.tensor(name)
    if call.machine.generation < 4 and not layout.in_one_bank():
        _, _, low, high = layout.place()
        low, high = layout.base + low, layout.base + high
        call.fail(
            f"spans bytes {low:,} to {high:,} of a partition of PSUM, which is more than one bank of "
            f"{PSUM_BANK_BYTES:,} bytes; one matmul writes within one bank",
            name,
            high - low,
            PSUM_BANK_BYTES,
        )


def _tile(call: Call, position: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of the systolic array that a matmul uses."""
    if not position and not size:
        return PARTITIONS, STATIONARY_FREE
    if len(position) != 2 or len(size) != 2:
        call.fail("tile_position and tile_size have to be given together, two numbers each")
    smallest = QUADRANT if call.machine.generation >= 3 else 2 * QUADRANT
    for at, span in zip(position, size, strict=True):
        if span not in (32, 64, 128) or span < smallest:
            call.fail(
                f"tile_size={size}: the sizes are {smallest} to 128, by powers of two", "", span, smallest
            )
        if at % span or at + span > PARTITIONS:
            call.fail(
                f"tile_position={position}: {at} has to be a multiple of {span} below 128", "", at, PARTITIONS
            )
    return size[0], size[1]


def _check_dtypes(call: Call, transposes: bool, mode: PerfMode) -> None:
    stationary, moving, dst = (call.tensor(name).dtype for name in ("stationary", "moving", "dst"))
    if transposes:
        if dst != stationary and dst != moving:
            call.fail(f"is {dst}; a transpose keeps the dtype, {stationary}", "dst")
        return
    for name in ("stationary", "moving"):
        call.dtype(name, *sorted(_INPUTS))
    if (stationary in FULL_FLOATS) != (moving in FULL_FLOATS):
        call.fail(
            f"is {moving} and stationary is {stationary}: both have to be float32, or neither", "moving"
        )
    if {stationary, moving} == {float8_e4m3, float8_e4m3fn}:
        call.fail("float8_e4m3 and float8_e4m3fn cannot be multiplied with each other")
    if float8_e4m3fn in (stationary, moving):
        call.since(4) if call.machine.generation < 4 else None
    call.dtype("dst", *((float32,) if call.machine.generation < 4 else (float32, bfloat16)))
    if mode is PerfMode.double_row:
        call.since(3)
        for name in ("stationary", "moving"):
            call.dtype(name, *sorted(FP8))


def _check_matmul(call: Call) -> None:
    transposes, _, (position, size), mode = call.options
    dst = call.memory("dst", "psum")
    call.memory("stationary", "sbuf")
    call.memory("moving", "sbuf")
    call.tiles("dst", "stationary", "moving")
    rows, columns = _tile(call, position, size)
    stationary, moving = call.tensor("stationary"), call.tensor("moving")
    call.same_partitions("stationary", "moving")
    if stationary.partitions > rows:
        call.fail(f"spans {stationary.partitions} partitions; the tile has {rows} rows", "stationary")
    pair = 1
    if mode is PerfMode.double_row:
        pair = 2
        for name in ("stationary", "moving"):
            shape = call.tensor(name).shape
            if len(shape) < 3 or shape[1] != 2:
                call.fail(f"has the shape {shape}; with double_row its second dimension is 2", name)
    width, length = stationary.elements // pair, moving.elements // pair
    if width > columns:
        call.fail(f"has {width} free elements; a matmul takes {columns}", "stationary", width, columns)
    longest = _MOVING_FREE if call.machine.generation < 4 else call.machine.moving_bytes // dst.dtype.itemsize
    if length > longest:
        call.fail(f"has {length} free elements; a matmul takes {longest}", "moving", length, longest)
    if dst.partitions != width:
        call.fail(
            f"spans {dst.partitions} partitions; stationary has {width} free elements",
            "dst",
            dst.partitions,
            width,
        )
    if dst.elements != length:
        call.fail(
            f"has {dst.elements} elements in a partition; moving has {length}", "dst", dst.elements, length
        )
    _check_dtypes(call, transposes, mode)
    check_bank(call, "dst")
    call.engine = "tensor"
    flags = ("transpose",) if transposes else ()
    call.flags = (*flags, f"perf_mode={mode.value}") if mode is not PerfMode.none else flags


def _warn_of_values(dst: NkiTensor) -> None:
    file, line = kernel_line()
    text = (
        f"{file}:{line}: nc_matmul: dst ({dst.name}) was given values by another instruction; before trn3 a "
        "matmul that adds to them is undefined on the machine (here it adds)"
    )
    warnings.warn(NkiWarning(text), stacklevel=2)


def accumulate_into(dst: NkiTensor, product: Array, accumulate: bool | None) -> None:
    """Write a product to PSUM: over what is there, or onto it.

    With None, elements that nobody wrote are replaced, and others are added to.
    """
    storage, layout = dst.storage, dst.layout
    if accumulate is None or accumulate:
        if storage.valued and current().machine.generation < 4:
            _warn_of_values(dst)
        if storage.holds(layout):
            target = storage.array(layout)
            if target.dtype == np.float32:
                np.add(target, product.reshape(target.shape), out=target)
            else:
                target[...] = cast(float32_of(target) + product.reshape(target.shape), layout.dtype)
            return
        if accumulate is None and not storage.untouched(layout):
            old = np.where(storage.flags(layout), float32_of(storage.array(layout)), np.float32(0))
            put(dst, old + product.reshape(layout.shape))
            return
        if accumulate and current().strict:
            raise NkiError(
                f"nc_matmul: dst ({dst.name}) is accumulated onto where no matmul has written yet; "
                "the first one has accumulate=False, or None",
                tensor=dst.name,
                memory="psum",
            )
    put(dst, product)
    storage.valued = False


def _matmul(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    transposes, accumulate, _, mode = options
    (dst,), (stationary, moving) = writes, reads
    if (
        transposes
        and dst.shape[0] == stationary.layout.elements
        and stationary.shape[0] == moving.layout.elements
    ):
        one = flat(moving)
        if bool((one == np.eye(len(one), dtype=np.float32)).all()):
            put(dst, *turned(stationary))  # bit by bit, NaN and all
            return
    left, right = flat(stationary), flat(moving)
    if mode is PerfMode.double_row:
        left, right = left.reshape(len(left) * 2, -1), right.reshape(len(right) * 2, -1)
    with np.errstate(invalid="ignore", over="ignore"):
        product = left.T @ right
    if transposes:
        put(dst, product)
    else:
        accumulate_into(dst, product, accumulate)


_MATMUL = Kind("nc_matmul", ("dst",), ("stationary", "moving"), _check_matmul, _matmul)


def nc_matmul(
    dst: NkiTensor,
    stationary: NkiTensor,
    moving: NkiTensor,
    is_stationary_onezero: bool = False,
    is_moving_onezero: bool = False,
    is_transpose: bool = False,
    accumulate: bool | None = None,
    tile_position: Any = (),
    tile_size: Any = (),
    perf_mode: PerfMode = PerfMode.none,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `stationary.T @ moving` into PSUM, in float32, on the tensor engine.

    The contraction runs over the partitions. With `accumulate=None` the first write to an element replaces
    it, and later ones add to it.
    """
    adds = None if accumulate is None else bool(accumulate)
    place = (tuple(tile_position), tuple(tile_size)) if tile_position or tile_size else _WHOLE
    options = (bool(is_transpose), adds, place, perf_mode)
    return issue(_MATMUL, (dst,), (stationary, moving), options)


def _check_transpose(call: Call) -> None:
    dst, data = call.tensor("dst"), call.tensor("data")
    asked = call.runs_on(call.options, "tensor", "vector")
    call.tiles("dst", "data")
    small = data.partitions <= QUADRANT and data.elements <= QUADRANT
    if asked == "vector" and not small:
        call.fail(
            f"is {data.partitions} x {data.elements}; the vector engine transposes up to 32 x 32",
            "data",
            max(data.partitions, data.elements),
            QUADRANT,
        )
    if asked == "tensor" or not small:
        call.memory("data", "sbuf")
        call.memory("dst", "psum")
        if data.elements > STATIONARY_FREE:
            call.fail(
                f"has {data.elements} free elements; the tensor engine transposes up to 128 x 128",
                "data",
                data.elements,
                STATIONARY_FREE,
            )
        check_bank(call, "dst")
        call.engine = "tensor"
    elif dst.memory == "psum" and data.memory == "sbuf" and not asked:
        call.engine = ""
    else:
        call.engine = "vector"
    call.same_dtype("data", "dst")
    if (dst.partitions, dst.elements) != (data.elements, data.partitions):
        call.fail(
            f"is {dst.partitions} x {dst.elements}; the transpose is {data.elements} x {data.partitions}",
            "dst",
        )


def _transpose(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,) = writes, reads
    put(dst, *turned(data))


_TRANSPOSE = Kind("nc_transpose", ("dst",), ("data",), _check_transpose, _transpose)


def nc_transpose(
    dst: NkiTensor,
    data: NkiTensor,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Swap partitions and free elements: 128 x 128 by the tensor engine, 32 x 32 by the vector engine."""
    return issue(_TRANSPOSE, (dst,), (data,), engine)
