"""The tensors of a workload: their element types, and the input arrays, given or drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import DataError, UsageError
from autotune.model.kernel import Inputs, TensorSpec

Array = NDArray[Any]


def dtype_of(spec: TensorSpec) -> np.dtype[Any]:
    """Return a tensor's element type.

    Raises:
        UsageError: NumPy does not know it, or we have no tolerance for it.
    """
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        raise UsageError(f"tensor {spec.name!r}: no dtype {spec.dtype!r} here") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(
            f"tensor {spec.name!r}: no tolerance for dtype {spec.dtype!r}; use float, int or bool"
        )
    return dtype


def materialize(inputs: Inputs) -> tuple[Array, ...]:
    """Return the input arrays: those given, checked, or drawn from the seed.

    Raises:
        DataError: an array has another shape or dtype than its spec, or holds NaN or Inf.
    """
    if not inputs.arrays:
        return tuple(_draw(spec, inputs.seed, place) for place, spec in enumerate(inputs.specs))
    if len(inputs.arrays) != len(inputs.specs):
        raise DataError(f"{len(inputs.arrays)} input arrays for {len(inputs.specs)} specs")
    for array, spec in zip(inputs.arrays, inputs.specs, strict=True):
        if array.shape != spec.shape or array.dtype != dtype_of(spec):
            raise DataError(
                f"input {spec.name!r}: {array.dtype} {array.shape}, its spec {spec.dtype} {spec.shape}"
            )
        if not np.isfinite(array).all():
            wrong = int((~np.isfinite(array)).sum())
            raise DataError(
                f"input {spec.name!r}: {wrong} of {array.size} elements are NaN or Inf; give finite inputs"
            )
    return inputs.arrays


def _draw(spec: TensorSpec, seed: int, place: int) -> Array:
    rng = np.random.default_rng((seed, place))
    dtype = dtype_of(spec)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, spec.shape).astype(dtype)
    return rng.integers(0 if dtype.kind == "u" else -8, 9, spec.shape).astype(dtype)
