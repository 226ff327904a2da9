"""Tasks whose parameters are made up, as Invoke reads them from a function's own signature only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from invoke import Argument, Task

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Flag:
    """A parameter of a task: a flag, or a word of its own if it has no default."""

    name: str
    help: str
    default: Any = None


class MadeTask(Task[Any]):
    """A task that has the parameters which `flags` returns when a command line is read.

    Args:
        body: what it does; gets a context, and every parameter by its name.
        name: its name.
        about: its help text.
        flags: returns its parameters.
    """

    def __init__(
        self, body: Callable[..., None], name: str, about: str, flags: Callable[[], Sequence[Flag]]
    ) -> None:
        """Define the task; its parameters are not asked for yet."""
        super().__init__(body, name=name, positional=())
        self.__doc__ = about
        self._flags = flags

    def argspec(self, _body: Callable[..., Any]) -> inspect.Signature:
        """Return the parameters behind the context."""
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [inspect.Parameter(flag.name, kind, default=flag.default) for flag in self._flags()]
        )

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the parameters as Invoke's parser takes them."""
        flags = self._flags()
        self.positional = [flag.name for flag in flags if flag.default is REQUIRED]
        self.help = {flag.name: flag.help for flag in flags}
        return super().get_arguments(ignore_unknown_help)
