"""The math operators and activation functions that instructions take, in float32 or on bit patterns.

Sources: the tables "Supported Math Operators" and "Supported Activation Functions" of NKI's shared API page.
The Scalar Engine approximates activation functions with polynomials of its own; here they are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import Array

Binary = Callable[[Any, Any], Any]
Unary = Callable[[Any], Any]
ARITHMETIC, BITVEC, UNARY, ACTIVATION = "arithmetic", "bitvec", "unary", "activation"


@dataclass(frozen=True)
class Operator:
    """Hold one operator: what it computes, and where it may be used.

    Args:
        name: its name in `nki.language`.
        kind: "arithmetic", "bitvec", "unary" (one operand), or "activation" (the Scalar Engine's only).
        binary: the function of two operands, if it has one.
        unary: the function of one operand, if it has one.
        identity: the value that a reduction starts from, None if it is no reduction.
        activates: the Scalar Engine has it.
        generation: the first NeuronCore that has it.
    """

    name: str
    kind: str
    binary: Binary | None = None
    unary: Unary | None = None
    identity: float | None = None
    activates: bool = False
    generation: int = 2


def operator_of(op: Any, role: str = "op") -> Operator:
    """Return the operator that a function of `nki.language` stands for.

    Raises:
        NkiError: the value stands for none.
    """
    found = op if isinstance(op, Operator) else getattr(op, "operator", None)
    if not isinstance(found, Operator):
        shown = getattr(op, "__name__", None) or repr(op)
        raise NkiError(f"{role}={shown} is no operator of nki.language; see its table of math operators")
    return found


def _truth(compare: Binary) -> Binary:
    return lambda x, y: compare(x, y).astype(np.float32)


def _abs_max(x: Array, y: Array) -> Any:
    return np.where(np.abs(x) > np.abs(y), x, y)


def _abs_min(x: Array, y: Array) -> Any:
    return np.where(np.abs(x) < np.abs(y), x, y)


@cache
def _erf_table() -> tuple[Array, Array]:
    """Tabulate erf at steps of 1/8192: a straight line between them is right to 2e-9."""
    points = np.linspace(-6.0, 6.0, 12 * 8192 + 1)
    return points, np.array([math.erf(point) for point in points])


def erf(x: Array) -> Array:
    """Return the error function."""
    points, values = _erf_table()
    return np.asarray(np.interp(x.astype(np.float64), points, values), dtype=np.float32)


def _sigmoid(x: Array) -> Any:
    return 0.5 * (np.tanh(0.5 * x) + 1)


def _gelu(x: Array) -> Any:
    return 0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))


def _gelu_dx(x: Array) -> Any:
    density = np.exp(-0.5 * x * x) / np.float32(math.sqrt(2 * math.pi))
    return 0.5 * (1 + erf(x / np.float32(math.sqrt(2)))) + x * density


def _gelu_tanh(x: Array) -> Any:
    return 0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))


_SLOPE = np.float32(1.702)  # of GELU's approximation x * sigmoid(1.702 x)


def _gelu_sigmoid(x: Array) -> Any:
    return x * _sigmoid(_SLOPE * x)


def _gelu_sigmoid_dx(x: Array) -> Any:
    gate = _sigmoid(_SLOPE * x)
    return gate + _SLOPE * x * gate * (1 - gate)


def _silu_dx(x: Array) -> Any:
    gate = _sigmoid(x)
    return gate + x * gate * (1 - gate)


def _softplus(x: Array) -> Any:
    return np.logaddexp(np.float32(0), x)


def _erf_dx(x: Array) -> Any:
    return np.float32(2 / math.sqrt(math.pi)) * np.exp(-x * x)


def _engine_sin(x: Array) -> Any:
    """Compute sine where the Scalar Engine can: it does not reduce its argument."""
    worst = np.max(np.abs(x), initial=0.0)
    if worst > np.float32(math.pi) * np.float32(1.000001):
        raise NkiError(
            f"sin of {float(worst):g}: the Scalar Engine has it for -pi to pi only, and gives wrong values "
            "beyond; reduce the argument first, or call nl.sin, which does"
        )
    return np.sin(x)


def _arithmetic(name: str, binary: Binary, identity: float | None = None, generation: int = 2) -> Operator:
    return Operator(name, ARITHMETIC, binary, None, identity, generation=generation)


def _bitvec(name: str, binary: Binary, identity: float | None = None) -> Operator:
    return Operator(name, BITVEC, binary, None, identity)


def _activation(name: str, unary: Unary) -> Operator:
    return Operator(name, ACTIVATION, None, unary, activates=True)


def _both(name: str, unary: Unary, generation: int = 2) -> Operator:
    return Operator(name, UNARY, None, unary, activates=True, generation=generation)


OPERATORS = {
    each.name: each
    for each in (
        _arithmetic("add", np.add, 0.0),
        _arithmetic("subtract", np.subtract, 0.0),
        _arithmetic("multiply", np.multiply, 1.0),
        _arithmetic("divide", np.divide),
        _arithmetic("maximum", np.maximum, -math.inf),
        _arithmetic("minimum", np.minimum, math.inf),
        _arithmetic("equal", _truth(np.equal)),
        _arithmetic("not_equal", _truth(np.not_equal)),
        _arithmetic("greater_equal", _truth(np.greater_equal)),
        _arithmetic("greater", _truth(np.greater)),
        _arithmetic("less_equal", _truth(np.less_equal)),
        _arithmetic("less", _truth(np.less)),
        _arithmetic("logical_and", _truth(np.logical_and), 1.0),
        _arithmetic("logical_or", _truth(np.logical_or), 0.0),
        _arithmetic("logical_xor", _truth(np.logical_xor), 0.0),
        _arithmetic("power", np.power),
        _arithmetic("fmod", np.fmod),
        _arithmetic("mod", np.mod),
        _arithmetic("abs_max", _abs_max, 0.0, generation=4),
        _arithmetic("abs_min", _abs_min, math.inf, generation=4),
        _arithmetic("average", np.add, 0.0),
        _bitvec("bitwise_and", np.bitwise_and, -1),
        _bitvec("bitwise_or", np.bitwise_or, 0),
        _bitvec("bitwise_xor", np.bitwise_xor, 0),
        _bitvec("left_shift", np.left_shift),
        _bitvec("right_shift", np.right_shift),
        Operator("invert", BITVEC, None, np.invert),
        Operator("logical_not", UNARY, None, lambda x: np.logical_not(x).astype(np.float32)),
        Operator("bypass", ARITHMETIC, lambda x, _: x, lambda x: x),
        _both("abs", np.abs),
        _both("square", np.square, generation=4),
        _both("relu", lambda x: np.maximum(x, np.float32(0)), generation=4),
        _both("rsqrt", lambda x: np.float32(1) / np.sqrt(x)),
        _both("reciprocal", lambda x: np.float32(1) / x),
        _activation("copy", lambda x: x),
        _activation("sigmoid", _sigmoid),
        _activation("prelu", lambda x: x),
        _activation("gelu", _gelu),
        _activation("gelu_dx", _gelu_dx),
        _activation("gelu_apprx_tanh", _gelu_tanh),
        _activation("gelu_apprx_sigmoid", _gelu_sigmoid),
        _activation("gelu_apprx_sigmoid_dx", _gelu_sigmoid_dx),
        _activation("silu", lambda x: x * _sigmoid(x)),
        _activation("silu_dx", _silu_dx),
        _activation("tanh", np.tanh),
        _activation("softplus", _softplus),
        _activation("mish", lambda x: x * np.tanh(_softplus(x))),
        _activation("erf", erf),
        _activation("erf_dx", _erf_dx),
        _activation("exp", np.exp),
        _activation("log", np.log),
        _activation("sin", _engine_sin),
        _activation("arctan", np.arctan),
        _activation("sqrt", np.sqrt),
        _activation("sign", np.sign),
    )
}
"""Every operator by its name."""


def applied(operator: Operator, x: Array, y: Any, reverse: bool) -> Array:
    """Apply an operator of two operands, or of one if it has only one."""
    if operator.binary is None:
        return np.asarray(operator.unary(x)) if operator.unary else x
    first, second = (y, x) if reverse else (x, y)
    return np.asarray(operator.binary(first, second))


def reduced(operator: Operator, values: Array, axes: tuple[int, ...]) -> Array:
    """Reduce values over axes; the axes are the last ones."""
    kept = values.shape[: values.ndim - len(axes)]
    flat = values.reshape(*kept, -1)
    ufunc = operator.binary
    if isinstance(ufunc, np.ufunc):
        total = np.asarray(ufunc.reduce(flat, axis=-1))
        return total / np.float32(flat.shape[-1]) if operator.name == "average" else total
    if ufunc is None:
        raise NkiError(f"{operator.name} is no reduction")
    total = flat[..., 0]
    for place in range(1, flat.shape[-1]):
        total = np.asarray(ufunc(total, flat[..., place]))
    return total
