"""Fingerprints: digests of values and of functions, by which results are known again."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import numpy as np

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(value: object) -> str:
    """Digest a JSON value, whatever the order of its keys: 32 hex digits."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()[:32]


def function_digest(function: Callable[..., object]) -> str:
    """Digest all that decides what a function returns, as far as Python can tell.

    That is its code; its defaults; what its closure binds; and each global that it reads, other functions of
    its own module included. Modules and their functions count by name. The source text decides for a `def`,
    so that another version of Python gives the same digest. The text of a lambda, and of code that was never
    in a file, is not known reliably; there the byte code decides.
    """
    return digest(_described(function, set()))


def _described(value: object, seen: set[int]) -> object:
    """Return JSON values that are equal if, and only if, two values are; best effort for foreign objects."""
    if value is None or isinstance(value, bool | int | str):
        return [type(value).__name__, str(value)]
    if isinstance(value, float | complex | bytes | range | slice):
        return [type(value).__name__, repr(value)]
    if isinstance(value, np.ndarray | np.generic):
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
        return ["map", *sorted((str(key), digest(_described(each, seen))) for key, each in value.items())]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, functools.partial) and not value.args and not value.keywords:
        return _described(value.func, seen)
    if isinstance(value, functools.partial):
        return ["partial", *(_described(each, seen) for each in (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", _described(value.__func__, seen), _described(value.__self__, seen)]
    if isinstance(value, types.FunctionType):
        return ["function", *_function(value, seen)]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    state = getattr(value, "__dict__", {}) if not isinstance(value, type) else {}
    call = vars(type(value)).get("__call__")
    code = _described(call, seen) if isinstance(call, types.FunctionType) else ""
    return ["object", getattr(value, "__module__", None) or "", name, _described(dict(state), seen), code]


def _function(function: types.FunctionType, seen: set[int]) -> list[object]:
    if _is_library(function):
        return [function.__module__, function.__qualname__]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
    names = sorted(_globals_read(function.__code__))
    read = [
        [name, _described(function.__globals__[name], seen)] for name in names if name in function.__globals__
    ]
    bound = [function.__defaults__, function.__kwdefaults__, cells]
    return [_text(function), *(_described(each, seen) for each in bound), read]


def _is_library(function: types.FunctionType) -> bool:
    """Return whether a function is of an installed package, whose name stands for its code."""
    file = function.__code__.co_filename
    return "site-packages" in file or "dist-packages" in file or "/lib/python3" in file


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


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
