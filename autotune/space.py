"""Search spaces: named parameters, their values, and the constraints between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Value = bool | int | float | str
Config = Mapping[str, Value]
Constraint = Callable[[Config], bool]


@dataclass(frozen=True)
class SearchSpace:
    """A discrete space: the product of `parameters`, less what a constraint refuses.

    Args:
        parameters: name -> its values in their natural order; that order is what "neighbour" means.
        constraints: each takes a config and says whether it may be tried.
    """

    parameters: Mapping[str, Sequence[Value]]
    constraints: tuple[Constraint, ...] = ()

    def __iter__(self) -> Iterator[dict[str, Value]]:
        """Yield every valid config, the last parameter varying fastest."""
        names = list(self.parameters)
        for values in itertools.product(*self.parameters.values()):
            config = dict(zip(names, values, strict=True))
            if all(allows(config) for allows in self.constraints):
                yield config
