"""What is tuned: a kernel, and the tensors it is given."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.model.errors import UsageError

if TYPE_CHECKING:  # the keeper imports this module, and starts and forks several times faster without NumPy
    from numpy.typing import NDArray

    from autotune.model.space import Config, SearchSpace


_ESTIMATED, _MEASURED = "nki", "neuron"
"""Generators of one text: the model of a NeuronCore estimates it, backend `neuron` runs it."""
_SHORT_NAMES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "e4m3fn": "float8_e4m3fn",
    "fp8_e4m3fn": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "fp8_e5m2": "float8_e5m2",
}
"""What hardware and frameworks call a dtype -> NumPy's or ml_dtypes' name."""
ALIGNMENT = 16
"""Bytes: tensors begin at a multiple of it, as memory from malloc does; a kernel may rely on no more."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's shape and layout, without its data.

    Args:
        name: what the kernel calls it (`lhs`).
        shape: extents, outermost first.
        dtype: NumPy's name for the element type (`float32`), or ml_dtypes' (`bfloat16`, `float8_e4m3fn`,
            `float8_e4m3`, `float8_e5m2`); short names such as `bf16` are taken for them.
        strides: elements (not bytes) between neighbours along each axis; None for C order. They may be 0 or
            negative; the first element is then the one at index 0.
        range: least and greatest value of an input that is drawn from the seed; None for standard normal
            floats, and for integers from -8 (unsigned ones from 0) to 8.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    strides: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Take what NumPy's users pass: lists for tuples, NumPy's integers, a dtype for its name.

        Raises:
            UsageError: a field is not what its description says.
        """
        change = functools.partial(object.__setattr__, self)
        change("shape", self._integers("shape", self.shape))
        if any(extent < 0 for extent in self.shape):
            raise UsageError(f"tensor {self.name!r}: no extent is negative, but shape is {self.shape}")
        if self.strides is not None:
            change("strides", self._integers("strides", self.strides))
            if len(self.strides) != len(self.shape):
                raise UsageError(f"tensor {self.name!r}: {len(self.strides)} strides for shape {self.shape}")
        if not isinstance(self.dtype, str):
            name = getattr(self.dtype, "str", "")[:1] == ">" and getattr(self.dtype, "str", "")
            change("dtype", name or getattr(self.dtype, "name", None) or getattr(self.dtype, "__name__", ""))
        change("dtype", _SHORT_NAMES.get(self.dtype, self.dtype))
        if self.range is not None:
            low, high = self.range
            if not low <= high:
                raise UsageError(f"tensor {self.name!r}: range is (least, greatest), not {self.range}")
            change("range", (_plain(low), _plain(high)))

    def _integers(self, field: str, values: Any) -> tuple[int, ...]:
        try:
            return tuple(operator.index(value) for value in values)
        except TypeError:
            raise UsageError(
                f"tensor {self.name!r}: {field} is a tuple of integers, not {values!r}"
            ) from None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TensorSpec:
        """Make a spec of `dataclasses.asdict` that went through JSON, where tuples become lists."""
        return cls(record["name"], record["shape"], record["dtype"], record["strides"], record.get("range"))

    @property
    def element_strides(self) -> tuple[int, ...]:
        """Strides in elements; those of C order if none were given."""
        if self.strides is not None:
            return self.strides
        strides, step = [], 1
        for extent in reversed(self.shape):
            strides.append(step)
            step *= extent
        return tuple(reversed(strides))

    @property
    def overlaps(self) -> bool:
        """Whether some elements may have one address."""
        span = 0
        for step, extent in sorted(zip(map(abs, self.element_strides), self.shape, strict=True)):
            if extent > 1 and step <= span:
                return True
            span += (extent - 1) * step
        return False

    @property
    def reach(self) -> tuple[int, int]:
        """Elements from the first one down to the lowest address, and up to the highest, itself included."""
        if 0 in self.shape:
            return 0, 0
        ends = [(extent - 1) * step for extent, step in zip(self.shape, self.element_strides, strict=True)]
        return -sum(min(0, end) for end in ends), sum(max(0, end) for end in ends) + 1


def _plain(value: Any) -> float:
    """Return a number of Python's for one of NumPy's."""
    item = getattr(value, "item", None)
    number: float = item() if item else value
    return number


Specs = tuple[TensorSpec, ...]
Baseline = Callable[..., "tuple[NDArray[Any], ...] | NDArray[Any]"]
"""Inputs as given -> outputs; one that returns its only output need not make a tuple of it."""
Generator = Callable[["Config", Specs, Specs], str]
"""(config, input specs, output specs) -> the source text of one candidate."""


@dataclass(frozen=True)
class Inputs:
    """The tensors of one workload: shapes and dtypes with a seed, or arrays.

    Args:
        specs: the tensors, in the order of the kernel's arguments.
        seed: of the values that are drawn; see `TensorSpec.range`.
        arrays: the values, in the order of `specs`; empty to draw them.
        finite: arrays must not hold NaN or Inf; False if they are meant to.
    """

    specs: Specs
    seed: int = 0
    arrays: tuple[NDArray[Any], ...] = field(default=(), compare=False)
    finite: bool = True

    def __post_init__(self) -> None:
        """Take lists for tuples."""
        object.__setattr__(self, "specs", tuple(self.specs))
        object.__setattr__(self, "arrays", tuple(self.arrays))

    @property
    def shapes(self) -> str:
        """The cache folder's name for these inputs: `1024x512_512x1024`."""
        return "_".join("x".join(map(str, spec.shape)) for spec in self.specs)


@dataclass(frozen=True)
class Kernel:
    """A computation with a generator of candidate sources for each backend.

    A `c` source defines `void <entry>(const T *in0, ..., T *out0, ...)`: one pointer for each input, then one
    for each output, in the order of the specs; extents and strides are constants of the source. A `numpy`
    source is Python text that defines `def <entry>(in0, ..., out0, ...) -> None` and writes into its outputs.

    Every pointer is a multiple of `ALIGNMENT` (16 bytes). Candidates are also
    called with tensors that are aligned no better than that.

    An input that is in `in_place` may be written: its pointer is not const. It is restored before every call.

    Args:
        name: the cache folder's name (`gemm_lhs_rhs`).
        entry: the symbol, or Python function, that a candidate defines.
        generators: backend name -> generator; that of `nki` is taken for `neuron` too.
        outputs: input specs -> output specs.
        golden: inputs -> the exact outputs, with which candidates are compared. Float inputs come as float64,
            signed integers as int64, unsigned ones as uint64, bool as bool. After the outputs it returns the
            new contents of each input in `in_place`, in that order.
        baselines: name for people (`NumPy`) -> code that one writes without a tuner, timed for comparison. It
            takes the inputs as given and returns what golden returns; it may change the inputs in `in_place`,
            and return them.
        flops: input specs -> floating-point operations of one call; None if nobody knows: then no GFLOP/s is
            told.
        bytes_moved: input specs -> bytes that one call must read and write at the least; None for those of
            all inputs and outputs, each once.
        reduction_length: input specs -> terms summed into one output element; widens the tolerance.
        compare: (outputs, exact outputs) -> what is wrong with the outputs, empty if they are right. It
            replaces the comparison by element, for kernels with several right answers.
        space: input specs -> the default search space.
        imports: name and file of each Python module that candidates import: the process that runs them
            imports it once, before the first; the name of a script is `__main__`.
        spaces: backend name -> space, of the generators whose parameters are not those of `space`.
        in_place: names of the inputs that the kernel changes.
    """

    name: str
    entry: str
    generators: Mapping[str, Generator]
    outputs: Callable[[Specs], Specs]
    golden: Callable[..., tuple[NDArray[Any], ...]]
    space: Callable[[Specs], SearchSpace]
    flops: Callable[[Specs], int] | None = None
    bytes_moved: Callable[[Specs], int] | None = None
    reduction_length: Callable[[Specs], int] = lambda _specs: 1
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    compare: Callable[[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]], str] | None = None
    imports: tuple[tuple[str, str], ...] = ()
    spaces: Mapping[str, Callable[[Specs], SearchSpace]] = field(default_factory=dict)
    in_place: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take one name, or a list of names, for a tuple; and NKI sources for what measures them."""
        names = (self.in_place,) if isinstance(self.in_place, str) else tuple(self.in_place)
        object.__setattr__(self, "in_place", names)
        for each in ("generators", "spaces"):
            given = getattr(self, each)
            if _ESTIMATED in given and _MEASURED not in given:
                object.__setattr__(self, each, {**given, _MEASURED: given[_ESTIMATED]})

    def space_of(self, backend: str, specs: Specs) -> SearchSpace:
        """Return the default search space of a backend's generator for these inputs."""
        return self.spaces.get(backend, self.space)(specs)

    def changed(self, specs: Specs) -> Specs:
        """Return the specs of the inputs that the kernel changes, in the order of `in_place`.

        Raises:
            UsageError: `in_place` names no input, or one twice, or one whose elements share addresses.
        """
        names = [spec.name for spec in specs]
        changed = []
        for name in self.in_place:
            if names.count(name) != 1 or self.in_place.count(name) != 1:
                raise UsageError(
                    f"kernel {self.name}: in_place names {name!r}; name each changed input once: "
                    f"{', '.join(names)}"
                )
            changed.append(specs[names.index(name)])
            if changed[-1].overlaps:
                raise UsageError(
                    f"kernel {self.name}: elements of {name!r} share an address, so it cannot be changed"
                )
        return tuple(changed)

    def checked(self, specs: Specs) -> Specs:
        """Return the specs of all that a candidate writes: the outputs, then the inputs that it changes."""
        return (*self.outputs(specs), *self.changed(specs))
