"""Search spaces: named parameters, their values, and the constraints between them."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.errors import UsageError

Value = bool | int | float | str
Config = Mapping[str, Value]
Constraint = Callable[[Config], bool]
Indices = tuple[int, ...]
"""A config as the index of each value in its parameter's list."""

_ENUMERABLE = 1 << 20  # products up to this size are listed whole before they are sampled: about a second
_LISTABLE = 1 << 22
_PATIENCE_S = 0.5  # for listing a space, and for drawing from it: constraints are the user's, and may be slow


class _Undecided(Exception):
    """A constraint read a parameter that has no value yet."""


class _Late(Exception):
    """The time for listing a space is over."""


class _Partial(Mapping[str, Value]):
    """A config of which only the first parameters are set; reading any other raises `_Undecided`."""

    def __init__(self, known: Mapping[str, Value], names: Iterable[str]) -> None:
        self._known = known
        self._names = names

    def __getitem__(self, name: str) -> Value:
        if name in self._known:
            return self._known[name]
        if name in self._names:
            raise _Undecided
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise _Undecided

    def __len__(self) -> int:
        raise _Undecided


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'? Known: x, y.` for a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names)}."


def _listed(name: str, values: Any) -> tuple[Value, ...] | str:
    """Return a parameter's values as Python's own bool, int, float and str.

    Raises:
        UsageError: one cannot be stored in a file and read again as it was.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"search space: parameter {name!r} needs a list of values, not {values!r}")
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in plain:
        if type(value) not in (bool, int, float, str) or (type(value) is float and not math.isfinite(value)):
            raise UsageError(
                f"search space: parameter {name!r} has the value {value!r:.60}; values are bool, int, finite "
                "float or str: give a name for it, and look it up in the generator"
            )
    return tuple(plain)


@dataclass(frozen=True)
class SearchSpace:
    """A discrete space: the product of `parameters`, without the configs that a constraint rejects.

    A constraint is evaluated as soon as the parameters that it reads are set. So a space far smaller than its
    product is listed without trying the whole product.

    Args:
        parameters: name -> its values in their natural order, which defines neighbours.
        constraints: each takes a config and returns whether it is valid.

    Raises:
        UsageError: a parameter without values or with one value twice; later, a constraint that reads an
            unknown parameter or fails.
    """

    parameters: Mapping[str, Sequence[Value]]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if not isinstance(self.parameters, Mapping):
            raise UsageError(
                f"search space: parameters map a name to its values, not {self.parameters!r:.60}"
            )
        listed = {name: _listed(name, values) for name, values in self.parameters.items()}
        object.__setattr__(self, "parameters", listed)
        object.__setattr__(self, "constraints", tuple(self.constraints))
        for name, values in self.parameters.items():
            if isinstance(values, str) or not values:
                raise UsageError(f"search space: parameter {name!r} needs a list of values, not {values!r}")
            if len(set(values)) < len(values):
                raise UsageError(f"search space: parameter {name!r} lists a value twice: {list(values)}")

    @property
    def product(self) -> int:
        """How many configs there would be without constraints."""
        return math.prod(map(len, self.parameters.values()))

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """Every valid config as a row of value indices, in the order of iteration; made once."""
        return self._rows(math.inf)

    @cached_property
    def is_listed(self) -> bool:
        """Whether all valid configs are listed; the first time it tries to, for half a second."""
        if "codes" in self.__dict__:
            return True
        if self.product > _LISTABLE:
            return False
        try:
            self.__dict__["codes"] = self._rows(time.monotonic() + _PATIENCE_S)
        except _Late:
            return False
        return True

    def _rows(self, deadline: float) -> NDArray[np.int32]:
        rows = list(self._walk(deadline=deadline))
        return np.array(rows, np.int32).reshape(len(rows), len(self.parameters))

    def __iter__(self) -> Iterator[dict[str, Value]]:
        """Yield every valid config, the last parameter varying fastest."""
        listed = "codes" in self.__dict__  # the first config need not wait for the last
        return map(self.config, self.codes.tolist() if listed else self._walk())

    def __len__(self) -> int:
        """Count the valid configs; lists them all the first time."""
        return len(self.codes)

    def __bool__(self) -> bool:
        """Say whether there is a valid config, without listing them all."""
        return next(self._walk(), None) is not None

    def __contains__(self, config: object) -> bool:
        """Say whether a config has exactly these parameters, with values that every constraint allows."""
        return (
            isinstance(config, Mapping)
            and config.keys() == self.parameters.keys()
            and all(config[name] in values for name, values in self.parameters.items())
            and all(self._verdict(allows, config) for allows in self.constraints)
        )

    def config(self, indices: Iterable[int]) -> dict[str, Value]:
        """Return the config of these indices."""
        return {name: values[i] for (name, values), i in zip(self.parameters.items(), indices, strict=True)}

    def indices(self, config: Config) -> Indices:
        """Return the places of a config's values, whether or not the constraints allow it.

        Raises:
            UsageError: a parameter is missing, or one or its value is not of this space.
        """
        for name in config.keys() - self.parameters.keys():
            raise UsageError(f"search space: no parameter {name!r}{nearest(name, self.parameters)}")
        try:
            return tuple(place[config[name]] for name, place in self._places.items())
        except KeyError:
            wrong = next(name for name, place in self._places.items() if config.get(name) not in place)
            raise UsageError(
                f"search space: {wrong}={config.get(wrong)!r} is none of {list(self.parameters[wrong])}"
            ) from None

    def neighbours(self, config: Config) -> Iterator[dict[str, Value]]:
        """Yield the valid configs that differ from `config` in one parameter, nearest values first.

        Args:
            config: the start; it need not be valid itself.
        """
        for name, at in zip(self.parameters, self.indices(config), strict=True):
            values = self.parameters[name]
            for i in sorted(range(len(values)), key=lambda i, at=at: abs(i - at)):  # type: ignore[misc]
                if i != at:
                    near = {**config, name: values[i]}
                    if all(self._verdict(allows, near) for allows in self.constraints):
                        yield near

    def sample(self, rng: random.Random, count: int) -> list[dict[str, Value]]:
        """Return up to `count` distinct valid configs in random order.

        Products above a million are not listed: configs are drawn uniformly, and invalid ones rejected. If
        constraints reject nearly all, a random walk draws valid ones, not quite uniformly. Fewer than `count`
        are returned if there are no more, or if no more were found in about a second.
        """
        if self.product > _ENUMERABLE or not self.is_listed:
            drawn = self._draw(rng, count)
            if len(drawn) == count or not self.is_listed:
                return list(map(self.config, drawn))
        chosen = rng.sample(range(len(self)), min(count, len(self)))
        return [self.config(self.codes[i]) for i in chosen]

    def _draw(self, rng: random.Random, count: int) -> list[Indices]:
        """Draw distinct valid configs without listing the space; fewer if they are too rare."""
        sizes = [len(values) for values in self.parameters.values()]
        drawn: dict[Indices, None] = {}
        deadline = time.monotonic() + _PATIENCE_S
        for _ in range(20 * count + 1000):
            if len(drawn) == count or time.monotonic() > deadline:
                break
            indices = tuple(rng.randrange(size) for size in sizes)
            config = self.config(indices)
            if all(self._verdict(allows, config) for allows in self.constraints):
                drawn[indices] = None
        deadline = time.monotonic() + _PATIENCE_S
        with contextlib.suppress(_Late):
            for _ in range(4 * (count - len(drawn))):
                if len(drawn) == count:
                    break
                drawn.update(dict.fromkeys(itertools.islice(self._walk(rng, deadline), 1)))
        return list(drawn)

    def _walk(self, rng: random.Random | None = None, deadline: float = math.inf) -> Iterator[Indices]:
        """Yield every valid config's indices: in order, or with the values shuffled at each turn.

        Raises:
            _Late: it takes longer than until the deadline.
        """
        names, known = list(self.parameters), dict[str, Value]()

        def descend(prefix: Indices, undecided: Sequence[Constraint]) -> Iterator[Indices]:
            if len(prefix) == len(names):
                yield prefix
                return
            name = names[len(prefix)]
            values = self.parameters[name]
            view = known if len(prefix) == len(names) - 1 else _Partial(known, self.parameters)
            for i in range(len(values)) if rng is None else rng.sample(range(len(values)), len(values)):
                if time.monotonic() > deadline:
                    raise _Late
                known[name] = values[i]
                open_ones = self._undecided(undecided, view)
                if open_ones is not None:
                    yield from descend((*prefix, i), open_ones)
            known.pop(name, None)

        return descend((), self.constraints)

    def _undecided(self, constraints: Sequence[Constraint], config: Config) -> list[Constraint] | None:
        """Return the constraints that cannot be evaluated yet; None if one rejects the config."""
        undecided = []
        for allows in constraints:
            try:
                if not self._verdict(allows, config):
                    return None
            except _Undecided:
                undecided.append(allows)
        return undecided

    def _verdict(self, allows: Constraint, config: Config) -> bool:
        name = getattr(allows, "__name__", repr(allows))
        try:
            return bool(allows(config))
        except KeyError as error:
            unknown = error.args[0] if error.args else ""
            raise UsageError(
                f"search space: constraint {name} asks for {unknown!r}{nearest(unknown, self.parameters)}"
            ) from error
        except (ArithmeticError, TypeError, ValueError) as error:
            raise UsageError(f"search space: constraint {name} fails on {config}: {error!r}") from error

    @cached_property
    def _places(self) -> dict[str, dict[Value, int]]:
        return {
            name: {value: i for i, value in enumerate(values)} for name, values in self.parameters.items()
        }
