"""Documented functions that the interpreter does not have: each raises one error that names its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from autotune.nki.errors import NkiUnavailableError
from autotune.nki.issue import page


def unavailable(name: str, space: str, why: str) -> Callable[..., NoReturn]:
    """Return a function that says that it is not there."""

    def raises(*_: Any, **__: Any) -> NoReturn:
        raise NkiUnavailableError(
            f"nki.{space}.{name} is not in this interpreter: {why}; what it does: {page(name, space)}"
        )

    raises.__name__ = raises.__qualname__ = name
    raises.__doc__ = f"Raise NkiUnavailableError: {why}."
    return raises
