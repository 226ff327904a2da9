"""Send a backend to another process: its class by name, and its fields."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import json
import operator
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.backends._base import Backend
from autotune.model.errors import UnavailableError, UsageError

_PROGRAM = "__autotune_program__"
"""Name of the user's script in other processes. It is not `__main__`, so its guarded part does not run."""


@dataclass(frozen=True)
class Sent:
    """A backend on its way.

    Args:
        module: where its class is; `__main__` for the program itself.
        name: of the class, in that module.
        file: of the module; empty if it has none.
        fields: its settings, as JSON has them.
    """

    module: str
    name: str
    file: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it comes with this package."""
        return self.module.startswith("autotune.backends.")


def pack(backend: Backend) -> Sent:
    """Describe a backend so that `unpack` makes an equal one.

    Raises:
        UsageError: its class cannot be found by its name, or a field is not of numbers, texts and tuples.
    """
    kind = type(backend)
    module, name = kind.__module__, kind.__qualname__
    known = sys.modules.get(module)
    with_name = f"backend {backend.name!r}: {module}.{name}"
    try:
        found = operator.attrgetter(name)(known)
    except AttributeError:
        found = None
    if found is not kind:
        raise UsageError(f"{with_name} is not at the top of a module, so other processes cannot import it")
    if not dataclasses.is_dataclass(backend):
        raise UsageError(
            f"{with_name} is no dataclass, so its settings are not known; decorate it with @dataclass"
        )
    fields = {each.name: getattr(backend, each.name) for each in dataclasses.fields(backend) if each.init}
    for setting, value in fields.items():
        if not _is_plain(value):
            raise UsageError(f"{with_name}.{setting}: {value!r:.80} is not made of numbers, texts and tuples")
    return Sent(module, name, str(getattr(known, "__file__", "") or ""), fields)


def _is_plain(value: Any) -> bool:
    """Return whether a value comes back from JSON as it was, once lists are tuples again."""
    try:
        return bool(_tuples(json.loads(json.dumps(value))) == value)
    except (TypeError, ValueError):
        return False


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def unpack(sent: Sent) -> Backend:
    """Make the backend that was sent.

    Raises:
        UnavailableError: this process cannot import its module.
    """
    try:
        kind = operator.attrgetter(sent.name)(_module(sent))
        backend: Backend = kind(**{name: _tuples(value) for name, value in sent.fields.items()})
    except (ImportError, AttributeError, TypeError, OSError) as error:
        where = f" ({sent.file})" if sent.file else ""
        raise UnavailableError(
            f"the process that runs candidates cannot import the backend {sent.module}.{sent.name}{where}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return backend


def _module(sent: Sent) -> Any:
    if sent.module == "__main__":
        return _program(sent.file)
    try:
        return importlib.import_module(sent.module)
    except ModuleNotFoundError:
        # An editable installation is found by what `site` reads, which the keeper leaves out.
        import site

        site.main()
        return importlib.import_module(sent.module)


@functools.cache
def _program(file: str) -> Any:
    """Execute the user's script as a module."""
    spec = importlib.util.spec_from_file_location(_PROGRAM, Path(file))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file or 'an interactive program'} is no file of Python")
    module = sys.modules[_PROGRAM] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
