"""Reductions and scans along the free dimensions, and across partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.nki.constants import reduce_cmd as ReduceCmd
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import Array, float32, int32, uint32
from autotune.nki.interpreter.operands import flat, put, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.elementwise import bits, check_unary
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.isa.operators import BITVEC, Operator, applied, operator_of, reduced
from autotune.nki.machine import BN_STATS_ELEMENTS, PARTITIONS

_CUMULATIVE = ("add", "subtract", "multiply", "maximum", "minimum")


def _axes(call: Call) -> tuple[int, ...]:
    """Return the axes to reduce, which have to be the last ones."""
    given, dimensions = call.options[1], len(call.tensor("data").shape)
    axes = tuple(sorted(axis + dimensions * (axis < 0) for axis in given))
    if 0 in axes:
        call.fail("axis 0 is the partitions; only free dimensions are reduced")
    if not axes or axes != tuple(range(dimensions - len(axes), dimensions)):
        call.fail(f"axis={list(given)}: they have to be the last of the {dimensions} dimensions")
    return axes


def _check_tensor_reduce(call: Call) -> None:
    op, _, negate = call.options
    call.tiles("dst", "data")
    call.same_partitions("data", "dst")
    axes = _axes(call)
    operators = call.operators(op=op)
    if operators[0].identity is None:
        call.fail(f"op={operators[0].name} is no reduction")
    on_bits = call.one_class(operators, "dst", "data")
    if on_bits and negate:
        call.fail("negate is for arithmetic operators only")
    data, dst = call.tensor("data"), call.tensor("dst")
    left = 1
    for size in data.shape[1 : data.shape.__len__() - len(axes)]:
        left *= size
    if dst.elements != left:
        call.fail(
            f"has {dst.elements} elements in a partition; the reduction leaves {left}",
            "dst",
            dst.elements,
            left,
        )
    call.engine = "vector"


def _tensor_reduce(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,), (op, given, negate) = writes, reads, options
    axes = tuple(sorted(axis + data.ndim * (axis < 0) for axis in given))
    operator = operator_of(op)
    if operator.kind == BITVEC:
        words = reduced(operator, bits(data), axes)
        put(dst, np.ascontiguousarray(words).view(data.dtype.numpy))
        return
    with np.errstate(all="ignore"):
        made = reduced(operator, values(data), axes)
    put(dst, -made if negate else made)


_TENSOR_REDUCE = Kind(
    "tensor_reduce", ("dst",), ("data",), _check_tensor_reduce, _tensor_reduce, by_lane=True
)


def tensor_reduce(
    dst: NkiTensor,
    op: Any,
    data: NkiTensor,
    axis: int | Sequence[int],
    negate: bool = False,
    keepdims: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Reduce the last free dimensions of a tile, in float32; `negate` multiplies the result by -1."""
    axes = tuple(axis) if isinstance(axis, Sequence) else (int(axis),)
    return issue(_TENSOR_REDUCE, (dst,), (data,), (op, axes, bool(negate)))


def _check_partition_reduce(call: Call) -> None:
    call.tiles("dst", "data")
    operators = call.operators(op=call.options)
    if operators[0].name not in ("add", "average", "maximum", "bitwise_or", "bitwise_and"):
        call.fail(f"op={operators[0].name}: it takes add, average, max, bitwise_or and bitwise_and")
    call.one_class(operators, "dst", "data")
    if call.tensor("dst").partitions != 1:
        found = call.tensor("dst").partitions
        call.fail(f"spans {found} partitions; the result is one", "dst", found, 1)
    call.same_elements("data", "dst")
    call.engine = "gpsimd"
    call.reached_by_gpsimd()


def _partition_reduce(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,), operator = writes, reads, operator_of(options)
    if operator.kind == BITVEC:
        words = reduced(operator, bits(data).reshape(data.shape[0], -1).T, (1,))
        put(dst, np.ascontiguousarray(words).view(data.dtype.numpy))
        return
    put(dst, reduced(operator, flat(data).T, (1,)))


_PARTITION_REDUCE = Kind(
    "tensor_partition_reduce", ("dst",), ("data",), _check_partition_reduce, _partition_reduce
)


def tensor_partition_reduce(
    dst: NkiTensor,
    op: Any,
    data: NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Reduce across partitions into one, on the GpSimd engine."""
    return issue(_PARTITION_REDUCE, (dst,), (data,), op)


def accumulated(
    program: Program,
    engine: str,
    operator: Operator,
    command: ReduceCmd,
    rows: Array,
    data: NkiTensor,
    start: Any = None,
) -> Array | None:
    """Update the reduction registers of an engine with a value for each partition; return what they hold.

    Raises:
        NkiError: the kernel goes on with registers that nothing has set.
    """
    registers = program.accumulators[engine]
    first = data.layout.start_partition()
    lanes = slice(first, first + len(rows))
    if command is ReduceCmd.idle:
        return None if registers is None else registers[lanes]
    identity = np.float32(operator.identity or 0.0)
    if command is ReduceCmd.reset:
        program.accumulators[engine] = np.full(PARTITIONS, identity, np.float32)
        return program.accumulators[engine][lanes]  # type: ignore[index]
    if command is ReduceCmd.reduce and registers is None:
        raise NkiError(
            f"reduce_cmd.reduce: the {engine} engine's registers hold nothing yet; begin by reset_reduce"
        )
    held = np.full(PARTITIONS, identity, np.float32) if registers is None else registers.copy()
    if command is ReduceCmd.reset_reduce:
        held[:] = identity
    elif command is ReduceCmd.load_reduce:
        held[lanes] = np.asarray(start, dtype=np.float32).reshape(-1)
    held[lanes] = applied(operator, held[lanes], rows, False)
    program.accumulators[engine] = held
    return held[lanes]


def _check_tensor_scalar_reduce(call: Call) -> None:
    op0, _, reduce_op, command, _ = call.options
    call.tiles("dst", "data")
    call.alike("data", "dst")
    operators = call.operators(op0=op0, reduce_op=reduce_op)
    if any(each.kind == BITVEC for each in operators):
        call.fail(f"{call.op}: bit patterns are not taken here")
    if operators[1].name not in ("add", "multiply", "maximum", "minimum"):
        call.fail(f"reduce_op={operators[1].name}: it takes add, multiply, max and min")
    check_unary(call, operators[0], "operand0")
    if operators[0].binary is not None:
        call.per_partition("operand0", "data", float32)
    if call.has("reduce_res"):
        call.per_partition("reduce_res", "data")
    if command not in (ReduceCmd.reset_reduce, ReduceCmd.reduce, ReduceCmd.load_reduce):
        call.fail(f"reduce_cmd={command}: it takes reset_reduce, reduce and load_reduce")
    if (command is ReduceCmd.load_reduce) != (call.operands["reduce_init"] is not None):
        call.fail("reduce_init goes with reduce_cmd.load_reduce, and only with it")
    call.engine = "vector"


def _tensor_scalar_reduce(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (data, operand0, reduce_init) = writes, reads
    op0, reverse, reduce_op, command, negate = options
    operand = None if operand0 is None else values(operand0, data)
    with np.errstate(all="ignore"):
        made = applied(operator_of(op0), values(data), operand, reverse)
        reducer = operator_of(reduce_op)
        rows = reduced(reducer, made, tuple(range(1, made.ndim)))
        start = None if reduce_init is None else values(reduce_init)
        held = accumulated(program, "vector", reducer, command, rows, data, start)
    put(dst, made)
    if reduce_res is not None and held is not None:
        put(reduce_res, -held if negate else held)


_TENSOR_SCALAR_REDUCE = Kind(
    "tensor_scalar_reduce",
    ("dst", "reduce_res"),
    ("data", "operand0", "reduce_init"),
    _check_tensor_scalar_reduce,
    _tensor_scalar_reduce,
    by_lane=True,
)


def tensor_scalar_reduce(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Any,
    operand0: float | NkiTensor,
    reduce_op: Any,
    reduce_res: NkiTensor | None = None,
    reverse0: bool = False,
    reduce_cmd: ReduceCmd = ReduceCmd.reset_reduce,
    reduce_init: float | NkiTensor | None = None,
    reduce_res_negate: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `data op0 operand0`, and reduce the result in each partition into the engine's registers."""
    options = (op0, bool(reverse0), reduce_op, reduce_cmd, bool(reduce_res_negate))
    return issue(_TENSOR_SCALAR_REDUCE, (dst, reduce_res), (data, operand0, reduce_init), options)


def _check_cumulative(call: Call) -> None:
    op0, op1, command = call.options
    call.tiles("dst", "src")
    call.alike("src", "dst")
    operators = call.operators(op0=op0, op1=op1)
    if any(each.kind == BITVEC for each in operators) or operators[1].name not in _CUMULATIVE:
        call.fail(f"{call.op}: op0 is arithmetic, and op1 one of {', '.join(_CUMULATIVE)}")
    for name in ("dst", "src"):
        if call.tensor(name).dtype in (int32, uint32):
            call.fail(f"is {call.tensor(name).dtype}; 32-bit integers are not taken", name)
    call.per_partition("imm0", "src", float32)
    if command is ReduceCmd.load_reduce:
        call.per_partition("imm1", "src", float32)
    elif command not in (ReduceCmd.reset_reduce, ReduceCmd.reduce):
        call.fail(f"reduce_cmd={command}: it takes reset_reduce, reduce and load_reduce")
    call.engine = "vector"


def _cumulative(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (src, imm0, imm1) = writes, reads
    op0, op1, command = options
    rows = flat(src)
    first = values(imm0)
    with np.errstate(all="ignore"):
        made = applied(operator_of(op0), rows, first.reshape(-1, 1) if first.ndim else first, False)
        operator = operator_of(op1)
        start = values(imm1) if command is ReduceCmd.load_reduce else None
        lanes = np.full(len(rows), operator.identity or 0.0, np.float32)
        if command is ReduceCmd.load_reduce:
            lanes[:] = np.asarray(start).reshape(-1)
        elif command is ReduceCmd.reduce:
            held = program.accumulators["vector"]
            if held is None:
                raise NkiError(
                    "tensor_scalar_cumulative: reduce_cmd.reduce, but the registers hold nothing yet"
                )
            lanes = held[: len(rows)].copy()
        out = np.empty_like(made)
        for place in range(made.shape[1]):
            lanes = applied(operator, made[:, place], lanes, False)
            out[:, place] = lanes
    registers = np.full(PARTITIONS, operator.identity or 0.0, np.float32)
    registers[: len(rows)] = lanes
    program.accumulators["vector"] = registers
    put(dst, out)


_CUMULATE = Kind(
    "tensor_scalar_cumulative",
    ("dst",),
    ("src", "imm0", "imm1"),
    _check_cumulative,
    _cumulative,
    by_lane=True,
)


def tensor_scalar_cumulative(
    dst: NkiTensor,
    src: NkiTensor,
    op0: Any,
    op1: Any,
    imm0: float | NkiTensor,
    imm1: float | NkiTensor | None = None,
    reduce_cmd: ReduceCmd = ReduceCmd.reset_reduce,
    name: str | None = None,
) -> NkiInstruction:
    """Apply `src op0 imm0`, then keep the running result of op1 along each partition."""
    return issue(_CUMULATE, (dst,), (src, imm0, imm1), (op0, op1, reduce_cmd))


def _check_scan(call: Call) -> None:
    call.tiles("dst", "data0", "data1")
    call.alike("data0", "data1", "dst")
    call.not_both_psum("data0", "data1")
    operators = call.operators(op0=call.options[0], op1=call.options[1])
    if any(each.kind != "arithmetic" for each in operators):
        call.fail(f"{call.op}: both have to be arithmetic operators of two operands")
    call.per_partition("initial", "data0")
    call.engine = "vector"


def _scan(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data0, data1, initial) = writes, reads
    op0, op1, reverse0, reverse1 = options
    first, second = operator_of(op0), operator_of(op1)
    left, right = flat(data0), flat(data1)
    start = np.asarray(values(initial)).reshape(-1)
    state = np.broadcast_to(start, (len(left),)).astype(np.float32)
    out = np.empty_like(left)
    with np.errstate(all="ignore"):
        for place in range(left.shape[1]):
            state = applied(first, left[:, place], state, reverse0)
            state = applied(second, state, right[:, place], reverse1)
            out[:, place] = state
    put(dst, out)


_SCAN = Kind("tensor_tensor_scan", ("dst",), ("data0", "data1", "initial"), _check_scan, _scan, by_lane=True)


def tensor_tensor_scan(
    dst: NkiTensor,
    data0: NkiTensor,
    data1: NkiTensor,
    initial: float | NkiTensor,
    op0: Any,
    op1: Any,
    reverse0: bool = False,
    reverse1: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Scan along each partition: `out[i] = (data0[i] op0 out[i-1]) op1 data1[i]`, from `initial` on."""
    return issue(_SCAN, (dst,), (data0, data1, initial), (op0, op1, bool(reverse0), bool(reverse1)))


def _check_bn_stats(call: Call) -> None:
    call.tiles("dst", "data")
    call.same_partitions("data", "dst")
    data, dst = call.tensor("data"), call.tensor("dst")
    if data.elements > BN_STATS_ELEMENTS:
        call.fail(
            f"has {data.elements} elements in a partition; it takes 512",
            "data",
            data.elements,
            BN_STATS_ELEMENTS,
        )
    if dst.elements != 6:
        call.fail(f"has {dst.elements} elements in a partition; the result has 6", "dst", dst.elements, 6)
    call.engine = "vector"


def _bn_stats(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,) = writes, reads
    found = flat(data)
    out = np.zeros((len(found), 6), np.float32)
    for first in (0, 1):
        part = found[:, first::2]
        if part.shape[1]:
            mean = part.mean(axis=1, dtype=np.float32)
            spread = ((part - mean[:, None]) ** 2).sum(axis=1, dtype=np.float32)
            out[:, 3 * first : 3 * first + 3] = np.stack(
                [np.full_like(mean, part.shape[1]), mean, spread], axis=1
            )
    put(dst, out)


_BN_STATS = Kind("bn_stats", ("dst",), ("data",), _check_bn_stats, _bn_stats, by_lane=True)


def bn_stats(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Compute (count, mean, variance * count) of the even and then of the odd elements of each partition."""
    return issue(_BN_STATS, (dst,), (data,))


def _check_bn_aggr(call: Call) -> None:
    call.tiles("dst", "data")
    call.same_partitions("data", "dst")
    data, dst = call.tensor("data"), call.tensor("dst")
    if data.elements % 3:
        call.fail(
            f"has {data.elements} elements in a partition; they come by three", "data", data.elements, 3
        )
    if dst.elements != 2:
        call.fail(f"has {dst.elements} elements in a partition; the result has 2", "dst", dst.elements, 2)
    call.engine = "vector"


def _bn_aggr(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,) = writes, reads
    found = flat(data).reshape(data.shape[0], -1, 3)
    count, mean, spread = found[..., 0], found[..., 1], found[..., 2]
    whole = count.sum(axis=1)
    with np.errstate(all="ignore"):
        average = (count * mean).sum(axis=1) / whole
        variance = (spread + count * (mean - average[:, None]) ** 2).sum(axis=1) / whole
    put(dst, np.stack([average, variance], axis=1))


_BN_AGGR = Kind("bn_aggr", ("dst",), ("data",), _check_bn_aggr, _bn_aggr, by_lane=True)


def bn_aggr(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Combine statistics of bn_stats into the mean and the variance of each partition."""
    return issue(_BN_AGGR, (dst,), (data,))
