"""Candidates written in Python with NumPy: the backend that needs no compiler."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from autotune.backends._base import Artifact, Binding, Build, Program, object_name
from autotune.machine.cpu import machine_facts
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.tensors import extent_bytes, view_of

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST_KEPT = 32 << 20
"""Bytes: glibc's own limit for what it adapts to, DEFAULT_MMAP_THRESHOLD_MAX."""
_CHECK = """\
import sys
text = open(0, encoding="utf-8").read()
compile(text, "<stdin>", "exec")
open(sys.argv[1], "w", encoding="utf-8").write(text)
"""


@dataclass(frozen=True)
class NumpyBackend:
    """Run candidates written in Python."""

    name: str = "numpy"

    def fingerprint(self) -> dict[str, str]:
        """Return the interpreter's and NumPy's versions, and the CPU."""
        return {
            "backend": self.name,
            "compiler": sys.executable,
            "version": f"Python {platform.python_version()}, NumPy {np.__version__}",
            "flags": "",
            **machine_facts(),
        }

    def includes(self, _source: str) -> dict[str, str]:
        """Return nothing: what a Python source imports is not known before it runs."""
        return {}

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how another interpreter checks a source's syntax and writes it to a file."""
        key = object_name(source, entry, *self.fingerprint().values())
        artifact = Artifact(self.name, entry, str(folder / key), "kernel.py", inputs, outputs)
        part = f"{artifact.folder}.{os.getpid()}.part"
        command = (sys.executable, "-I", "-S", "-c", _CHECK, f"{part}/{artifact.main}")
        return Build(artifact, source, command, part)

    def runner(self) -> tuple[str, ...]:
        """Return nothing, since autotune/sites/runner.py loads Python."""
        return ()

    def load(self, artifact: Artifact) -> Binding:
        """Execute the source, which defines the entry.

        Raises:
            KeyError: the source does not define the entry.
        """
        keep_freed_memory()
        path = artifact.path
        scope: dict[str, Any] = {"__name__": artifact.entry}
        exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec"), scope)
        function, specs = scope[artifact.entry], artifact.inputs + artifact.outputs

        def bind(addresses: Sequence[int]) -> Program:
            arrays = [array_at(address, spec) for address, spec in zip(addresses, specs, strict=True)]
            for array in arrays[: len(artifact.inputs)]:
                array.flags.writeable = False
            if isinstance(function, Returning):
                return function.program(arrays[: len(artifact.inputs)], arrays[len(artifact.inputs) :])
            return timed(function, arrays)

        return bind


def array_at(address: int, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return the tensor whose element at index 0 is at this address as an array, without a copy."""
    below = spec.reach[0] * np.dtype(spec.dtype).itemsize
    buffer = memoryview((ctypes.c_char * extent_bytes(spec)).from_address(address - below))
    return view_of(buffer, spec, below)


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, as it does in a program that has run for a while.

    glibc raises both thresholds to fit what a program frees, up to these. A new process returns a large array
    to the system at once, and pays for its pages again in the next call: so a softmax of 8 MB took three
    times as long as the same function did as a baseline, in a process that had freed such arrays before.
    """
    with contextlib.suppress(AttributeError):  # not every C library has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2 * _MOST_KEPT)


class Returning:
    """A function that returns its outputs; they are stored once the clock stands, and checked.

    Args:
        function: takes the inputs, and returns one array, or several in a tuple.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def program(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Program:
        """Return the loop that calls it and times it."""

        def program(calls: int) -> int:
            returned: Any = None
            begin = perf_counter_ns()
            for _ in range(calls):
                returned = self._function(*inputs)
            took = perf_counter_ns() - begin
            for place, value in zip(outputs, _all_of(returned, len(outputs)), strict=True):
                if value.shape != place.shape:
                    raise ValueError(f"returned shape {value.shape}, the output is {place.shape}")
                if value.dtype.kind in "fc" and place.dtype.kind in "iub":
                    raise TypeError(f"returned {value.dtype}, the output is {place.dtype}")
                place[...] = value
            return took

        return program


def _all_of(returned: Any, count: int) -> Sequence[Any]:
    """Return the outputs as a sequence of NumPy arrays: another library's may not be computed yet."""
    found = returned if isinstance(returned, tuple | list) else (returned,)
    if len(found) != count:
        raise ValueError(f"returned {len(found)} outputs, not {count}")
    for each in found:
        if not isinstance(each, np.ndarray | np.generic):
            raise TypeError(f"returned {type(each).__name__}, not a NumPy array")
    return found


def timed(function: Callable[..., Any], arguments: Sequence[Any]) -> Program:
    """Return the loop that calls a Python function and times it."""

    def program(calls: int) -> int:
        begin = perf_counter_ns()
        for _ in range(calls):
            function(*arguments)
        return perf_counter_ns() - begin

    return program
