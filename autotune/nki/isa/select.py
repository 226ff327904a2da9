"""Patterns and selections: iota, affine and range predicates, selection by a tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.nki.constants import reduce_cmd as ReduceCmd
from autotune.nki.interpreter.dtypes import (
    Array,
    bool_,
    cast,
    float32,
    int8,
    int16,
    int32,
    tfloat32,
    uint8,
    uint16,
    uint32,
)
from autotune.nki.interpreter.operands import flat, put, raw, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.isa.operators import OPERATORS, operator_of
from autotune.nki.isa.reduction import accumulated

_EQUAL, _MAXIMUM = OPERATORS["equal"], OPERATORS["maximum"]
_COMPARISONS = ("equal", "less", "less_equal", "greater", "greater_equal")
FP32_MIN = float(np.finfo(np.float32).min)
Pattern = tuple[tuple[int, int], ...]


def _pattern(given: Sequence[Sequence[int]]) -> Pattern:
    return tuple((int(step), int(count)) for step, count in given)


def affine_values(pattern: Pattern, partitions: int, offset: int, multiplier: int) -> Array:
    """Return offset + partition * multiplier + the pattern's sum, in 32-bit arithmetic, a row a partition."""
    row = np.zeros(1, np.int64)
    for step, count in pattern:
        row = (row[:, None] + np.arange(count) * step).reshape(-1)
    whole = offset + np.arange(partitions)[:, None] * multiplier + row[None, :]
    return whole.astype(np.int32)


def _check_pattern(call: Call, name: str, pattern: Pattern) -> None:
    count = 1
    for _, size in pattern:
        count *= size
    if not 1 <= len(pattern) <= 4:
        call.fail(f"the pattern has {len(pattern)} dimensions; it takes 1 to 4", "", len(pattern), 4)
    if count != call.tensor(name).elements:
        found = call.tensor(name).elements
        call.fail(f"has {found} elements in a partition; the pattern has {count}", name, found, count)


def _check_iota(call: Call) -> None:
    call.tiles("dst")
    call.memory("dst", "sbuf")
    _check_pattern(call, "dst", call.options[0])
    call.engine = "gpsimd"


def _iota(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (pattern, offset, multiplier) = writes, options
    put(dst, affine_values(pattern, dst.shape[0], offset, multiplier))


_IOTA = Kind("iota", ("dst",), (), _check_iota, _iota)


def iota(
    dst: NkiTensor,
    pattern: Sequence[Sequence[int]],
    offset: int = 0,
    channel_multiplier: int = 0,
    name: str | None = None,
) -> NkiInstruction:
    """Write `offset + partition * channel_multiplier + sum(step * i)` for [step, count] pairs."""
    return issue(_IOTA, (dst,), (), (_pattern(pattern), int(offset), int(channel_multiplier)))


def _check_affine(call: Call) -> None:
    pattern, _, _, compare = call.options
    call.tiles("dst", "on_true_tile")
    call.memory("dst", "sbuf")
    call.memory("on_true_tile", "sbuf")
    call.alike("dst", "on_true_tile")
    _check_pattern(call, "dst", pattern)
    call.operators(cmp_op=compare)
    if isinstance(call.operands["on_false_value"], NkiTensor):
        call.fail("has to be a number", "on_false_value")
    call.engine = "gpsimd"


def _affine(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (on_true, on_false) = writes, reads
    pattern, offset, multiplier, compare = options
    spread = affine_values(pattern, dst.shape[0], offset, multiplier)
    operator = operator_of(compare)
    assert operator.binary is not None
    mask = operator.binary(spread, np.int32(0)) != 0
    source = raw(on_true).reshape(dst.shape[0], -1)
    other = cast(np.asarray(on_false, dtype=np.float32), dst.dtype)
    if source.dtype != dst.dtype.numpy:
        source = cast(source.astype(np.float32), dst.dtype)
    put(dst, np.where(mask, source, other))


_AFFINE = Kind(
    "affine_select", ("dst",), ("on_true_tile", "on_false_value"), _check_affine, _affine, by_lane=True
)


def affine_select(
    dst: NkiTensor,
    pattern: Sequence[Sequence[int]],
    channel_multiplier: int,
    on_true_tile: NkiTensor,
    on_false_value: float,
    cmp_op: Any = _EQUAL,
    offset: int = 0,
    name: str | None = None,
) -> NkiInstruction:
    """Copy where `cmp_op` holds of iota's value and 0; elsewhere write a number."""
    options = (_pattern(pattern), int(offset), int(channel_multiplier), cmp_op)
    return issue(_AFFINE, (dst,), (on_true_tile, on_false_value), options)


def _check_range(call: Call) -> None:
    op0, op1, command, reduce_op, _, on_false = call.options
    call.since(3)
    call.tiles("dst", "on_true_tile")
    call.alike("on_true_tile", "dst")
    if call.tensor("on_true_tile").dtype.kind != "float":
        call.fail(f"is {call.tensor('on_true_tile').dtype}; it has to be a float", "on_true_tile")
    for name in ("bound0", "bound1"):
        call.tensor(name)
        call.per_partition(name, "on_true_tile", float32)
    for operator in call.operators(comp_op0=op0, comp_op1=op1):
        if operator.name not in _COMPARISONS:
            call.fail(f"{operator.name}: it takes {', '.join(_COMPARISONS)}")
    if operator_of(reduce_op).name != "maximum":
        call.fail(f"reduce_op={operator_of(reduce_op).name}: it takes maximum")
    if on_false is not None and np.float32(on_false) != np.float32(FP32_MIN):
        call.fail(f"on_false_value={on_false}: it has to be the lowest float32, {FP32_MIN}")
    if not isinstance(command, ReduceCmd):
        call.fail(f"reduce_cmd={command!r} is no member of nki.isa.reduce_cmd")
    if call.has("reduce_res"):
        call.per_partition("reduce_res", "on_true_tile")
    call.engine = "vector"


def _range(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (on_true, bound0, bound1) = writes, reads
    op0, op1, command, _, start, _ = options
    rows = flat(on_true)
    place = (start + np.arange(rows.shape[1])).astype(np.float32)[None, :]
    first, second = operator_of(op0).binary, operator_of(op1).binary
    assert first is not None
    assert second is not None
    low, high = flat(bound0).reshape(-1, 1), flat(bound1).reshape(-1, 1)
    mask = (first(place, low) != 0) & (second(place, high) != 0)
    made = np.where(mask, rows, np.float32(FP32_MIN))
    held = accumulated(program, "vector", _MAXIMUM, command, made.max(axis=1), on_true)
    put(dst, made)
    if reduce_res is not None and held is not None:
        put(reduce_res, held)


_RANGE = Kind(
    "range_select",
    ("dst", "reduce_res"),
    ("on_true_tile", "bound0", "bound1"),
    _check_range,
    _range,
    by_lane=True,
)


def range_select(
    dst: NkiTensor,
    on_true_tile: NkiTensor,
    comp_op0: Any,
    comp_op1: Any,
    bound0: NkiTensor,
    bound1: NkiTensor,
    reduce_cmd: ReduceCmd = ReduceCmd.reset_reduce,
    reduce_res: NkiTensor | None = None,
    reduce_op: Any = _MAXIMUM,
    range_start: int = 0,
    on_false_value: float = FP32_MIN,
    name: str | None = None,
) -> NkiInstruction:
    """Keep elements whose index, from range_start, meets both bounds of the partition; take the maximum."""
    options = (comp_op0, comp_op1, reduce_cmd, reduce_op, int(range_start), float(on_false_value))
    return issue(_RANGE, (dst, reduce_res), (on_true_tile, bound0, bound1), options)


def _check_select(call: Call) -> None:
    command, reduce_op, _ = call.options
    call.tiles("dst", "predicate", "on_true")
    call.alike("predicate", "on_true", "dst")
    call.not_both_psum("on_true", "predicate")
    call.dtype("predicate", int8, uint8, int16, uint16, bool_)
    if call.tensor("on_true").dtype in (tfloat32, int32, uint32):
        call.fail(f"is {call.tensor('on_true').dtype}, which is not taken", "on_true")
    call.per_partition("on_false", "on_true")
    if operator_of(reduce_op).name != "maximum":
        call.fail(f"reduce_op={operator_of(reduce_op).name}: it takes maximum")
    if command not in (ReduceCmd.idle, ReduceCmd.reduce, ReduceCmd.reset_reduce):
        call.fail(f"reduce_cmd={command}: it takes idle, reduce and reset_reduce")
    if call.has("reduce_res"):
        call.per_partition("reduce_res", "on_true")
        if call.tensor("reduce_res").dtype.kind != "float":
            call.fail(f"is {call.tensor('reduce_res').dtype}; it has to be a float", "reduce_res")
    call.engine = "vector"


def _select(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (predicate, on_true, on_false) = writes, reads
    command, _, reverse = options
    mask = (raw(predicate) != 0).reshape(predicate.shape[0], -1)
    other = values(on_false)
    other = other.reshape(-1, 1) if isinstance(on_false, NkiTensor) else other
    made = np.where(~mask if reverse else mask, flat(on_true), other)
    held = accumulated(program, "vector", _MAXIMUM, command, made.max(axis=1), on_true)
    put(dst, made)
    if reduce_res is not None and held is not None:
        put(reduce_res, held)


_SELECT = Kind(
    "select_reduce",
    ("dst", "reduce_res"),
    ("predicate", "on_true", "on_false"),
    _check_select,
    _select,
    by_lane=True,
)


def select_reduce(
    dst: NkiTensor,
    predicate: NkiTensor,
    on_true: NkiTensor,
    on_false: float | NkiTensor,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: ReduceCmd = ReduceCmd.idle,
    reduce_op: Any = _MAXIMUM,
    reverse_pred: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Choose between a tile and a number for each partition by a predicate; reduce by maximum if asked."""
    options = (reduce_cmd, reduce_op, bool(reverse_pred))
    return issue(_SELECT, (dst, reduce_res), (predicate, on_true, on_false), options)
