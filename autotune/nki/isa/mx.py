"""Microscaling (MX): floats of 8 or 4 bits, packed by four, with one scale for 8 partitions by 4 elements."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from autotune.nki.interpreter.dtypes import (
    Array,
    bfloat16,
    float4_e2m1fn_x4,
    float8_e4m3fn_x4,
    float8_e5m2_x4,
    float8_e8m0fnu,
    float16,
    float32,
    uint8,
)
from autotune.nki.interpreter.operands import flat, put, raw
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.isa.matmul import accumulate_into, check_bank
from autotune.nki.machine import QUADRANT, STATIONARY_FREE

_GROUP = 8  # partitions that share a scale
_PACKED: dict[str, tuple[Any, int]] = {
    float8_e4m3fn_x4: (ml_dtypes.float8_e4m3fn, 8),
    float8_e5m2_x4: (ml_dtypes.float8_e5m2, 15),
}
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def _scale_rows(partitions: int) -> Array:
    """Return, for each group of 8 partitions, the partition of the scale tensor that holds its scale."""
    group = np.arange(partitions // _GROUP)
    per_quadrant = QUADRANT // _GROUP
    return group // per_quadrant * QUADRANT + group % per_quadrant


def _unpacked(tensor: NkiTensor) -> Array:
    """Return (partitions, elements, 4) in float32."""
    words = np.ascontiguousarray(raw(tensor)).reshape(tensor.shape[0], -1)
    if tensor.dtype == float4_e2m1fn_x4:
        nibbles = np.stack([(words >> np.uint16(4 * place)) & np.uint16(15) for place in range(4)], axis=-1)
        return np.asarray(_FP4[nibbles])
    element, _ = _PACKED[tensor.dtype]
    return np.asarray(words.view(np.uint8).reshape(*words.shape, 4).view(element), dtype=np.float32)


def _scales(tensor: NkiTensor, partitions: int) -> Array:
    """Return one factor for each partition and packed element."""
    rows = _scale_rows(partitions)
    held = [raw(tensor[int(row) : int(row) + 1]).reshape(-1) for row in rows]
    exponents = np.stack(held).view(np.uint8).astype(np.int32) - 127
    return np.repeat(np.ldexp(np.float32(1), exponents), _GROUP, axis=0)


def _check_scale(call: Call, scale: str, data: str) -> None:
    call.memory(scale, "sbuf")
    call.dtype(scale, float8_e8m0fnu, uint8)
    whole = call.tensor(data).partitions
    needed = int(_scale_rows(whole)[-1]) + 1 if whole >= _GROUP else 1
    found = call.tensor(scale)
    if found.partitions < needed:
        call.fail(
            f"spans {found.partitions} partitions; the scales of {data} need {needed}",
            scale,
            found.partitions,
            needed,
        )


def _check_quantize(call: Call) -> None:
    call.since(4)
    for name in ("dst", "src"):
        call.memory(name, "sbuf")
    call.tiles("dst", "src")
    call.same_partitions("src", "dst")
    call.dtype("src", float16, bfloat16)
    call.dtype("dst", float8_e5m2_x4, float8_e4m3fn_x4)
    src, dst = call.tensor("src"), call.tensor("dst")
    if src.partitions % QUADRANT:
        call.fail(
            f"spans {src.partitions} partitions; it has to be a multiple of 32",
            "src",
            src.partitions,
            QUADRANT,
        )
    if src.elements % 4 or dst.elements != src.elements // 4:
        call.fail(f"has {dst.elements} elements in a partition; src has {src.elements}, four for each", "dst")
    _check_scale(call, "dst_scale", "src")
    call.engine = "vector"


def _quantize(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, dst_scale), (src,) = writes, reads
    element, top = _PACKED[dst.dtype]
    rows = flat(src).reshape(src.shape[0], -1, 4)
    largest = np.abs(rows).max(axis=2).reshape(-1, _GROUP, rows.shape[1]).max(axis=1)
    with np.errstate(divide="ignore"):
        exponent = np.where(largest > 0, np.floor(np.log2(largest)) - (top - 1), -127.0)
    exponent = np.clip(exponent, -127, 127).astype(np.int32)
    factor = np.repeat(np.ldexp(np.float32(1), exponent), _GROUP, axis=0)
    packed = (rows / factor[..., None]).astype(element)
    put(dst, np.ascontiguousarray(packed).view(np.uint8).reshape(*rows.shape).view(np.uint32)[..., 0])
    for group, row in enumerate(_scale_rows(src.shape[0])):
        line = dst_scale[int(row) : int(row) + 1]
        words = (exponent[group] + 127).astype(np.uint8)
        put(line, words if dst_scale.dtype == uint8 else words.view(ml_dtypes.float8_e8m0fnu))


_QUANTIZE = Kind("quantize_mx", ("dst", "dst_scale"), ("src",), _check_quantize, _quantize)


def quantize_mx(
    dst: NkiTensor,
    src: NkiTensor,
    dst_scale: NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Quantize to MXFP8: packed elements, and a power of two for each 8 partitions by 4 elements (trn3)."""
    return issue(_QUANTIZE, (dst, dst_scale), (src,))


def _check_matmul(call: Call) -> None:
    call.since(4)
    dst = call.memory("dst", "psum")
    call.dtype("dst", float32, bfloat16)
    call.same_partitions("stationary", "moving")
    for name in ("stationary", "moving"):
        call.memory(name, "sbuf")
        call.dtype(name, float8_e5m2_x4, float8_e4m3fn_x4, float4_e2m1fn_x4)
    call.tiles("dst", "stationary", "moving")
    stationary, moving = call.tensor("stationary"), call.tensor("moving")
    if stationary.partitions % QUADRANT:
        found = stationary.partitions
        call.fail(f"spans {found} partitions; it has to be a multiple of 32", "stationary", found, QUADRANT)
    if stationary.elements % 2 or stationary.elements > STATIONARY_FREE:
        found = stationary.elements
        call.fail(
            f"has {found} free elements; it takes an even number up to 128",
            "stationary",
            found,
            STATIONARY_FREE,
        )
    longest = call.machine.moving_bytes // dst.dtype.itemsize
    if moving.elements > longest:
        call.fail(
            f"has {moving.elements} free elements; it takes {longest}", "moving", moving.elements, longest
        )
    if (dst.partitions, dst.elements) != (stationary.elements, moving.elements):
        call.fail(
            f"is {dst.partitions} x {dst.elements}; the product is {stationary.elements} x {moving.elements}",
            "dst",
        )
    _check_scale(call, "stationary_scale", "stationary")
    _check_scale(call, "moving_scale", "moving")
    check_bank(call, "dst")
    call.engine = "tensor"


def _matmul(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (stationary, moving, stationary_scale, moving_scale) = writes, reads
    sides = []
    for tensor, scale in ((stationary, stationary_scale), (moving, moving_scale)):
        whole = _unpacked(tensor) * _scales(scale, tensor.shape[0])[..., None]
        sides.append(whole.transpose(0, 2, 1).reshape(-1, whole.shape[1]))
    accumulate_into(dst, sides[0].T @ sides[1], options[2])


_MATMUL = Kind(
    "nc_matmul_mx",
    ("dst",),
    ("stationary", "moving", "stationary_scale", "moving_scale"),
    _check_matmul,
    _matmul,
)


def nc_matmul_mx(
    dst: NkiTensor,
    stationary: NkiTensor,
    moving: NkiTensor,
    stationary_scale: NkiTensor,
    moving_scale: NkiTensor,
    tile_position: Any = None,
    tile_size: Any = None,
    accumulate: bool | None = None,
    name: str | None = None,
) -> NkiInstruction:
    """Multiply MX matrices into PSUM, scaled on the way (trn3)."""
    options = (
        tuple(tile_position or ()),
        tuple(tile_size or ()),
        None if accumulate is None else bool(accumulate),
    )
    return issue(_MATMUL, (dst,), (stationary, moving, stationary_scale, moving_scale), options)
