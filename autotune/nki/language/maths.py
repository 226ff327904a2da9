"""Element-wise functions, reductions and products on whole tiles, each made of instructions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autotune.nki import isa
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import DType, dtype_of, float32
from autotune.nki.interpreter.operands import flat, put, raw
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, Operands, issue
from autotune.nki.isa.operators import BITVEC, OPERATORS, UNARY, Operator, erf
from autotune.nki.language.creation import broadcast_to, copy, ndarray, psum, temporary

Axis = int | Sequence[int]
_TRUTHS = frozenset(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"))


def promoted(x: NkiTensor, y: NkiTensor) -> DType:
    """Return the dtype of a result of two tiles."""
    if x.dtype == y.dtype:
        return x.dtype
    both = np.promote_types(x.dtype.numpy, y.dtype.numpy)
    return dtype_of({8: np.float32}.get(both.itemsize, both) if both.kind == "f" else both)


def _named(
    function: Callable[..., Any], name: str, operator: Operator | None, text: str
) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    if operator is not None:
        function.operator = operator  # type: ignore[attr-defined]
    return function


def binary(name: str) -> Callable[..., NkiTensor]:
    """Return the function of two operands that is also the operator of instructions."""
    operator = OPERATORS[name]

    def apply(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
        made = _binary(operator, x, y, dtype)
        made.truth = name in _TRUTHS
        return made

    text = f"Apply {name} to two tiles, or a tile and a number; as `op`, name the operator."
    return _named(apply, name, operator, text)


def _binary(operator: Operator, x: Any, y: Any, dtype: Any) -> NkiTensor:
    if not isinstance(x, NkiTensor):
        if not isinstance(y, NkiTensor):
            raise NkiError(f"nl.{operator.name}: one of the two has to be a tile")
        made = ndarray(y.shape, dtype or y.dtype)
        isa.tensor_scalar(dst=made, data=y, op0=operator, operand0=x, reverse0=True)
        return made
    if not isinstance(y, NkiTensor):
        made = ndarray(x.shape, dtype or x.dtype)
        isa.tensor_scalar(dst=made, data=x, op0=operator, operand0=y)
        return made
    left, right = spread(x, y)
    made = ndarray(left.shape, dtype or promoted(x, y))
    if left.layout.memory == right.layout.memory == "psum":
        right = copy(right)
    isa.tensor_tensor(dst=made, data1=left, data2=right, op=operator)
    return made


def spread(x: NkiTensor, y: NkiTensor) -> tuple[NkiTensor, NkiTensor]:
    """Return two tiles as views of one shape: dimensions of size 1 repeat, a single partition by a copy."""
    if x.shape == y.shape:
        return x, y
    if len(x.shape) != len(y.shape) or any(
        a != b and 1 not in (a, b) for a, b in zip(x.shape, y.shape, strict=True)
    ):
        raise NkiError(f"{x.name} of the shape {x.shape} and {y.name} of {y.shape} do not broadcast")
    if x.shape[0] < y.shape[0]:
        x = broadcast_to(x, (y.shape[0], *x.shape[1:]))
    elif y.shape[0] < x.shape[0]:
        y = broadcast_to(y, (x.shape[0], *y.shape[1:]))
    for dim in range(1, len(x.shape)):
        if x.shape[dim] != y.shape[dim]:
            if x.shape[dim] == 1:
                x = x.broadcast(dim, y.shape[dim])
            else:
                y = y.broadcast(dim, x.shape[dim])
    return x, y


def _check_function(call: Call) -> None:
    call.tiles("dst", "data")
    call.alike("data", "dst")
    call.engine, call.op = "scalar", call.options.name


def _function(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    with np.errstate(all="ignore"):
        put(writes[0], np.asarray(options.unary(flat(reads[0]))))


_FUNCTION = Kind("activation", ("dst",), ("data",), _check_function, _function, by_lane=True)
_EXACT = {
    name: Operator(name, UNARY, None, function)
    for name, function in (
        ("sin", np.sin),
        ("cos", np.cos),
        ("tan", np.tan),
        ("ceil", np.ceil),
        ("floor", np.floor),
        ("trunc", np.trunc),
        ("negative", np.negative),
        ("erf", erf),
    )
}


def unary(name: str) -> Callable[..., NkiTensor]:
    """Return the function of one operand; if instructions have it, it is also their operator."""
    operator = OPERATORS.get(name)

    def apply(x: NkiTensor, dtype: Any = None) -> NkiTensor:
        made = ndarray(x.shape, dtype or x.dtype)
        if name == "rsqrt":
            isa.tensor_scalar(dst=made, data=x, op0=OPERATORS["rsqrt"], operand0=0.0)
        elif name == "reciprocal":
            isa.reciprocal(dst=made, data=x)
        elif operator is not None and operator.kind == BITVEC:
            isa.tensor_scalar(dst=made, data=x, op0=operator, operand0=None)
        elif name == "logical_not":
            isa.tensor_scalar(dst=made, data=x, op0=OPERATORS["equal"], operand0=0.0)
        else:
            issue(_FUNCTION, (made,), (x,), _EXACT.get(name) or operator)
        return made

    text = f"Apply {name} to each element of a tile" + ("; as `op`, name the operator." if operator else ".")
    return _named(apply, name, operator, text)


def _axes(x: NkiTensor, axis: Axis) -> tuple[int, ...]:
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    return tuple(sorted(each + x.ndim * (each < 0) for each in given))


def _left(x: NkiTensor, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    kept = tuple(size for dim, size in enumerate(x.shape) if dim not in axes)
    if keepdims:
        return (*kept, *[1] * len(axes))
    return kept if len(kept) > 1 else (*kept, 1)


def reduction(name: str, operator: str) -> Callable[..., NkiTensor]:
    """Return a reduction over free dimensions; as `op`, it names the operator that it repeats."""
    found = OPERATORS[operator]

    def apply(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
        axes = _axes(x, axis)
        made = ndarray(_left(x, axes, keepdims), dtype or x.dtype)
        isa.tensor_reduce(dst=made, op=found, data=x, axis=axes)
        return made

    return _named(apply, name, found, f"Reduce the last free dimensions of a tile by {operator}.")


def mean(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Average over the last free dimensions of a tile, in float32."""
    axes = _axes(x, axis)
    shape = _left(x, axes, keepdims)
    total = temporary(shape)
    isa.tensor_reduce(dst=total, op=OPERATORS["add"], data=x, axis=axes)
    count = math.prod(x.shape[axis] for axis in axes)
    made = ndarray(shape, dtype or x.dtype)
    isa.tensor_scalar(dst=made, data=total, op0=OPERATORS["multiply"], operand0=1.0 / count)
    return made


def var(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Compute the variance over the last free dimensions; the dimensions stay, with size 1."""
    axes = _axes(x, axis)
    center = mean(x, axes, float32, True)
    apart = temporary(x.shape)
    left, right = spread(x, center)
    isa.tensor_tensor(dst=apart, data1=left, data2=right, op=OPERATORS["subtract"])
    squares = temporary(x.shape)
    isa.tensor_tensor(dst=squares, data1=apart, data2=apart, op=OPERATORS["multiply"])
    return mean(squares, axes, dtype or x.dtype, True)


def all_(x: NkiTensor, axis: Axis, dtype: Any = None) -> NkiTensor:
    """Tell whether all elements along the last free dimensions are true."""
    axes = _axes(x, axis)
    made = ndarray(_left(x, axes, False), dtype or x.dtype)
    isa.tensor_reduce(dst=made, op=OPERATORS["logical_and"], data=x, axis=axes)
    made.truth = True
    return made


def softmax(x: NkiTensor, axis: Axis = -1, dtype: Any = None) -> NkiTensor:
    """Compute the softmax over the last free dimensions, in float32."""
    axes = _axes(x, axis)
    largest = temporary(_left(x, axes, True))
    isa.tensor_reduce(dst=largest, op=OPERATORS["maximum"], data=x, axis=axes)
    shifted = temporary(x.shape)
    left, right = spread(x, largest)
    isa.tensor_tensor(dst=shifted, data1=left, data2=right, op=OPERATORS["subtract"])
    isa.activation(dst=shifted, op=OPERATORS["exp"], data=shifted)
    total = temporary(_left(x, axes, True))
    isa.tensor_reduce(dst=total, op=OPERATORS["add"], data=shifted, axis=axes)
    isa.reciprocal(dst=total, data=total)
    made = ndarray(x.shape, dtype or x.dtype)
    left, right = spread(shifted, total)
    isa.tensor_tensor(dst=made, data1=left, data2=right, op=OPERATORS["multiply"])
    return made


def rms_norm(
    x: NkiTensor,
    w: NkiTensor,
    axis: Axis,
    n: int,
    epsilon: float = 1e-06,
    dtype: Any = None,
    compute_dtype: Any = None,
) -> NkiTensor:
    """Divide by the root of the mean square over the last free dimensions, and multiply by weights."""
    kind = dtype_of(compute_dtype or float32)
    axes = _axes(x, axis)
    squares = temporary(x.shape, kind)
    isa.tensor_tensor(dst=squares, data1=x, data2=x, op=OPERATORS["multiply"])
    total = temporary(_left(x, axes, True))
    isa.tensor_reduce(dst=total, op=OPERATORS["add"], data=squares, axis=axes)
    isa.tensor_scalar(
        dst=total,
        data=total,
        op0=OPERATORS["multiply"],
        operand0=1.0 / n,
        op1=OPERATORS["add"],
        operand1=epsilon,
    )
    isa.activation(dst=total, op=OPERATORS["rsqrt"], data=total)
    scaled = temporary(x.shape, kind)
    left, right = spread(x, total)
    isa.tensor_tensor(dst=scaled, data1=left, data2=right, op=OPERATORS["multiply"])
    made = ndarray(x.shape, dtype or x.dtype)
    weights = w
    if w.shape[0] != x.shape[0]:
        weights = broadcast_to(w, (x.shape[0], *w.shape[1:]))
    left, right = spread(scaled, weights)
    isa.tensor_tensor(dst=made, data1=left, data2=right, op=OPERATORS["multiply"])
    return made


def _check_where(call: Call) -> None:
    call.tiles("dst", "condition")
    call.alike("condition", "dst")
    for name in ("x", "y"):
        if call.has(name):
            call.tiles(name)
            call.alike("condition", name)
    call.engine = "vector"


def _where(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    condition, x, y = (raw(each) if isinstance(each, NkiTensor) else np.float32(each) for each in reads)
    first, second = (each.astype(np.float32) for each in (x, y))
    put(writes[0], np.where(np.asarray(condition).astype(np.float32) != 0, first, second))


_WHERE = Kind("select_reduce", ("dst",), ("condition", "x", "y"), _check_where, _where, by_lane=True)


def where(condition: NkiTensor, x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Take elements of x where a condition is true, of y elsewhere."""
    tiles = [each for each in (x, y) if isinstance(each, NkiTensor)]
    kind = dtype or (tiles[0].dtype if len(tiles) == 1 else promoted(*tiles) if tiles else condition.dtype)
    made = ndarray(condition.shape, kind)
    sides = [spread(condition, each)[1] if isinstance(each, NkiTensor) else each for each in (x, y)]
    issue(_WHERE, (made,), (condition, *sides))
    return made


def dropout(x: NkiTensor, rate: Any, dtype: Any = None) -> NkiTensor:
    """Replace elements by 0 with a probability."""
    made = ndarray(x.shape, x.dtype)
    isa.dropout(dst=made, data=x, prob=rate)
    return made if dtype is None or dtype_of(dtype) == x.dtype else copy(made, dtype)


def transpose(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Swap partitions and free elements of a tile; the result is in PSUM."""
    rows, columns = x.shape
    made = ndarray((columns, rows), x.dtype, psum)
    isa.nc_transpose(dst=made, data=x if x.layout.memory == "sbuf" else copy(x))
    return made if dtype is None or dtype_of(dtype) == x.dtype else copy(made, dtype)


def matmul(x: NkiTensor, y: NkiTensor, transpose_x: bool = False) -> NkiTensor:
    """Compute x @ y, or x.T @ y, into PSUM in float32."""
    left = x if transpose_x else copy(transpose(x))
    made = ndarray((left.layout.elements, *y.shape[1:]), float32, psum)
    isa.nc_matmul(dst=made, stationary=left, moving=y)
    return made


def gather_flattened(data: NkiTensor, indices: NkiTensor, axis: int = 0, dtype: Any = None) -> NkiTensor:
    """Gather elements of each partition by flat indices of the same partition."""
    if axis != 0:
        raise NkiError(f"gather_flattened: axis={axis}; it gathers within partitions, axis 0")
    places = indices if indices.dtype == "uint32" else copy(indices, "uint32")
    made = ndarray(indices.shape, data.dtype)
    isa.nc_n_gather(dst=made, data=data, indices=places)
    return made if dtype is None or dtype_of(dtype) == data.dtype else copy(made, dtype)
