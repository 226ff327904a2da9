"""Element-wise arithmetic on tiles: tile with tile, tile with a number for each partition, and both."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.constants import engine as Engine
from autotune.nki.interpreter.dtypes import Array, float32, int32, uint32
from autotune.nki.interpreter.operands import flat, put, raw, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue
from autotune.nki.isa.operators import ACTIVATION, BITVEC, UNARY, Operator, applied, operator_of

_WORDS = frozenset((int32, uint32))
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_SCALAR_ENGINE = frozenset((("multiply", "add"), ("multiply",), ("add",)))


def bits(operand: Any, like: Array | None = None) -> Any:
    """Return a tensor's elements, or a number, as unsigned words of the same width."""
    if isinstance(operand, NkiTensor):
        found = np.ascontiguousarray(raw(operand))
        return found.view(_UNSIGNED[found.itemsize])
    assert like is not None
    width = 8 * like.itemsize
    return like.dtype.type(int(operand) % (1 << width))


def bitwise(operator: Operator, x: Array, y: Any, reverse: bool = False) -> Array:
    """Apply an operator to bit patterns; shifts fill with zeros, and beyond the width nothing is left."""
    if operator.name in ("left_shift", "right_shift"):
        value, by = (y, x) if reverse else (x, y)
        width = 8 * x.itemsize
        amount = np.asarray(by).astype(np.uint64)
        safe = np.minimum(amount, np.uint64(width - 1)).astype(x.dtype)
        shifted = applied(operator, np.asarray(value, dtype=x.dtype), safe, False)
        return np.where(amount >= width, x.dtype.type(0), shifted)
    other = np.asarray(y)
    return applied(operator, x, other.astype(x.dtype) if other.dtype != x.dtype else other, reverse)


def _put_bits(dst: NkiTensor, made: Array) -> None:
    width = dst.dtype.itemsize
    words = made if made.itemsize == width else made.astype(_UNSIGNED[width])
    put(dst, np.ascontiguousarray(words).view(dst.dtype.numpy))


def _binary(call: Call, **given: Any) -> tuple[Operator, ...]:
    operators = call.operators(**given)
    for each in operators:
        if each.kind == ACTIVATION:
            call.fail(f"{each.name} is an activation function; only the scalar engine's instructions take it")
    return operators


def _check_tensor_tensor(call: Call) -> None:
    op, asked = call.options
    call.tiles("dst", "data1", "data2")
    call.alike("data1", "data2", "dst")
    call.not_both_psum("data1", "data2")
    operators = _binary(call, op=op)
    if operators[0].binary is None:
        call.fail(f"op={operators[0].name} takes one operand, not two")
    on_bits = call.one_class(operators, "dst", "data1", "data2")
    call.runs_on(asked, *(("vector",) if on_bits else ("vector", "gpsimd")))
    if operators[0].name == "power":
        call.engine = "gpsimd"
        call.reached_by_gpsimd()
    elif not call.engine and _exact(call.tensor("dst"), call.tensor("data1"), call.tensor("data2")):
        call.engine = "gpsimd"


def _exact(*layouts: Any) -> bool:
    """Tell whether the GpSimd engine takes it: 32-bit integers only, and nothing in PSUM."""
    return all(layout.dtype in _WORDS and layout.memory == "sbuf" for layout in layouts)


def _tensor_tensor(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data1, data2), (op, asked) = writes, reads, options
    operator = operator_of(op)
    if operator.kind == BITVEC:
        first = bits(data1)
        _put_bits(dst, bitwise(operator, first, bits(data2).reshape(first.shape)))
        return
    if asked is not Engine.vector and _exact(dst.layout, data1.layout, data2.layout):
        whole = raw(data1).astype(np.int64)
        made = applied(operator, whole, raw(data2).astype(np.int64).reshape(whole.shape), False)
        put(dst, made.astype(np.int64).astype(dst.dtype.numpy))  # 32-bit integers wrap around
        return
    left = values(data1)
    with np.errstate(all="ignore"):
        put(dst, applied(operator, left, values(data2).reshape(left.shape), False))


_TENSOR_TENSOR = Kind(
    "tensor_tensor", ("dst",), ("data1", "data2"), _check_tensor_tensor, _tensor_tensor, by_lane=True
)


def tensor_tensor(
    dst: NkiTensor,
    data1: NkiTensor,
    data2: NkiTensor,
    op: Any,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Combine two tiles element by element, in float32; exactly if all are 32-bit integers in SBUF."""
    return issue(_TENSOR_TENSOR, (dst,), (data1, data2), (op, engine))


def check_unary(call: Call, operator: Operator, operand: str) -> None:
    """Check that an operator of one operand gets no second one."""
    if operator.kind == UNARY:
        if operator.generation > call.machine.generation:
            call.fail(f"{call.machine.target} does not have op0={operator.name} here")
        given = call.operands[operand]
        if isinstance(given, NkiTensor) or given not in (None, 0):
            call.fail(f"has to be None or 0: {operator.name} takes one operand", operand)


def _check_vector(call: Call, operand: str) -> None:
    """Check the dtype of a vector operand; AWS's library passes other floats than the documented float32."""
    dtype = call.tensor(operand).dtype
    if dtype.kind != "float":
        call.fail(f"is {dtype}; it has to be float32", operand)
    if dtype != float32:
        call.warn(f"is {dtype}; its page says that it has to be float32", operand)


def _check_tensor_scalar(call: Call) -> None:
    op0, _, op1, _, asked = call.options
    call.tiles("dst", "data")
    call.alike("data", "dst")
    operators = _binary(call, op0=op0, op1=op1)
    on_bits = call.one_class(operators, "dst", "data")
    for operator, operand in zip(operators, ("operand0", "operand1"), strict=False):
        check_unary(call, operator, operand)
        if operator.kind != UNARY and not (operator.binary is None and call.operands[operand] in (None, 0)):
            call.per_partition(operand, "data")
            if not on_bits and call.has(operand):
                _check_vector(call, operand)
    if op1 is None and call.operands["operand1"] is not None:
        call.fail("is given without op1", "operand1")
    allowed = ("vector",) if on_bits else ("vector", "scalar", "gpsimd")
    engine = call.runs_on(asked, *allowed)
    if engine == "scalar" and tuple(each.name for each in operators) not in _SCALAR_ENGINE:
        call.fail(f"{call.op}: the scalar engine has multiply and add, multiply, or add")
    if engine == "gpsimd" and "rsqrt" not in call.op:
        call.fail(f"{call.op}: the GpSimd engine has rsqrt only")
    if "rsqrt" in call.op and not engine:
        call.engine = "gpsimd"
        call.reached_by_gpsimd()


def _tensor_scalar(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data, operand0, operand1) = writes, reads
    op0, reverse0, op1, reverse1, _ = options
    operator = operator_of(op0)
    if operator.kind == BITVEC:
        made = _on_bits(operator, bits(data), operand0, reverse0)
        if op1 is not None:
            made = _on_bits(operator_of(op1), made, operand1, reverse1)
        _put_bits(dst, made)
        return
    with np.errstate(all="ignore"):
        made = applied(operator, values(data), _vector(operand0, data), reverse0)
        if op1 is not None:
            made = applied(operator_of(op1), made, _vector(operand1, data), reverse1)
    put(dst, made)


def _vector(operand: Any, like: NkiTensor) -> Any:
    return None if operand is None else values(operand, like)


def _on_bits(operator: Operator, found: Array, operand: Any, reverse: bool) -> Array:
    if operator.binary is None:
        return applied(operator, found, None, False)
    other = bits(operand, found)
    if isinstance(operand, NkiTensor):
        other = other.reshape(other.shape[0], *[1] * (found.ndim - 1))
    return bitwise(operator, found, other, reverse)


_TENSOR_SCALAR = Kind(
    "tensor_scalar",
    ("dst",),
    ("data", "operand0", "operand1"),
    _check_tensor_scalar,
    _tensor_scalar,
    by_lane=True,
)


def tensor_scalar(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Any,
    operand0: float | NkiTensor | None,
    reverse0: bool = False,
    op1: Any = None,
    operand1: float | NkiTensor | None = None,
    reverse1: bool = False,
    engine: Engine = Engine.unknown,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `(data op0 operand0) op1 operand1`, an operand being a number or one for each partition."""
    options = (op0, bool(reverse0), op1, bool(reverse1), engine)
    return issue(_TENSOR_SCALAR, (dst,), (data, operand0, operand1), options)


def _check_scalar_tensor_tensor(call: Call) -> None:
    op0, _, op1, _ = call.options
    call.tiles("dst", "data", "operand1")
    call.alike("data", "operand1", "dst")
    call.not_both_psum("data", "operand1")
    operators = _binary(call, op0=op0, op1=op1)
    if any(each.kind == BITVEC for each in operators):
        call.fail(f"{call.op}: bit patterns are not taken here; use tensor_scalar and tensor_tensor")
    check_unary(call, operators[0], "operand0")
    if operators[0].kind != UNARY:
        call.per_partition("operand0", "data")
    call.engine = "vector"


def _scalar_tensor_tensor(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data, operand0, operand1) = writes, reads
    op0, reverse0, op1, reverse1 = options
    with np.errstate(all="ignore"):
        made = applied(operator_of(op0), values(data), _vector(operand0, data), reverse0)
        made = applied(operator_of(op1), made, values(operand1).reshape(made.shape), reverse1)
    put(dst, made)


_SCALAR_TENSOR_TENSOR = Kind(
    "scalar_tensor_tensor",
    ("dst",),
    ("data", "operand0", "operand1"),
    _check_scalar_tensor_tensor,
    _scalar_tensor_tensor,
    by_lane=True,
)


def scalar_tensor_tensor(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Any,
    operand0: float | NkiTensor,
    op1: Any,
    operand1: NkiTensor,
    reverse0: bool = False,
    reverse1: bool = False,
    name: str | None = None,
) -> NkiInstruction:
    """Compute `(data op0 operand0) op1 operand1` with a number, or one a partition, and then a tile."""
    options = (op0, bool(reverse0), op1, bool(reverse1))
    return issue(_SCALAR_TENSOR_TENSOR, (dst,), (data, operand0, operand1), options)


def _check_reciprocal(call: Call) -> None:
    call.tiles("dst", "data")
    call.alike("data", "dst")
    call.engine = "vector"


def _reciprocal(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data,) = writes, reads
    with np.errstate(all="ignore"):
        put(dst, np.float32(1) / flat(data))


_RECIPROCAL = Kind("reciprocal", ("dst",), ("data",), _check_reciprocal, _reciprocal, by_lane=True)


def reciprocal(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Compute 1/x of each element, in float32, on the vector engine."""
    return issue(_RECIPROCAL, (dst,), (data,))
