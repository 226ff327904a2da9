"""The tensors of a workload: their element types, and the input arrays, given or drawn from a seed."""

from __future__ import annotations

import ctypes
import functools
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import DataError, UsageError
from autotune.model.kernel import Inputs, TensorSpec

Array = NDArray[Any]
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3", "float8_e5m2")
"""The floats that have a tolerance and a poison, by the names that NumPy and ml_dtypes give them."""
_AMBIGUOUS = frozenset({"float8", "fp8", "e4m3", "fp8_e4m3"})
Index = tuple[NDArray[np.intp], ...]
"""The indices of some elements, one array for each axis."""


class Kind(Enum):
    """What the elements of a tensor are."""

    FLOAT = "float"
    SIGNED = "signed integer"
    UNSIGNED = "unsigned integer"
    BOOL = "bool"


@functools.cache
def kind_of(dtype: np.dtype[Any]) -> Kind | None:
    """Return what a dtype's elements are; None for a dtype that the tuner does not check.

    `dtype.kind` does not tell: it is V for bfloat16 and for most other floats of ml_dtypes.
    """
    if dtype.name in FLOATS:
        return Kind.FLOAT
    kinds = {"i": Kind.SIGNED, "u": Kind.UNSIGNED, "b": Kind.BOOL}
    return kinds.get(dtype.kind)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is one of `FLOATS`."""
    return kind_of(dtype) is Kind.FLOAT


@functools.cache
def format_of(dtype: np.dtype[Any]) -> ml_dtypes.finfo:
    """Return the limits of a float: `eps` (2^-nmant), `nmant`, `minexp`, `max` and more, as `numpy.finfo`."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def dtype_of(spec: TensorSpec) -> np.dtype[Any]:
    """Return a tensor's element type.

    Raises:
        UsageError: it is not known, its name has several meanings, or we have no tolerance for it.
    """
    try:
        return _dtype(spec.dtype)
    except UsageError as fault:
        raise UsageError(f"tensor {spec.name!r}: {fault}") from None


@functools.cache
def _dtype(name: str) -> np.dtype[Any]:
    if name in _AMBIGUOUS:
        raise UsageError(
            f"dtype {name!r} has several meanings: float8_e4m3fn (largest 448, no infinity: OCP, NVIDIA, "
            "PyTorch), float8_e4m3 (largest 240: Trainium 1 and 2) and float8_e5m2; give one of these names"
        )
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise UsageError(f"no dtype {name!r} here") from None
    if not dtype.isnative:
        raise UsageError(f"dtype {name!r} is of another byte order")
    if kind_of(dtype) is None:
        known = ", ".join(FLOATS)
        raise UsageError(
            f"no tolerance for dtype {name!r}; use {known}, int8 to int64, uint8 to uint64 or bool"
        )
    return dtype


def materialize(inputs: Inputs) -> tuple[Array, ...]:
    """Return the input arrays: those given, checked, or drawn from the seed.

    Raises:
        DataError: an array has another shape or dtype than its spec, or holds NaN or Inf though the inputs
            are finite.
    """
    if not inputs.arrays:
        drawn = (_draw(spec, inputs.seed, place) for place, spec in enumerate(inputs.specs))
        return tuple(_as_stored(values, spec) for values, spec in zip(drawn, inputs.specs, strict=True))
    if len(inputs.arrays) != len(inputs.specs):
        raise DataError(f"{len(inputs.arrays)} input arrays for {len(inputs.specs)} specs")
    for array, spec in zip(inputs.arrays, inputs.specs, strict=True):
        if array.shape != spec.shape or array.dtype != dtype_of(spec):
            raise DataError(
                f"input {spec.name!r}: {array.dtype} {array.shape}, its spec {spec.dtype} {spec.shape}"
            )
        if inputs.finite and not np.isfinite(array).all():
            wrong = int((~np.isfinite(array)).sum())
            raise DataError(
                f"input {spec.name!r}: {wrong} of {array.size} elements are NaN or Inf; give finite "
                "inputs, or say that they are meant: Inputs(..., finite=False)"
            )
        if not np.array_equal(_as_stored(array, spec), array, equal_nan=is_float(array.dtype)):
            raise DataError(f"input {spec.name!r}: elements of one address have different values")
    return inputs.arrays


def extent_bytes(spec: TensorSpec) -> int:
    """Return the bytes from a tensor's lowest element to the end of its highest."""
    return sum(spec.reach) * dtype_of(spec).itemsize


def view_of(buffer: Any, spec: TensorSpec, offset: int = 0) -> Array:
    """Return a tensor as an array, without a copy.

    Args:
        buffer: holds it.
        spec: its shape and strides.
        offset: bytes from the buffer's begin to the element at index 0.
    """
    dtype = dtype_of(spec)
    strides = [step * dtype.itemsize for step in spec.element_strides]
    view: Array = np.ndarray(spec.shape, dtype, buffer, offset, strides)
    return view


def array_at(address: int, spec: TensorSpec) -> Array:
    """Return the tensor whose element at index 0 is at this address as an array, without a copy."""
    below = spec.reach[0] * np.dtype(spec.dtype).itemsize
    buffer = memoryview((ctypes.c_char * extent_bytes(spec)).from_address(address - below))
    return view_of(buffer, spec, below)


def _as_stored(values: Array, spec: TensorSpec) -> Array:
    """Return the values as they are in memory if some elements have one address."""
    if spec.strides is None:
        return values
    itemsize = dtype_of(spec).itemsize
    view = view_of(np.zeros(extent_bytes(spec), np.uint8), spec, spec.reach[0] * itemsize)
    view[...] = values
    stored: Array = view.copy()
    return stored


def drawn_range(spec: TensorSpec) -> tuple[int, int] | None:
    """Return the least and the greatest integer drawn for a spec without a range; None for other specs."""
    lows = {Kind.SIGNED: -8, Kind.UNSIGNED: 0}
    kind = kind_of(dtype_of(spec))
    return None if spec.range or kind not in lows else (lows[kind], 8)


def _draw(spec: TensorSpec, seed: int, place: int) -> Array:
    rng = np.random.default_rng((seed, place))
    dtype = dtype_of(spec)
    if kind_of(dtype) is Kind.BOOL:
        return np.asarray(rng.integers(0, 2, spec.shape)).astype(dtype)
    limits = format_of(dtype) if is_float(dtype) else np.iinfo(dtype)
    least, largest = (float(each) if is_float(dtype) else each for each in (limits.min, limits.max))
    low, high = spec.range or drawn_range(spec) or (0, 0)
    if not least <= low <= high <= largest:
        raise UsageError(f"tensor {spec.name!r}: {spec.dtype} does not hold all of range ({low}, {high})")
    if is_float(dtype):
        values = rng.uniform(low, high, spec.shape) if spec.range else rng.standard_normal(spec.shape)
        return np.asarray(values).astype(dtype)
    return np.asarray(rng.integers(int(low), int(high), spec.shape, dtype, endpoint=True))
