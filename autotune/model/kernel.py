"""What is tuned: a kernel, and the tensors it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the keeper imports this module, and starts and forks several times faster without NumPy
    import numpy as np
    from numpy.typing import NDArray

    from autotune.model.space import Config, SearchSpace


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's shape and layout, without its data.

    Args:
        name: what the kernel calls it (`lhs`).
        shape: extents, outermost first.
        dtype: NumPy's name for the element type (`float32`).
        strides: elements (not bytes) between neighbours along each axis; None for C order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    strides: tuple[int, ...] | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TensorSpec:
        """Make a spec of `dataclasses.asdict` that went through JSON, where tuples become lists."""
        strides = record["strides"] and tuple(record["strides"])
        return cls(record["name"], tuple(record["shape"]), record["dtype"], strides)

    @property
    def element_strides(self) -> tuple[int, ...]:
        """Strides in elements; those of C order if none were given."""
        if self.strides is not None:
            return self.strides
        strides = [1]
        for extent in reversed(self.shape[1:]):
            strides.append(strides[-1] * extent)
        return tuple(reversed(strides))


Specs = tuple[TensorSpec, ...]
Generator = Callable[["Config", Specs, Specs], str]
"""(config, input specs, output specs) -> the source text of one candidate."""


@dataclass(frozen=True)
class Inputs:
    """The tensors of one workload: shapes and dtypes with a seed, or arrays.

    If `arrays` is empty, they are drawn from `seed`: standard normal for floats, so that sums neither
    vanish nor overflow. `arrays`, when given, match `specs` in order.
    """

    specs: Specs
    seed: int = 0
    arrays: tuple[NDArray[Any], ...] = field(default=(), compare=False)

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

    Args:
        name: the cache folder's name (`gemm_lhs_rhs`).
        entry: the symbol, or Python function, that a candidate defines.
        generators: backend name -> generator.
        outputs: input specs -> output specs.
        golden: float64 inputs -> the exact outputs in float64, with which candidates are compared.
        reference: inputs as given -> outputs; the code that one writes without a tuner, timed for comparison.
        reference_name: what the reference is, for people (`NumPy`).
        flops: input specs -> floating-point operations of one call.
        bytes_moved: input specs -> bytes that one call must read and write at the least.
        reduction_length: input specs -> terms summed into one output element; widens the tolerance.
        space: input specs -> the default search space.
    """

    name: str
    entry: str
    generators: Mapping[str, Generator]
    outputs: Callable[[Specs], Specs]
    golden: Callable[..., tuple[NDArray[np.float64], ...]]
    flops: Callable[[Specs], int]
    bytes_moved: Callable[[Specs], int]
    space: Callable[[Specs], SearchSpace]
    reduction_length: Callable[[Specs], int] = lambda _specs: 1
    reference: Callable[..., tuple[NDArray[Any], ...]] | None = None
    reference_name: str = "reference"
