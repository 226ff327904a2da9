"""The dtypes of NKI: their names, how NumPy stores them, and how values are converted into them.

NKI's dtypes are strings (page "Supported Data Types"); NumPy gets the small floats from ml_dtypes.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from autotune.nki.errors import NkiError

Array = npt.NDArray[Any]


class DType(str):
    """Name a dtype; equal to the plain string of the same name, and understood by NumPy where it can be.

    Attributes:
        itemsize: bytes of one element on the machine.
        numpy: the NumPy dtype in which the interpreter stores it.
        kind: "float", "int", "bool" or "packed" (four elements in one).
        low, high: the range of an integer.
    """

    __slots__ = ("high", "itemsize", "kind", "low", "numpy")

    itemsize: int
    numpy: np.dtype[Any]
    kind: str
    low: int
    high: int


def _made(name: str, stored: Any, kind: str) -> DType:
    dtype = DType(name)
    dtype.numpy = np.dtype(stored)
    dtype.itemsize = dtype.numpy.itemsize
    dtype.kind = kind
    limits = np.iinfo(dtype.numpy) if kind == "int" else None
    dtype.low, dtype.high = (int(limits.min), int(limits.max)) if limits else (0, 0)
    return dtype


bool_ = _made("bool", np.bool_, "bool")
int8 = _made("int8", np.int8, "int")
int16 = _made("int16", np.int16, "int")
int32 = _made("int32", np.int32, "int")
uint8 = _made("uint8", np.uint8, "int")
uint16 = _made("uint16", np.uint16, "int")
uint32 = _made("uint32", np.uint32, "int")
float16 = _made("float16", np.float16, "float")
float32 = _made("float32", np.float32, "float")
bfloat16 = _made("bfloat16", ml_dtypes.bfloat16, "float")
tfloat32 = _made("tfloat32", np.float32, "float")
float8_e4m3 = _made("float8_e4m3", ml_dtypes.float8_e4m3, "float")
float8_e4m3fn = _made("float8_e4m3fn", ml_dtypes.float8_e4m3fn, "float")
float8_e5m2 = _made("float8_e5m2", ml_dtypes.float8_e5m2, "float")
float8_e8m0fnu = _made("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, "float")
float8_e5m2_x4 = _made("float8_e5m2_x4", np.uint32, "packed")
float8_e4m3fn_x4 = _made("float8_e4m3fn_x4", np.uint32, "packed")
float4_e2m1fn_x4 = _made("float4_e2m1fn_x4", np.uint16, "packed")

DTYPES = {
    str(dtype): dtype
    for dtype in (
        *(bool_, int8, int16, int32, uint8, uint16, uint32, float16, float32, bfloat16, tfloat32),
        *(float8_e4m3, float8_e4m3fn, float8_e5m2, float8_e8m0fnu),
        *(float8_e5m2_x4, float8_e4m3fn_x4, float4_e2m1fn_x4),
    )
}
"""Every dtype of NKI by its name."""

FULL_FLOATS = frozenset((float32, tfloat32))
FP8 = frozenset((float8_e4m3, float8_e4m3fn, float8_e5m2))


def dtype_of(given: Any) -> DType:
    """Return the NKI dtype that a name, a NumPy dtype or a NumPy type means.

    Raises:
        NkiError: NKI has no such dtype, such as float64.
    """
    if type(given) is DType:
        return given
    found = DTYPES.get(given) if isinstance(given, str) else None
    if found is None:
        try:
            found = DTYPES.get(np.dtype(given).name)
        except TypeError:
            found = None
    if found is None:
        raise NkiError(f"NKI has no dtype {given!r}; it has {', '.join(DTYPES)}")
    return found


def cast(values: Array, dtype: DType) -> Array:
    """Convert values as the engines do on their way out.

    A float becomes the nearest value of the dtype, ties to even. Into an integer it is rounded to the nearest
    one, ties to even, and kept within the dtype's range; not-a-number becomes 0.
    """
    stored = dtype.numpy
    if dtype.kind == "int" and values.dtype != stored:
        return _to_integer(values, dtype)
    if dtype == "tfloat32":
        return _to_tfloat32(values)
    if values.dtype == stored:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(stored)


def _to_integer(values: Array, dtype: DType) -> Array:
    if values.dtype.kind in "iub":
        return np.clip(values.astype(np.int64), dtype.low, dtype.high).astype(dtype.numpy)
    exact = np.rint(values.astype(np.float64))
    kept = np.clip(np.nan_to_num(exact, nan=0.0), dtype.low, dtype.high)
    return np.asarray(kept, dtype=dtype.numpy)


def _to_tfloat32(values: Array) -> Array:
    """Round to ten bits of mantissa, ties to even; the word stays 32 bits wide."""
    whole = np.ascontiguousarray(values, dtype=np.float32)
    bits = whole.view(np.uint32)
    rounded = (bits + np.uint32(0x0FFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.asarray(np.where(np.isfinite(whole), rounded.view(np.float32), whole))


def float32_of(values: Array) -> Array:
    """Return values as the engines compute on them: in float32."""
    return values if values.dtype == np.float32 else values.astype(np.float32)
