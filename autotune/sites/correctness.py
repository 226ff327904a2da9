"""The exact outputs, the tolerance of each element, and the description of wrong ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import DataError
from autotune.model.kernel import Kernel, TensorSpec
from autotune.model.tensors import Array, dtype_of

SAFETY = 8.0
"""Multiplies the expected rounding error: the worst of 10^7 normally distributed ones is 5.4 of it."""

_MAX_REGIONS = 8


@dataclass(frozen=True)
class Mismatch:
    """The errors of one output.

    Args:
        output: the output's name.
        wrong: elements beyond the tolerance, NaN and Inf in the wrong place included.
        total: elements of the output.
        unwritten: wrong elements that still hold the poison: the candidate never wrote them.
        worst: index of the worst element.
        expected: the golden there.
        actual: the candidate's value there.
        tolerance: the difference allowed there.
        regions: boxes that hold all wrong elements: each a (start, stop) for every axis; the last one may
            hold the rest.
        stray_bytes: bytes written just outside the output.
    """

    output: str
    wrong: int
    total: int
    unwritten: int = 0
    worst: tuple[int, ...] = ()
    expected: float = 0.0
    actual: float = 0.0
    tolerance: float = 0.0
    regions: tuple[tuple[tuple[int, int], ...], ...] = ()
    stray_bytes: int = 0

    def __str__(self) -> str:
        """Return the report in one line."""
        if self.stray_bytes:
            return f"{self.output}: wrote {self.stray_bytes} bytes outside the tensor"
        boxes = " ".join(
            "[" + ", ".join(f"{start}:{stop}" for start, stop in box) + "]" for box in self.regions
        )
        unwritten = f", {self.unwritten} never written" if self.unwritten else ""
        where = ", ".join(map(str, self.worst))
        return (
            f"{self.output}: {self.wrong} of {self.total} elements wrong{unwritten}; worst at [{where}]: "
            f"expected {self.expected:.9g}, got {self.actual:.9g}, allowed ±{self.tolerance:.3g}; in {boxes}"
        )


@dataclass(frozen=True)
class Golden:
    """The exact outputs of one workload, and how far from them a candidate may be.

    Args:
        specs: the outputs.
        values: float64, exact.
        tolerances: allowed absolute difference, element by element.
    """

    specs: tuple[TensorSpec, ...]
    values: tuple[NDArray[np.float64], ...]
    tolerances: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, kernel: Kernel, specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> Golden:
        """Compute the golden in float64 from the inputs as the candidates see them.

        Raises:
            DataError: the golden's shapes are not those of the kernel's outputs.
        """
        outputs = kernel.outputs(tuple(specs))
        values = tuple(
            np.asarray(value, dtype=np.float64)
            for value in kernel.golden(*(array.astype(np.float64) for array in arrays))
        )
        if [value.shape for value in values] != [spec.shape for spec in outputs]:
            got, want = [value.shape for value in values], [spec.shape for spec in outputs]
            raise DataError(f"kernel {kernel.name!r}: its golden has shapes {got}, its outputs {want}")
        terms = kernel.reduction_length(tuple(specs))
        tolerances = tuple(
            tolerance(value, dtype_of(spec), terms) for value, spec in zip(values, outputs, strict=True)
        )
        return cls(outputs, values, tolerances)

    @functools.cached_property
    def bounds(self) -> tuple[tuple[Array, Array], ...]:
        """The least and the largest right value of each element of each output, in its own dtype."""
        triples = zip(self.values, self.tolerances, self.specs, strict=True)
        return tuple(_bounds(value, allowed, dtype_of(spec)) for value, allowed, spec in triples)

    def compare(self, actual: Sequence[Array]) -> Mismatch | None:
        """Describe the first wrong output; None if all are right."""
        for place, (spec, got) in enumerate(zip(self.specs, actual, strict=True)):
            value, (least, largest) = self.values[place], self.bounds[place]
            right = (least <= got) & (got <= largest)
            if not right.all():
                right |= (got == value) | (np.isnan(got) & np.isnan(value) & ~is_poison(got))
            if not right.all():
                return _describe(spec, value, self.tolerances[place], got, ~right)
        return None


def tolerance(value: NDArray[np.float64], dtype: np.dtype[Any], terms: int) -> NDArray[np.float64]:
    """Return how far each element may be from the golden.

    Rounding errors of a sum of n terms add up like a random walk: about eps * sqrt(n) of the outputs' root
    mean square (Higham and Mary, 2019), besides the rounding of the element itself. Integers and booleans
    must be exact. The tolerance of NaN and Inf is 0: they are compared exactly.
    """
    if dtype.kind != "f":
        return np.zeros_like(value)
    finite = np.isfinite(value)
    magnitude = np.where(finite, np.abs(value), 0.0)
    scale = float(np.sqrt(np.mean(magnitude**2))) if value.size else 0.0
    eps = float(np.finfo(dtype).eps)
    allowed = SAFETY * eps * (magnitude + np.sqrt(max(terms, 1)) * scale)
    return np.where(finite, allowed, 0.0)


def _bounds(
    value: NDArray[np.float64], allowed: NDArray[np.float64], dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """Return the least and the largest number of a dtype that lie within the tolerance of each element.

    Comparing in the outputs' own dtype takes a sixth of the time that a difference in float64 takes, and each
    candidate is compared twice.
    """
    if dtype.kind != "f":
        return value, value
    low, high = np.asarray(value - allowed), np.asarray(value + allowed)
    with np.errstate(over="ignore"):
        least, largest = low.astype(dtype), high.astype(dtype)
    np.nextafter(least, np.inf, out=least, where=least < low, dtype=dtype)
    np.nextafter(largest, -np.inf, out=largest, where=largest > high, dtype=dtype)
    return least, largest


def poison_byte(dtype: np.dtype[Any]) -> int:
    """Return the byte that fills outputs beforehand: NaN for floats, implausible for integers."""
    return 0xFF if dtype.kind == "f" else 0xA5


def is_poison(array: Array) -> NDArray[np.bool_]:
    """Return which elements still hold the poison, bit for bit: a computed NaN has another payload."""
    bits = np.dtype(f"u{array.dtype.itemsize}")
    pattern = np.frombuffer(bytes([poison_byte(array.dtype)]) * bits.itemsize, bits)[0]
    found: NDArray[np.bool_] = np.ascontiguousarray(array).view(bits) == pattern
    return found.reshape(array.shape)


def _describe(
    spec: TensorSpec, value: NDArray[np.float64], allowed: Array, got: Array, wrong: NDArray[np.bool_]
) -> Mismatch:
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.where(wrong, np.abs(got - value) - allowed, -1.0)
    excess[wrong & ~np.isfinite(excess)] = np.inf
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), wrong.shape))
    return Mismatch(
        output=spec.name,
        wrong=int(wrong.sum()),
        total=wrong.size,
        unwritten=int((wrong & is_poison(got)).sum()),
        worst=worst,
        expected=float(value[worst]),
        actual=float(got[worst]),
        tolerance=float(allowed[worst]),
        regions=regions(wrong),
    )


def regions(wrong: NDArray[np.bool_]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return boxes that together hold every wrong element, at most 8: the last takes in all that remain."""
    boxes = list(itertools.islice(_boxes(wrong), _MAX_REGIONS * 64))
    if len(boxes) <= _MAX_REGIONS:
        return tuple(boxes)
    places = np.argwhere(wrong)
    first = boxes[: _MAX_REGIONS - 1]
    inside = np.zeros(len(places), dtype=bool)
    for box in first:
        inside |= np.all(
            [(start <= axis) & (axis < stop) for (start, stop), axis in zip(box, places.T, strict=True)], 0
        )
    rest = places[~inside]
    bounds = zip(rest.min(axis=0).tolist(), (rest.max(axis=0) + 1).tolist(), strict=True)
    return (*first, tuple((int(start), int(stop)) for start, stop in bounds))


def _boxes(wrong: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Split along each axis in turn at the indices that hold nothing wrong."""
    if wrong.ndim == 0:
        yield ()
        return
    touched = wrong.reshape(wrong.shape[0], -1).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], touched, [False])).astype(np.int8)))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for rest in _boxes(np.asarray(wrong[start:stop].any(axis=0))):
            yield ((int(start), int(stop)), *rest)
