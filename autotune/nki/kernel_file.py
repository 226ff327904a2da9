"""Find a kernel and its operands by the words of a command line: `FILE.py:NAME`, `2048x2048:bfloat16`."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from autotune.model.errors import UsageError
from autotune.nki.activate import activate
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import dtype_of
from autotune.nki.launch import Kernel

_OPERAND = re.compile(r"(\d+(?:x\d+)*):(\w+)")


def find_kernel(text: str) -> Kernel:
    """Return the kernel that `FILE.py:NAME` names; without a name, the only one of the file.

    Raises:
        UsageError: there is no such file or kernel, or there are several.
    """
    file, _, name = text.partition(":")
    if not Path(file).is_file():
        raise UsageError(f"no file {file}; name a kernel as FILE.py:NAME")
    activate()
    sys.path.insert(0, str(Path(file).resolve().parent))
    found = runpy.run_path(file, run_name="kernel")
    kernels = {key: value for key, value in found.items() if isinstance(value, Kernel)}
    if not name and len(kernels) == 1:
        return next(iter(kernels.values()))
    if name not in kernels:
        known = ", ".join(kernels) or "none; a kernel is a function with @nki.jit"
        raise UsageError(f"{file}: name one of its kernels as {file}:NAME; it has {known}")
    return kernels[name]


def operand(text: str) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of `2048x2048:bfloat16`.

    Raises:
        UsageError: it is not written so, or there is no such dtype.
    """
    match = _OPERAND.fullmatch(text)
    if not match:
        raise UsageError(f"operand {text!r}: write shape and dtype as 2048x2048:bfloat16")
    try:
        dtype_of(match[2])
    except NkiError as error:
        raise UsageError(f"operand {text!r}: {error.reason}") from None
    return tuple(map(int, match[1].split("x"))), match[2]


def keyword(text: str) -> tuple[str, Any]:
    """Return name and value of `tiles_m=4`; what is no literal of Python is text.

    Raises:
        UsageError: there is no name.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"{text!r}: give the kernel's keywords as NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
