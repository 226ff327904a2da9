"""What the parameters of a declared function mean: inputs, outputs, and what is tuned."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.model.errors import UsageError
from autotune.model.space import SearchSpace, Value, nearest

Space = Mapping[str, Sequence[Value]] | SearchSpace


@dataclass(frozen=True)
class Parameters:
    """The parameters of a declared function.

    Args:
        kernel: the kernel's name, for messages.
        inputs: names of the inputs.
        outputs: names of the outputs, if the function writes into them.
        tuned: name of each parameter that is tuned -> whether the space must have it, as it has no default.
    """

    kernel: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tuned: Mapping[str, bool]

    @classmethod
    def of(
        cls, kernel: str, function: types.FunctionType, golden: Callable[..., Any], reserved: Collection[str]
    ) -> Parameters:
        """Read them from a function and its golden.

        Args:
            kernel: the kernel's name.
            function: its positional parameters are tensors; those that the golden has too are inputs.
            golden: takes the inputs.
            reserved: names that a tensor cannot have.

        Raises:
            UsageError: they cannot be meant; the message says what to write.
        """
        given = inspect.signature(function).parameters.values()
        for each in given:
            if each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD}:
                advice = f"write out what *{each.name} stands for, parameter by parameter"
                raise UsageError(f"kernel {kernel}: {advice}")
        tuned = {each.name: each.default is each.empty for each in given if each.kind is each.KEYWORD_ONLY}
        if not tuned:
            raise UsageError(
                f"kernel {kernel}: nothing to tune: put a * before the parameters that are to be tuned, "
                f"such as `def {function.__name__}(x, *, block): ...`"
            )
        tensors = [each.name for each in given if each.name not in tuned and each.default is each.empty]
        for name in tensors:
            if name in reserved:
                raise UsageError(f"kernel {kernel}: {name!r} is an argument of tune(); rename the parameter")
        count = _arity(golden, len(tensors))
        if count > len(tensors):
            raise UsageError(f"kernel {kernel}: golden takes {count} tensors, the function {len(tensors)}")
        return cls(kernel, tuple(tensors[:count]), tuple(tensors[count:]), tuned)

    def space(self, space: Space) -> SearchSpace:
        """Return a search space whose parameters are those that are tuned.

        Raises:
            UsageError: one is not, or one has no values.
        """
        made = space if isinstance(space, SearchSpace) else SearchSpace(space)
        for name in made.parameters:
            if name not in self.tuned:
                raise UsageError(
                    f"kernel {self.kernel}: the space has {name!r}, which is no keyword-only parameter of "
                    f"the function{nearest(name, self.tuned)}"
                )
        if missing := [name for name, needed in self.tuned.items() if needed and name not in made.parameters]:
            raise UsageError(f"kernel {self.kernel}: the space has no values for {', '.join(missing)}")
        return made

    def by_name(
        self, tensors: Sequence[Any], named: Mapping[str, Any], *, outputs: bool = False
    ) -> dict[str, Any]:
        """Return name -> tensor, in the function's order.

        Args:
            tensors: the first ones, by place.
            named: the others.
            outputs: whether outputs may be among them.

        Raises:
            UsageError: an input is missing, or one is given that is none, or twice.
        """
        known = (*self.inputs, *(self.outputs if outputs else ()))
        if len(tensors) > len(known):
            raise UsageError(f"kernel {self.kernel}: {len(tensors)} tensors, and it has {len(known)}")
        given = dict(zip(known, tensors, strict=False))
        for name in named:
            if name in given:
                raise UsageError(f"kernel {self.kernel}: {name} is given twice")
            if name not in known:
                raise UsageError(f"kernel {self.kernel}: no tensor {name!r}{nearest(name, known)}")
        given |= named
        if missing := [name for name in self.inputs if name not in given]:
            raise UsageError(f"kernel {self.kernel}: no shape or array for {', '.join(missing)}")
        return {name: given[name] for name in known if name in given}


def _arity(golden: Callable[..., Any], most: int) -> int:
    """Return how many tensors a golden takes; `most` if it does not say."""
    if isinstance(golden, np.ufunc):
        return golden.nin
    try:
        parameters = inspect.signature(golden).parameters.values()
    except ValueError:
        return most
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return most
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return sum(each.kind in kinds and each.default is each.empty for each in parameters)
