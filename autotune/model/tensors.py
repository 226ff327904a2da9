"""The tensors of a workload: their element types, and the input arrays, given or drawn from a seed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import DataError, UsageError
from autotune.model.kernel import Inputs, TensorSpec

Array = NDArray[Any]
Index = tuple[NDArray[np.intp], ...]
"""The indices of some elements, one array for each axis."""


def dtype_of(spec: TensorSpec) -> np.dtype[Any]:
    """Return a tensor's element type.

    Raises:
        UsageError: NumPy does not know it, or we have no tolerance for it.
    """
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        raise UsageError(f"tensor {spec.name!r}: no dtype {spec.dtype!r} here") from None
    if not dtype.isnative:
        raise UsageError(f"tensor {spec.name!r}: dtype {spec.dtype!r} is of another byte order")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(
            f"tensor {spec.name!r}: no tolerance for dtype {spec.dtype!r}; use float, int or bool"
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
        if not np.array_equal(_as_stored(array, spec), array, equal_nan=array.dtype.kind == "f"):
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
    kind = dtype_of(spec).kind
    return None if spec.range or kind not in "iu" else (0 if kind == "u" else -8, 8)


def _draw(spec: TensorSpec, seed: int, place: int) -> Array:
    rng = np.random.default_rng((seed, place))
    dtype = dtype_of(spec)
    if dtype.kind == "f":
        values = rng.uniform(*spec.range, spec.shape) if spec.range else rng.standard_normal(spec.shape)
        return np.asarray(values).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, spec.shape)).astype(dtype)
    low, high = spec.range or drawn_range(spec) or (0, 1)
    limits = np.iinfo(dtype)
    if not limits.min <= low <= high <= limits.max:
        raise UsageError(f"tensor {spec.name!r}: {spec.dtype} does not hold all of range ({low}, {high})")
    return np.asarray(rng.integers(int(low), int(high), spec.shape, dtype, endpoint=True))
