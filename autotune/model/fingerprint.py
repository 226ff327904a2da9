"""Fingerprints: digests of values and of functions, by which results are known again."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from autotune.model.errors import UsageError
from autotune.model.project import PROGRAM, project_files

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class Indescribable(UsageError):
    """A function reads a value that cannot be described: an open file, a lock, a generator.

    Attributes:
        names: of the value, from the function that was asked about to where it is read.
        kind: the value's type.
    """

    def __init__(self, names: tuple[str, ...], kind: str) -> None:
        self.names, self.kind = names, kind
        where = " → ".join(names) or "its own state"
        super().__init__(
            f"reads {where}, a {kind}, whose value cannot be part of a result's identity; make it inside the "
            "function, or read something else"
        )


def digest(value: object) -> str:
    """Digest a JSON value, whatever the order of its keys: 32 hex digits."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()[:32]


def function_digest(function: Callable[..., object]) -> str:
    """Digest all that decides what a function returns, as far as Python can tell.

    That is its code; its defaults; what its closure binds; and each global that it reads. Functions of the
    user's count with all that they read, and modules with their files and those that they import. What is
    installed counts by name. The source text decides for a
    `def`, so that another version of Python gives the same digest. The text of a lambda, and of code that was
    never in a file, is not known reliably; there the byte code decides.

    Raises:
        Indescribable: it reads a value that cannot be described.
    """
    return digest(_described(function, set()))


def values_read(function: types.FunctionType) -> dict[str, str]:
    """Return name -> digest of each value that a function reads: globals, its closure, its defaults.

    Raises:
        Indescribable: one of them cannot be described.
    """
    seen = {id(function)}
    read = _read(function, seen)
    for name, each in inspect.signature(function, follow_wrapped=False).parameters.items():
        if each.default is not each.empty:
            read[f"{name}="] = _named(f"{name}=", each.default, seen)
    return {name: digest(each) for name, each in read.items()}


def _described(value: object, seen: set[int]) -> object:
    """Return JSON values that are equal if, and only if, two values are.

    Raises:
        Indescribable: the value cannot be described.
    """
    if value is None or isinstance(value, bool | int | str):
        return [type(value).__name__, str(value)]
    if isinstance(value, float | complex | bytes | bytearray | range | slice):
        return [type(value).__name__, repr(value)]
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        array = np.ascontiguousarray(value)
        return ["array", str(array.dtype), array.shape, hashlib.sha256(array.view(np.uint8).data).hexdigest()]
    if id(value) in seen:
        return "again"
    seen = seen | {id(value)}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_described(each, seen) for each in value)]
    if isinstance(value, AbstractSet):
        return ["set", *sorted(digest(_described(each, seen)) for each in value)]
    if isinstance(value, Mapping):
        pairs = sorted((str(key), digest(_named(f"[{key!r}]", each, seen))) for key, each in value.items())
        return ["map", *pairs]
    if isinstance(value, types.ModuleType):
        return ["module", _module(value.__name__), _module_files(value)]
    if isinstance(value, functools.partial) and not value.args and not value.keywords:
        return _described(value.func, seen)
    if isinstance(value, functools.partial):
        return ["partial", *(_described(each, seen) for each in (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", _described(value.__func__, seen), _described(value.__self__, seen)]
    if isinstance(value, types.FunctionType):
        return ["function", *_function(value, seen)]
    if isinstance(value, type):
        return ["class", _module(value.__module__), value.__qualname__, _class_text(value)]
    return _object(value, seen)


def _object(value: object, seen: set[int]) -> object:
    """Describe any other object as `copy` and `pickle` would: what makes it anew."""
    if inner := getattr(value, "__wrapped__", None):  # a function in a decorator of C, or one that is tuned
        return ["wrapped", type(value).__qualname__, _described(inner, seen)]
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        made = reducer(value) if reducer else value.__reduce_ex__(4)
    except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError):
        raise Indescribable((), kind) from None
    if isinstance(made, str):  # the name of a global
        return ["global", _module(getattr(value, "__module__", None) or ""), made]
    listed = [list(each) if inspect.isgenerator(each) or hasattr(each, "__next__") else each for each in made]
    name = [_module(type(value).__module__), type(value).__qualname__]
    return ["object", *name, _call_text(value, seen), *(_described(each, seen) for each in listed)]


def _call_text(value: object, seen: set[int]) -> object:
    call = vars(type(value)).get("__call__")
    return _described(call, seen) if isinstance(call, types.FunctionType) else ""


def _module(name: str) -> str:
    """Return a module's name; the user's script has the same one in every process."""
    return "__main__" if name == PROGRAM else name


def _module_files(module: types.ModuleType) -> list[tuple[str, str]]:
    """Return the files of the user's project that a module consists of; none for one that is installed."""
    file = getattr(module, "__file__", None) or ""
    if not file.endswith(".py") or _is_installed(file) or not Path(file).is_file():
        return []
    return sorted(project_files(Path(file)).items())


def _named(name: str, value: object, seen: set[int]) -> object:
    """Describe a value; if that cannot be done, say what it is called."""
    try:
        return _described(value, seen)
    except Indescribable as fault:
        raise Indescribable((name, *fault.names), fault.kind) from None


def _function(function: types.FunctionType, seen: set[int]) -> list[object]:
    if _is_installed(function.__code__.co_filename):
        return [_module(function.__module__), function.__qualname__]
    bound = [_described(each, seen) for each in (function.__defaults__, function.__kwdefaults__)]
    return [_text(function), *bound, sorted(_read(function, seen).items())]


def _read(function: types.FunctionType, seen: set[int]) -> dict[str, object]:
    """Return name -> description of what a function reads from globals and its closure."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    values = {name: cell.cell_contents for name, cell in cells if _is_set(cell)}
    names = _globals_read(function.__code__)
    values |= {name: function.__globals__[name] for name in names if name in function.__globals__}
    return {name: _named(name, values[name], seen) for name in sorted(values)}


def _is_installed(file: str) -> bool:
    """Return whether code is of an installed package, whose name stands for it."""
    return "site-packages" in file or "dist-packages" in file or "/lib/python3" in file


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _class_text(kind: type) -> str:
    """Return the source of a class of the user's; empty for one that is installed, or built in."""
    try:
        return "" if _is_installed(inspect.getsourcefile(kind) or "/lib/python3") else inspect.getsource(kind)
    except (OSError, TypeError, SyntaxError):
        return ""


def _text(function: types.FunctionType) -> object:
    if function.__name__ != "<lambda>":
        try:
            return inspect.getsource(function)
        except (OSError, TypeError, SyntaxError):
            pass
    return _code(function.__code__)


def _code(code: types.CodeType) -> list[object]:
    constants = [_code(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    names = [*code.co_names, *code.co_varnames, *code.co_freevars]
    return [code.co_code.hex(), constants, names]


def _globals_read(code: types.CodeType) -> set[str]:
    """Return the globals that a function reads, inner functions included."""
    read = {each.argval for each in dis.get_instructions(code) if each.opname in {"LOAD_GLOBAL", "LOAD_NAME"}}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            read |= _globals_read(constant)
    return read
