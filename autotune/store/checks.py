"""Check what a file of a cache says, field by field, before it is believed.

Every function takes a parsed value and returns it, or what it describes. It raises one of `MALFORMED` if the
value is of another type, or is a number that arithmetic could not bear.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from autotune.model.errors import UsageError
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.space import Value
from autotune.model.trial import Baseline, Metrics, Status, Trial

MALFORMED = (ValueError, KeyError, TypeError, AttributeError, UsageError)
_LIMIT = 1e18  # a figure above it, or below its inverse, is wrong, and arithmetic on it could overflow
_DTYPE = re.compile(r"[<>=|]?[A-Za-z0-9_]{1,32}")
_OPTIONAL = {"gflops", "arithmetic_intensity", "roofline_fraction", "mfu"}
_Made = TypeVar("_Made")


def reason(fault: BaseException) -> str:
    """Say in one line what is wrong."""
    return f"no {fault!s:.60} there" if isinstance(fault, KeyError) else str(fault)


def text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {_brief(value)}")
    return value


def number(value: object) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"expected a finite number, found {_brief(value)}")
    if abs(value) > _LIMIT:
        raise ValueError(f"expected a number below {_LIMIT:g}, found {_brief(value)}")
    return value


def _numbers(values: Sequence[Any]) -> None:
    """Check finite numbers: all at once, as there may be a million, and one by one if any is wrong."""
    alike = set(map(type, values)) <= {int, float} and math.isfinite(sum(values))
    if not alike or (values and not -_LIMIT <= min(values) <= max(values) <= _LIMIT):
        for each in values:
            number(each)


def positive(value: object) -> float:
    """Return a number above zero."""
    if number(value) < 1 / _LIMIT:
        raise ValueError(f"expected a number above zero, found {_brief(value)}")
    return number(value)


def mapping(value: object) -> dict[str, Any]:
    """Return an object of JSON."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {_brief(value)}")
    return value


def listed(value: object) -> Sequence[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {_brief(value)}")
    return value


def optional(value: object, check: Callable[[Any], _Made]) -> _Made | None:
    """Return what a check makes of a value, and None for null."""
    return None if value is None else check(value)


def specs(value: object) -> Specs:
    """Return the specs of tensors."""
    return tuple(map(_spec, listed(value)))


def _spec(value: object) -> TensorSpec:
    plain = mapping(value)
    text(plain["name"])
    if not _DTYPE.fullmatch(text(plain["dtype"])):
        raise ValueError(f"expected a dtype, found {_brief(plain['dtype'])}")
    for numbers in (plain["shape"], plain["strides"], plain.get("range")):
        for each in listed(numbers) if numbers is not None else ():
            number(each)
    return TensorSpec.from_json(plain)


def trial(value: object, **changes: Any) -> Trial:
    """Return a trial, with some fields changed."""
    made = Trial.from_dict(mapping(value), **changes)
    for each in (made.identity, made.path, made.message, made.started_at, *mapping(made.config)):
        text(each)
    for chosen in made.config.values():
        parameter(chosen)
    number(made.order)
    _numbers(listed(mapping(value)["samples_ms"]))
    optional(made.compile_s, number)
    optional(made.metrics, metrics)
    optional(made.confirmed, metrics)
    if (made.status is Status.OK) != (made.metrics is not None) or (made.confirmed and not made.metrics):
        raise ValueError(f"the trial {made.path!r:.60} is {made.status.value}, which its metrics contradict")
    return made


def parameter(value: object) -> Value:
    """Return the value of a config's parameter."""
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, bool | int | float | str) or not finite:
        raise TypeError(f"expected a parameter's value, found {_brief(value)}")
    return value


def metrics(value: Metrics | Mapping[str, Any]) -> Metrics:
    """Return a reading."""
    made = value if isinstance(value, Metrics) else Metrics(**mapping(value))
    for name, each in vars(made).items():
        if name.endswith("_ms"):
            positive(each)
        elif (each is not None or name not in _OPTIONAL) and number(each) < 0:
            raise ValueError(f"{name} is {_brief(each)}, below zero")
    return made


def baseline(value: object) -> Baseline:
    """Return the reading of a kernel's baseline."""
    plain = mapping(value)
    return Baseline(text(plain["name"]), metrics(mapping(plain["metrics"])))


def _brief(value: object) -> str:
    return f"{value!r:.60}"
