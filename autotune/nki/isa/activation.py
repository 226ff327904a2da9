"""The scalar engine's activation functions: scale, bias, reduction; and the vector engine's exponential."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.constants import reduce_cmd as ReduceCmd
from autotune.nki.interpreter.dtypes import Array, float32, tfloat32
from autotune.nki.interpreter.operands import put, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.isa.operators import OPERATORS, Operator, applied, operator_of, reduced
from autotune.nki.isa.reduction import accumulated

_ADD = OPERATORS["add"]
_STAGES = frozenset(
    (
        *(("multiply", "add"), ("multiply", "subtract"), ("multiply", "bypass")),
        *(("add", "bypass"), ("subtract", "bypass"), ("bypass", "bypass")),
    )
)
_REDUCTIONS = ("add", "maximum", "minimum", "abs_max", "abs_min")


def _activates(call: Call, op: Any, reduce_op: Any) -> Operator:
    operators = call.operators(op=op, reduce_op=reduce_op)
    if not operators[0].activates:
        call.fail(f"op={operators[0].name} is no activation function of the scalar engine")
    return operators[0]


def _check_reduce(call: Call, reduce_op: Any, command: ReduceCmd, allowed: tuple[str, ...]) -> None:
    if not isinstance(command, ReduceCmd) or command is ReduceCmd.load_reduce:
        call.fail(f"reduce_cmd={command}: it takes idle, reset, reduce and reset_reduce")
    if reduce_op is not None and operator_of(reduce_op).name not in allowed:
        call.fail(f"reduce_op={operator_of(reduce_op).name}: it takes {', '.join(allowed)}")
    if command in (ReduceCmd.reduce, ReduceCmd.reset_reduce) and reduce_op is None:
        call.fail(f"reduce_cmd.{command.name} needs a reduce_op")
    if call.has("reduce_res"):
        call.per_partition("reduce_res", "data")


def _check_activation(call: Call) -> None:
    op, reduce_op, command = call.options
    call.tiles("dst", "data")
    call.alike("data", "dst")
    operator = _activates(call, op, reduce_op)
    call.per_partition("scale", "data", float32)
    if call.operands["bias"] is not None:
        call.per_partition("bias", "data")
        if call.has("bias") and call.tensor("bias").dtype == tfloat32:
            call.fail("is tfloat32, which a bias cannot be", "bias")
        if call.machine.generation < 3 and not call.has("bias"):
            call.fail(
                f"is the number {call.operands['bias']}; trn1 takes a tensor of one element a partition",
                "bias",
            )
        if call.machine.generation < 3 and operator.name == "reciprocal":
            call.fail("op=reciprocal takes no bias on trn1")
    _check_reduce(call, reduce_op, command, ("add",))
    call.engine = "scalar"


def _reduce_rows(
    program: Program, made: Array, reduce_op: Any, command: ReduceCmd, data: NkiTensor, out: NkiTensor | None
) -> None:
    operator = _ADD if reduce_op is None else operator_of(reduce_op)
    rows = made[:, 0] if command is ReduceCmd.idle else reduced(operator, made, tuple(range(1, made.ndim)))
    held = accumulated(program, "scalar", operator, command, rows.reshape(len(made)), data)
    if out is not None and held is not None:
        put(out, held)


def _activation(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (data, bias, scale) = writes, reads
    op, reduce_op, command = options
    made = values(data)
    with np.errstate(all="ignore"):
        if isinstance(scale, NkiTensor) or scale != 1.0:
            made = made * values(scale, data)
        if bias is not None:
            made = made + values(bias, data)
        function = operator_of(op).unary
        made = np.asarray(function(made)) if function else made
        put(dst, made)
        if command is not ReduceCmd.idle or reduce_res is not None:
            _reduce_rows(program, made.reshape(len(made), -1), reduce_op, command, data, reduce_res)


_ACTIVATION = Kind(
    "activation",
    ("dst", "reduce_res"),
    ("data", "bias", "scale"),
    _check_activation,
    _activation,
    by_lane=True,
)
_ACTIVATION_REDUCE = Kind(
    "activation_reduce",
    ("dst", "reduce_res"),
    ("data", "bias", "scale"),
    _check_activation,
    _activation,
    by_lane=True,
)


def activation(
    dst: NkiTensor,
    op: Any,
    data: NkiTensor,
    bias: float | NkiTensor | None = None,
    scale: float | NkiTensor = 1.0,
    reduce_op: Any = None,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: ReduceCmd = ReduceCmd.idle,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `op(data * scale + bias)` on the scalar engine; add up the results if asked."""
    return issue(_ACTIVATION, (dst, reduce_res), (data, bias, scale), (op, reduce_op, reduce_cmd))


def activation_reduce(
    dst: NkiTensor,
    op: Any,
    data: NkiTensor,
    reduce_op: Any,
    reduce_res: NkiTensor | None,
    bias: float | NkiTensor | None = None,
    scale: float | NkiTensor = 1.0,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `op(data * scale + bias)` and add it up in each partition."""
    options = (op, reduce_op, ReduceCmd.reset_reduce)
    return issue(_ACTIVATION_REDUCE, (dst, reduce_res), (data, bias, scale), options)


def _check_activate2(call: Call) -> None:
    op, op0, op1, _, _, reduce_op, command = call.options
    call.since(4)
    call.tiles("dst", "data")
    call.alike("data", "dst")
    _activates(call, op, reduce_op)
    stages = (operator_of(op0, "op0").name, operator_of(op1, "op1").name)
    if stages not in _STAGES:
        call.fail(f"(op0, op1) = {stages}: it takes {sorted(_STAGES)}")
    for name in ("imm0", "imm1", "relu_param"):
        call.per_partition(name, "data")
    if call.has("imm0") and call.has("imm1"):
        call.same_dtype("imm0", "imm1")
    _check_reduce(call, reduce_op, command, _REDUCTIONS)
    call.engine = "scalar"


def _activate2(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (data, imm0, imm1, relu_param) = writes, reads
    op, op0, op1, reverse0, reverse1, reduce_op, command = options
    with np.errstate(all="ignore"):
        made = applied(operator_of(op0), values(data), values(imm0, data), reverse0)
        made = applied(operator_of(op1), made, values(imm1, data), reverse1)
        operator = operator_of(op)
        if operator.name == "prelu":
            made = np.where(made >= 0, made, made * values(relu_param, data))
        elif operator.unary:
            made = np.asarray(operator.unary(made))
        put(dst, made)
        if command is not ReduceCmd.idle or reduce_res is not None:
            _reduce_rows(program, made.reshape(len(made), -1), reduce_op, command, data, reduce_res)


_ACTIVATE2 = Kind(
    "activate2",
    ("dst", "reduce_res"),
    ("data", "imm0", "imm1", "relu_param"),
    _check_activate2,
    _activate2,
    by_lane=True,
)


def activate2(
    dst: NkiTensor,
    op: Any,
    data: NkiTensor,
    imm0: float | NkiTensor,
    imm1: float | NkiTensor,
    op0: Any,
    op1: Any,
    relu_param: float | NkiTensor = 0.0,
    reverse0: bool = False,
    reverse1: bool = False,
    reduce_op: Any = None,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: ReduceCmd = ReduceCmd.idle,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `op((data op0 imm0) op1 imm1)` on trn3's scalar engine, with a reduction if asked."""
    options = (op, op0, op1, bool(reverse0), bool(reverse1), reduce_op, reduce_cmd)
    return issue(_ACTIVATE2, (dst, reduce_res), (data, imm0, imm1, relu_param), options)


def _check_exponential(call: Call) -> None:
    call.since(4)
    call.tiles("dst", "src")
    call.alike("src", "dst")
    call.per_partition("max_value", "src", float32)
    if call.has("reduce_res"):
        call.per_partition("reduce_res", "src")
    if call.options is ReduceCmd.reset or not isinstance(call.options, ReduceCmd):
        call.fail(f"reduce_cmd={call.options}: it takes idle, reset_reduce, reduce and load_reduce")
    call.per_partition("reduce_init", "src", float32)
    call.engine, call.op = "vector", "exp"


def _exponential(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst, reduce_res), (src, max_value, reduce_init) = writes, reads
    with np.errstate(all="ignore"):
        made = np.exp(values(src) - values(max_value, src))
    put(dst, made)
    rows = reduced(_ADD, made, tuple(range(1, made.ndim)))
    held = accumulated(program, "vector", _ADD, options, rows, src, values(reduce_init))
    if reduce_res is not None and held is not None:
        put(reduce_res, held)


_EXPONENTIAL = Kind(
    "exponential",
    ("dst", "reduce_res"),
    ("src", "max_value", "reduce_init"),
    _check_exponential,
    _exponential,
    by_lane=True,
)


def exponential(
    dst: NkiTensor,
    src: NkiTensor,
    max_value: float | NkiTensor = 0.0,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: ReduceCmd = ReduceCmd.idle,
    reduce_init: float | NkiTensor = 0.0,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `exp(src - max_value)` on trn3's vector engine; add up the results if asked."""
    return issue(_EXPONENTIAL, (dst, reduce_res), (src, max_value, reduce_init), reduce_cmd)
