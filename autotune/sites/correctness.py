"""The exact outputs, the tolerance of each element, and the description of wrong ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import DataError
from autotune.model.kernel import Kernel, TensorSpec
from autotune.model.tensors import Array, Index, Kind, dtype_of, format_of, is_float, kind_of
from autotune.sites.poison import bits, is_poison

SAFETY = 8.0
"""Multiplies the expected rounding error: the worst of 10^7 normally distributed ones is 5.4 of it."""
STORED_ELEMENT, STORED_TERMS = 2.0, 3.0
"""Multiply eps of a 16-bit type. First four roundings of the element itself, of eps / 2 each at their worst.
Then one rounding of each term that is summed into it, at 5.7 times its expected error of 0.42 * eps / 2; that
holds even if `_scales` gives only 0.4 of the true scale, the least that it gives."""

_VERSION = 3
"""Of the checks of outputs and clocks: raised when they become stricter, so results are checked anew."""
_PERTURBATIONS, _PERTURBED = 2, 1e-6
_MAX_REGIONS = 8
_SMALL, _SAMPLED, _TAIL = 1 << 18, 1 << 14, 64
"""Elements: outputs above the first are sampled after each batch, with so many, the last ones among them."""


@dataclass(frozen=True)
class Mismatch:
    """The errors of one output.

    Args:
        output: the output's name.
        wrong: elements beyond the tolerance, NaN and Inf in the wrong place included.
        total: elements of the output.
        unwritten: wrong elements that still are the poison: the candidate never wrote them.
        worst: index of the worst element.
        expected: the golden there.
        actual: the candidate's value there.
        tolerance: the difference allowed there.
        regions: boxes that hold all wrong elements: each a (start, stop) for every axis; the last one may
            hold the rest.
        stray_bytes: bytes written just outside the output.
        reason: what the kernel's own comparison says.
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
    reason: str = ""

    def __str__(self) -> str:
        """Return the report in one line."""
        if self.reason:
            return self.reason
        if self.stray_bytes:
            return f"{self.output}: wrote {self.stray_bytes} bytes outside the tensor"
        boxes = " ".join(
            "[" + ", ".join(f"{start}:{stop}" for start, stop in box) + "]" for box in self.regions
        )
        unwritten = f", {self.unwritten} never written" if self.unwritten else ""
        where = ", ".join(map(str, self.worst))
        expected, actual = (
            str(x) if isinstance(x, int) else f"{x:.9g}" for x in (self.expected, self.actual)
        )
        return (
            f"{self.output}: {self.wrong} of {self.total} elements wrong{unwritten}; worst at [{where}]: "
            f"expected {expected}, got {actual}, allowed ±{self.tolerance:.3g}; in {boxes}"
        )


@dataclass(frozen=True)
class Golden:
    """The exact outputs of one workload, and how far from them a candidate may be.

    Args:
        specs: the outputs, and behind them the inputs that the kernel changes.
        values: exact; float64 for floats, of the output's own dtype for integers and bool.
        tolerances: allowed absolute difference, element by element.
        judge: the kernel's own comparison, if it has one.
    """

    specs: tuple[TensorSpec, ...]
    values: tuple[Array, ...]
    tolerances: tuple[Array, ...]
    judge: Callable[[tuple[Array, ...], tuple[Array, ...]], str] | None = None

    @classmethod
    def of(cls, kernel: Kernel, specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> Golden:
        """Compute the golden from the inputs as the candidates see them.

        Raises:
            DataError: the golden's shapes or values do not fit the kernel's outputs.
        """
        outputs = kernel.checked(tuple(specs))
        exact = [widened(array) for array in arrays]
        values = _outputs(kernel, outputs, exact)
        terms = kernel.reduction_length(tuple(specs))
        scales = _scales(kernel, outputs, exact, values)
        tolerances = tuple(
            tolerance(value, dtype_of(spec), terms, scale)
            for value, spec, scale in zip(values, outputs, scales, strict=True)
        )
        return cls(outputs, values, tolerances, kernel.compare)

    @functools.cached_property
    def bounds(self) -> tuple[tuple[Array, Array], ...]:
        """The least and the largest right value of each element of each output, in its own dtype."""
        triples = zip(self.values, self.tolerances, self.specs, strict=True)
        return tuple(_bounds(value, allowed, dtype_of(spec)) for value, allowed, spec in triples)

    def sample(self, rng: np.random.Generator) -> list[Index | None]:
        """Choose elements of each large output; None stands for all elements of a small one.

        The last elements are among them: what is left out is most often a tail.
        """
        return [_sample(value, rng) if value.size > _SMALL else None for value in self.values]

    def compare(
        self, actual: Sequence[Array], turn: int = 0, places: Sequence[Index | None] = ()
    ) -> Mismatch | None:
        """Describe the first wrong output; None if all are right.

        Args:
            actual: the outputs.
            turn: the poison that was in them.
            places: the elements to compare of each; None, or nothing at all, for every element.
        """
        if self.judge:
            if any(chosen is not None for chosen in places):
                return None  # it needs all elements, and has compared them in the first calls
            reason = self.judge(tuple(actual), self.values)
            return Mismatch(self.specs[0].name, 1, actual[0].size, reason=reason) if reason else None
        for place, got in enumerate(actual):
            chosen = places[place] if places else None
            if not self._right(place, got, turn, chosen).all():
                wrong = ~self._right(place, got, turn, None)
                return _describe(
                    self.specs[place], self.values[place], self._allowed(place), got, wrong, turn
                )
        return None

    def compare_copies(self, copies: Sequence[Array], turn: int, rng: np.random.Generator) -> Mismatch | None:
        """Describe the first wrong copy of the outputs; None if all are right.

        Args:
            copies: of each output, along a first axis.
            turn: the poison that was in them.
            rng: chooses the elements of large outputs that are compared.
        """
        small = all(value.size <= _SMALL for value in self.values)
        if (
            small
            and not self.judge
            and all(self._right(place, got, turn, None).all() for place, got in enumerate(copies))
        ):
            return None
        places = self.sample(rng)
        for copy in zip(*copies, strict=True):
            if mismatch := self.compare([np.asarray(got) for got in copy], turn, places):
                return mismatch
        return None

    def _allowed(self, place: int) -> Array:
        """Return how far from the golden each element of an output may be, the last rounding included."""
        allowed, (least, largest) = self.tolerances[place], self.bounds[place]
        if dtype_of(self.specs[place]).itemsize > 2 or not is_float(dtype_of(self.specs[place])):
            return allowed  # that rounding is a small part of it
        ends = [np.abs(end - self.values[place]) for end in (least, largest)]
        return np.maximum(*(np.where(np.isfinite(each), each, allowed) for each in ends))

    def _right(self, place: int, got: Array, turn: int, chosen: Index | None) -> NDArray[np.bool_]:
        value, (least, largest) = self.values[place], self.bounds[place]
        if chosen is not None:
            got, value, least, largest = got[chosen], value[chosen], least[chosen], largest[chosen]
        if not is_float(got.dtype):
            exact: NDArray[np.bool_] = bits(got) == bits(
                least
            )  # a bool of another byte than 0 and 1 is wrong
            return exact
        compared = got if got.dtype == least.dtype else _in_float32(got)
        right: NDArray[np.bool_] = (least <= compared) & (compared <= largest)
        if not right.all():
            may_be_nan = np.isnan(value)
            if not _has_infinity(got.dtype):
                may_be_nan |= np.isinf(least) | np.isinf(largest)
            right |= np.isnan(compared) & may_be_nan & ~is_poison(got, turn)
        return right


def rules() -> dict[str, object]:
    """Return what decides whether outputs are right, as JSON values: other rules, other results."""
    return {"version": _VERSION, "safety": SAFETY}


_WIDE = {Kind.FLOAT: np.float64, Kind.SIGNED: np.int64, Kind.UNSIGNED: np.uint64, Kind.BOOL: np.bool_}


def widened(array: Array) -> Array:
    """Return an input as a golden gets it: float64, int64, uint64 or bool."""
    kind = kind_of(array.dtype)
    assert kind is not None
    return array.astype(_WIDE[kind])


def _golden(kernel: Kernel, inputs: Sequence[Array]) -> Any:
    """Call the golden, which may change its inputs if the kernel does."""
    return kernel.golden(*([array.copy() for array in inputs] if kernel.in_place else inputs))


def _outputs(kernel: Kernel, specs: Sequence[TensorSpec], inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Return the golden's outputs: float64, or the output's own dtype for integers and bool."""
    found = _golden(kernel, inputs)
    if isinstance(found, np.ndarray) and len(specs) == 1 and found.shape == specs[0].shape:
        found = (found,)  # a golden may return its only output
    values = tuple(np.asarray(value) for value in found)
    if [value.shape for value in values] != [spec.shape for spec in specs]:
        got, want = [value.shape for value in values], [spec.shape for spec in specs]
        raise DataError(f"kernel {kernel.name!r}: its golden has shapes {got}, its outputs {want}")
    return tuple(_exactly(kernel, value, spec) for value, spec in zip(values, specs, strict=True))


def _exactly(kernel: Kernel, value: Array, spec: TensorSpec) -> Array:
    dtype = dtype_of(spec)
    if is_float(dtype):
        return value.astype(np.float64)
    with np.errstate(invalid="ignore"):
        exact = value.astype(dtype)
    if not np.array_equal(exact, value):
        raise DataError(
            f"kernel {kernel.name!r}: its golden has values for {spec.name!r} that {spec.dtype} cannot hold"
        )
    return exact


def _scales(
    kernel: Kernel, specs: Sequence[TensorSpec], inputs: Sequence[Array], values: Sequence[Array]
) -> list[Array]:
    """Estimate for each output element how far relative errors of the inputs move it, divided by that error.

    For a sum it is the root of the sum of the squared terms. It is measured: the golden is computed again
    from inputs that differ by random relative errors, as in stochastic arithmetic (Vignes, 1974). The lowest
    tenth is raised to its upper end, since a small difference may be chance.
    """
    scales = [np.zeros(value.shape) for value in values]
    floats = any(is_float(array.dtype) for array in inputs)
    if not floats or not any(is_float(dtype_of(spec)) for spec in specs):
        return scales
    rng = np.random.default_rng(0)
    for _ in range(_PERTURBATIONS):
        moved = [
            array * (1 + _PERTURBED * rng.standard_normal(array.shape, np.float32))
            if is_float(array.dtype)
            else array
            for array in inputs
        ]
        for place, value in enumerate(_outputs_of_floats(kernel, specs, moved)):
            with np.errstate(invalid="ignore"):
                apart = np.abs(value - values[place]) / _PERTURBED
            np.fmax(scales[place], np.where(np.isfinite(apart), apart, 0.0), out=scales[place])
    return [np.maximum(scale, _low(scale)) if scale.size else scale for scale in scales]


def _low(scale: Array) -> float:
    some = scale.ravel()[:: max(1, scale.size // _SAMPLED)]
    return float(np.quantile(some, 0.1))


def _outputs_of_floats(
    kernel: Kernel, specs: Sequence[TensorSpec], inputs: Sequence[Array]
) -> Sequence[Array]:
    found = _golden(kernel, inputs)
    found = (found,) if isinstance(found, np.ndarray) and len(specs) == 1 else found
    return [
        np.asarray(value).reshape(spec.shape).astype(np.float64)
        for value, spec in zip(found, specs, strict=True)
    ]


def tolerance(value: Array, dtype: np.dtype[Any], terms: int, scale: Array | float = 0.0) -> Array:
    """Return how far each element may be from the golden before it is rounded to its own dtype.

    Rounding errors of a sum of n terms add up like a random walk: about eps * sqrt(n) times the root of the
    sum of the squared terms (after Higham and Mary, 2019), besides the rounding of the element itself. Sums
    of floats of 8 and 16 bits are to be kept in float32 or better. Other results may be stored in 16 bits on
    the way: in the output's own dtype, or in bfloat16 if that has 8. A result below the least normal number
    may be zero, but for the formats whose range is so narrow that this would hide errors.

    Integers and booleans must be exact. The tolerance of NaN and Inf is 0: they are compared exactly.

    Args:
        value: the golden.
        dtype: of the output.
        terms: that are summed into one element.
        scale: of each element: the root of the sum of its squared terms.
    """
    if not is_float(dtype):
        return np.zeros(value.shape)
    finite = np.isfinite(value)
    magnitude = np.where(finite, np.abs(value), 0.0)
    summed = format_of(dtype if dtype.itemsize > 4 else np.dtype(np.float32))
    allowed = SAFETY * float(summed.eps) * (magnitude + np.sqrt(max(terms, 1)) * scale)
    if dtype.itemsize < 4:
        stored = format_of(dtype if dtype.itemsize == 2 else np.dtype(ml_dtypes.bfloat16))
        allowed += float(stored.eps) * (STORED_ELEMENT * magnitude + STORED_TERMS * scale)
    if format_of(dtype).minexp <= summed.minexp:
        allowed = np.maximum(allowed, float(format_of(dtype).smallest_normal))
    return np.where(finite, allowed, 0.0)


def _in_float32(array: Array) -> Array:
    if array.itemsize == 1:  # looking them up takes a seventh of the time
        return _values_of_bytes(array.dtype).take(bits(array))
    with np.errstate(invalid="ignore"):  # a poison is a signalling NaN
        return array.astype(np.float32)


@functools.cache
def _values_of_bytes(dtype: np.dtype[Any]) -> Array:
    with np.errstate(invalid="ignore"):
        return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)


def _has_infinity(dtype: np.dtype[Any]) -> bool:
    return str(dtype) != "float8_e4m3fn"


def _bounds(value: Array, allowed: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the least and the largest right value of each element, in a dtype in which they are compared.

    What lies within the tolerance may be rounded to either neighbour: upwards, downwards, to nearest or at
    random. Beyond the largest number those are that number and infinity. The same holds of an infinite golden
    in 8 bits, as conversions to them saturate.

    Comparing in the outputs' own dtype takes a sixth of the time that a difference in float64 takes, and each
    candidate is compared several times. Numbers of ml_dtypes are compared in float32, which holds them all.
    """
    if not is_float(dtype):
        own = value.astype(dtype)
        return own, own
    low, high = np.asarray(value - allowed), np.asarray(value + allowed)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.isbuiltin != 1:
            least, largest = _on_grid(low, dtype, np.floor), _on_grid(high, dtype, np.ceil)
        else:
            least, largest = low.astype(dtype), high.astype(dtype)
            np.nextafter(least, -np.inf, out=least, where=least > low, dtype=dtype)
            np.nextafter(largest, np.inf, out=largest, where=largest < high, dtype=dtype)
    return least, largest


def _on_grid(edge: Array, dtype: np.dtype[Any], rounding: Callable[[Array], Array]) -> Array:
    """Round downwards or upwards to the numbers of a dtype of ml_dtypes, which has no `nextafter`."""
    limits = format_of(dtype)
    _, exponent = np.frexp(edge)
    step = np.ldexp(1.0, np.maximum(exponent - 1, limits.minexp) - limits.nmant)
    found, largest = np.asarray(rounding(edge / step) * step), float(limits.max)
    found = np.where(found > largest, largest if rounding is np.floor else np.inf, found)
    found = np.where(found < -largest, -largest if rounding is np.ceil else -np.inf, found)
    if dtype.itemsize > 1:
        found = np.where(np.isinf(edge), edge, found)
    return found.astype(np.float32)


def _sample(value: Array, rng: np.random.Generator) -> Index:
    chosen = rng.integers(0, value.size, _SAMPLED)
    chosen[:_TAIL] = np.arange(value.size - _TAIL, value.size)
    return np.unravel_index(chosen, value.shape)


def _describe(
    spec: TensorSpec, value: Array, allowed: Array, got: Array, wrong: NDArray[np.bool_], turn: int
) -> Mismatch:
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.abs(got.astype(np.float64) - value.astype(np.float64)) - allowed
    excess = np.where(wrong, np.maximum(excess, 0.0), -1.0)  # of integers beyond 2^53 it may be 0
    excess[wrong & np.isnan(excess)] = np.inf
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), wrong.shape))
    return Mismatch(
        output=spec.name,
        wrong=int(wrong.sum()),
        total=wrong.size,
        unwritten=int((wrong & is_poison(got, turn)).sum()),
        worst=worst,
        expected=_figure(value, worst, spec),
        actual=_figure(got, worst, spec),
        tolerance=float(allowed[worst]),
        regions=regions(wrong),
    )


def _figure(array: Array, index: tuple[int, ...], spec: TensorSpec) -> float:
    """Return an element as a number; of a bool, its byte."""
    kind = kind_of(dtype_of(spec))
    if kind is Kind.BOOL:
        return int(bits(array)[index])
    return float(array[index]) if kind is Kind.FLOAT else int(array[index])


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
