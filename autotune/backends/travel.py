"""Send a backend to another process: its class by name, and its fields."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.backends._base import Backend
from autotune.model.errors import AutotuneError, UnavailableError, UsageError
from autotune.model.project import PROGRAM


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
        kind = operator.attrgetter(sent.name)(module(sent.module, sent.file))
        backend: Backend = kind(**{name: _tuples(value) for name, value in sent.fields.items()})
    except (ImportError, AttributeError, TypeError, OSError) as error:
        where = f" ({sent.file})" if sent.file else ""
        raise UnavailableError(
            f"the process that runs candidates cannot import the backend {sent.module}.{sent.name}{where}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return backend


def module(name: str, file: str) -> Any:
    """Import a module of the user's; `__main__` is the script in a file, without its guarded part.

    Raises:
        Exception: what the module raises.
    """
    if name in {"__main__", PROGRAM}:
        return program(file)
    _executing.append(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        # An editable installation is found by what `site` reads, which the keeper leaves out.
        import site

        site.main()
        return importlib.import_module(name)
    except _Tunes:
        advice = "put the calls of tune() under `if __name__ == '__main__':`"
        raise ImportError(f"it tunes while it is imported; {advice}") from None
    finally:
        _executing.pop()


class _Tunes(BaseException):
    """A script that is executed as a module has come to its tuning, which is not for this process."""


_executing: list[str] = []  # the modules that this process imports for the sake of candidates now


def leave_to_the_script() -> None:
    """End the import of a module for the sake of candidates: what calls this is for the script's process."""
    if _executing:
        raise _Tunes


@functools.cache
def program(file: str) -> Any:
    """Execute the user's script as a module, once, up to where it tunes if that is not guarded."""
    spec = importlib.util.spec_from_file_location(PROGRAM, Path(file))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file or 'an interactive program'} is no file of Python")
    made = sys.modules[PROGRAM] = importlib.util.module_from_spec(spec)
    arguments, sys.argv = sys.argv, [file]
    _executing.append(file)
    try:
        spec.loader.exec_module(made)
    except _Tunes:
        pass
    finally:
        _executing.pop()
        sys.argv = arguments
    return made


def import_first(modules: Sequence[tuple[str, str]]) -> None:
    """Import modules that candidates import, once for all of them, before any is forked.

    What a module prints while it is imported was printed in the tuner's process already.

    Args:
        modules: the name and the file of each.

    Raises:
        UnavailableError: one cannot be imported in this process.
    """
    for name, file in modules:
        with Importing(file or name), contextlib.redirect_stdout(io.StringIO()):
            module(name, file)


class Importing:
    """Turn any exception of the user's module into an UnavailableError.

    Args:
        name: of the module, for the message.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Replace an exception, and the end of the program; not Ctrl-C."""
        if isinstance(error, Exception | SystemExit):
            hint = str(error) if isinstance(error, AutotuneError) else f"{type(error).__name__}: {error}"
            if isinstance(error, SystemExit):
                hint = "it ends the program; put what is not a definition under `if __name__ == '__main__':`"
            raise UnavailableError(f"cannot import {self._name}: {hint}") from error
