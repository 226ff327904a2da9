"""Tasks whose parameters are computed; Invoke itself only reads them from a function's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from invoke import Argument, Task

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Flag:
    """A parameter of a task: a flag, or a positional word if the default is `REQUIRED`."""

    name: str
    help: str
    default: Any = None


class MadeTask(Task[Any]):
    """A task with the parameters that `flags` returns when a command line is parsed.

    Args:
        body: called with a context, and every parameter by its name.
        name: of the task.
        about: the help text.
        flags: returns the parameters.
    """

    def __init__(
        self, body: Callable[..., None], name: str, about: str, flags: Callable[[], Sequence[Flag]]
    ) -> None:
        """Define the task without calling `flags`."""
        super().__init__(body, name=name, positional=())
        self.__doc__ = about
        self._flags = flags

    def argspec(self, _body: Callable[..., Any]) -> inspect.Signature:
        """Return the parameters after the context."""
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(
            [inspect.Parameter(flag.name, kind, default=flag.default) for flag in self._flags()]
        )

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the parameters for Invoke's parser."""
        flags = self._flags()
        self.positional = [flag.name for flag in flags if flag.default is REQUIRED]
        self.help = {flag.name: flag.help for flag in flags}
        return super().get_arguments(ignore_unknown_help)
