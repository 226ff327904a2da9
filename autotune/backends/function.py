"""A Python function of the user's as a candidate: found by its name, and called with a config.

Such a candidate is a few lines of Python text, as any other of the `numpy` backend.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune.backends.travel import module
from autotune.model.errors import UsageError
from autotune.model.fingerprint import values_read
from autotune.model.project import PROGRAM, module_name, project_files

_AT_THE_TOP = (
    "write it with `def` at the top of a file, so that the processes that run candidates can import it"
)


def module_of(function: types.FunctionType) -> tuple[str, str]:
    """Return the name and the file of the module from which other processes import a function.

    Raises:
        UsageError: they cannot; the message says what to do instead.
    """
    name, file = function.__name__, function.__code__.co_filename
    if name == "<lambda>":
        raise UsageError(f"a lambda ({file}:{function.__code__.co_firstlineno}): {_AT_THE_TOP}")
    if "<locals>" in function.__qualname__:
        raise UsageError(f"{name} is defined inside of another function: {_AT_THE_TOP}")
    if not Path(file).is_file():
        raise UsageError(f"{name} is defined in an interactive session: save it in a file, and run that")
    if function.__module__ not in {"__main__", PROGRAM}:
        return function.__module__, file
    run_as_module = (Path(file).parent / "__init__.py").exists()  # python -m package.module
    return (module_name(Path(file)) if run_as_module else PROGRAM), str(Path(file).resolve())


def found_by_name(function: types.FunctionType) -> None:
    """Check that a function is what its module has under its name.

    Raises:
        UsageError: other processes would find another, or none.
    """
    try:
        found = _function(sys.modules[function.__module__], function.__qualname__)
    except AttributeError:
        found = None
    if found is not function:
        where = f"{function.__module__}.{function.__qualname__}"
        raise UsageError(f"{where} is not this function but {found!r:.80}; name and function must agree")


def head(function: types.FunctionType) -> str:
    """Return the begin of a candidate's text: all that decides what a function does, beside its arguments.

    That is its file and every file of its project that it imports, and the values that it reads.

    Raises:
        Indescribable: it reads a value that cannot be described.
    """
    name, file = module_of(function)
    files = "".join(f"# {path!a} {digest}\n" for path, digest in project_files(Path(file)).items())
    reads = "".join(f"    {key!r}: {digest!r},\n" for key, digest in values_read(function).items())
    return (
        f"{files}import functools\n\nfrom autotune.backends.function import candidate\n"
        f"from autotune.backends.numpy import Returning\n\nreads = {{\n{reads}}}\n"
        f"function = candidate({name!r}, {function.__qualname__!r}, reads)\n"
    )


def call(entry: str, config: Mapping[str, object], *, returns: bool) -> str:
    """Return the end of a candidate's text: the function with its config.

    Args:
        entry: name of the candidate.
        config: the function's keyword-only arguments.
        returns: whether it returns its outputs; otherwise it writes into arrays that it is given.
    """
    bound = f"functools.partial(function, **{dict(config)!r})"
    return f"{entry} = {f'Returning({bound})' if returns else bound}\n"


def candidate(name: str, qualname: str, reads: Mapping[str, str]) -> Callable[..., Any]:
    """Return a function of the user's, in the process that runs candidates.

    Args:
        name: of its module.
        qualname: its name there.
        reads: name -> digest of each value that it reads from globals, as the tuner's process has them.

    Raises:
        UsageError: it is not there, or one of the values is another one here.
    """
    try:
        function = _function(sys.modules.get(name) or module(name, ""), qualname)
    except AttributeError:
        raise UsageError(
            f"{qualname} is not defined where the script first tunes; put the calls of tune() under "
            "`if __name__ == '__main__':`"
        ) from None
    here = values_read(function)
    if changed := [key for key in reads if here.get(key) != reads[key]]:
        raise UsageError(
            f"{qualname} reads {', '.join(changed)}, which has another value in the tuner; set it at the top "
            "of the module"
        )
    return function


def _function(owner: object, qualname: str) -> types.FunctionType:
    found = operator.attrgetter(qualname)(owner)
    function: types.FunctionType = getattr(found, "function", found)  # an `autotune.Tunable` has one
    return function
