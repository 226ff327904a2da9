"""The outputs of a declared kernel, found by calling its golden."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autotune.declare.parameters import Parameters
from autotune.model.errors import UsageError
from autotune.model.kernel import Inputs, Specs, TensorSpec
from autotune.model.tensors import Array, dtype_of, is_float, materialize
from autotune.sites.correctness import widened


class Outputs:
    """The specs of a golden's outputs; it is called once for each set of inputs.

    Args:
        parameters: of the declared function.
        golden: inputs -> an array, or several in a tuple.
        dtypes: of the outputs, one for all or one for each; None for the inputs' common float dtype for
            floats, and golden's own dtype for integers and bool.
    """

    def __init__(
        self, parameters: Parameters, golden: Callable[..., Any], dtypes: str | Sequence[str] | None
    ) -> None:
        self._parameters, self._dtypes = parameters, dtypes
        self.golden = functools.partial(_all_of, golden)  # a partial is known by its function's code
        self._known: dict[Specs, Specs] = {}

    def __call__(self, specs: Specs) -> Specs:
        """Return the outputs' specs for inputs that are drawn, unless they were seen before."""
        if specs not in self._known:
            self.see(specs, materialize(Inputs(specs)))
        return self._known[specs]

    def see(self, specs: Specs, arrays: Sequence[Array]) -> None:
        """Find the outputs for these arrays.

        Raises:
            UsageError: the golden fails, or the function has another number of outputs.
        """
        with _Golden(self._parameters.kernel, specs), np.errstate(all="ignore"):
            found = self.golden(*map(widened, arrays))
        names = self._parameters.outputs
        if names and len(names) != len(found):
            raise UsageError(
                f"kernel {self._parameters.kernel}: golden returns {len(found)} outputs, the function has "
                f"{len(names)} parameters after the inputs: {', '.join(names)}"
            )
        names = names or tuple(f"out{place if len(found) > 1 else ''}" for place in range(len(found)))
        made = zip(names, found, self._dtypes_of(specs, found), strict=True)
        self._known[specs] = tuple(TensorSpec(name, each.shape, dtype) for name, each, dtype in made)

    def _dtypes_of(self, specs: Specs, found: Sequence[Array]) -> Sequence[str]:
        asked = self._dtypes
        if asked is not None:
            dtypes = [asked] * len(found) if isinstance(asked, str) else list(asked)
            if len(dtypes) != len(found):
                kernel = self._parameters.kernel
                raise UsageError(
                    f"kernel {kernel}: output_dtype has {len(dtypes)} dtypes for {len(found)} outputs"
                )
            return dtypes
        floats = [dtype for dtype in map(dtype_of, specs) if is_float(dtype)]
        try:
            common = np.result_type(*floats) if floats else np.dtype(np.float64)
        except TypeError:  # bfloat16 and float16, for example
            names, kernel = " and ".join(map(str, floats)), self._parameters.kernel
            raise UsageError(f"kernel {kernel}: {names} have no common dtype; give output_dtype") from None
        return [(common if is_float(each.dtype) else each.dtype).name for each in found]

    def most_terms(self, specs: Specs) -> int:
        """Return the most terms that one output element can sum: the longest axis, or all that is summed."""
        longest = max((extent for spec in specs for extent in spec.shape), default=1)
        least = min(max(1, math.prod(spec.shape)) for spec in self(specs))
        return max([1, longest, *(math.prod(spec.shape) // least for spec in specs)])


def _all_of(golden: Callable[..., Any], *inputs: Array) -> tuple[Array, ...]:
    """Return a golden's outputs as a tuple of arrays."""
    found = golden(*inputs)
    return tuple(map(np.asarray, found if isinstance(found, tuple | list) else (found,)))


class _Golden:
    """Name the kernel and its inputs if its golden, the user's code, raises an exception.

    Args:
        kernel: the kernel's name.
        specs: of the inputs.
    """

    def __init__(self, kernel: str, specs: Specs) -> None:
        self._kernel, self._specs = kernel, specs

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Replace any exception but those that end the program."""
        if isinstance(error, Exception):
            given = ", ".join(f"{spec.name} {spec.shape}" for spec in self._specs)
            raise UsageError(f"kernel {self._kernel}: its golden fails for {given}: {error!r}") from error
