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

import ml_dtypes
import numpy as np

from autotune.backends._base import Backend, Binding, Isolation, Program
from autotune.backends.artifact import Artifact, Build, object_name
from autotune.backends.device import HostTensor
from autotune.machine.cpu import machine_facts, roofline
from autotune.model.budget import Limits
from autotune.model.kernel import Specs
from autotune.model.roofline import Roofline
from autotune.model.tensors import Kind, array_at, is_float, kind_of
from autotune.model.timing import SWEEP_BYTES

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
class NumpyBackend(Backend):
    """Run candidates written in Python.

    Args:
        process: "fork" for a process for each candidate, "device" for one that runs them all: it starts
            once, and a candidate can spoil the interpreter for those that follow.
    """

    name: str = "numpy"
    process: Isolation = "fork"

    def fingerprint(self) -> dict[str, str]:
        """Return the versions of the interpreter, NumPy and ml_dtypes, and the CPU."""
        return {
            "backend": self.name,
            "compiler": sys.executable,
            "version": f"Python {platform.python_version()}, NumPy {np.__version__}, "
            f"ml_dtypes {ml_dtypes.__version__}",
            "flags": "" if self.process == "fork" else f"process={self.process}",
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

    def isolation(self) -> Isolation:
        """Return what `process` says."""
        return self.process

    def limits(self) -> Limits:
        """Return the limits of a process on this machine, whose memory is the device's."""
        return Limits()

    def roofline(self, dtype: str, *, again: bool = False) -> Roofline | None:
        """Return the measured limits of the cores that may be used."""
        return roofline(dtype, again=again)

    def own_clock(self) -> bool:
        """Return False: the interpreter's clock counts."""
        return False

    def open(
        self, _device: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]
    ) -> InterpreterDevice:
        """Return this interpreter, as a device."""
        return InterpreterDevice(self, [tensor.address for tensor in (*inputs, *outputs)])

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
            for array, spec in zip(arrays, artifact.inputs, strict=False):
                array.flags.writeable = spec.name in artifact.in_place
            if isinstance(function, Returning):
                count = len(artifact.inputs)
                changed = [
                    array
                    for array, spec in zip(arrays, artifact.inputs, strict=False)
                    if spec.name in artifact.in_place
                ]
                return function.program(arrays[:count], [*arrays[count:], *changed])
            return timed(function, arrays)

        return bind


class InterpreterDevice:
    """This interpreter, whose candidates share its memory: there is nothing to copy."""

    def __init__(self, backend: NumpyBackend, addresses: Sequence[int]) -> None:
        self._backend, self._addresses = backend, addresses

    def load(self, artifact: Artifact) -> LoadedFunction:
        """Load a candidate."""
        return LoadedFunction(self._backend.load(artifact)(self._addresses))


class LoadedFunction:
    """A candidate in this interpreter."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def poison(self) -> None:
        """Do nothing: the outputs are the tuner's."""

    def run(self, calls: int, samples: int, *, cold: bool) -> list[int]:
        """Call the candidate."""
        return [self._swept(calls) if cold else self._program(calls) for _ in range(samples)]

    def _swept(self, calls: int) -> int:
        np.ones(SWEEP_BYTES, np.uint8)
        return self._program(calls)

    def fetch(self) -> None:
        """Do nothing: the outputs are the tuner's."""

    def unload(self) -> None:
        """Do nothing: the function goes with this object."""


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

    def program(
        self, inputs: Sequence[Any], outputs: Sequence[Any], clock: Callable[[], int] = perf_counter_ns
    ) -> Program:
        """Return the loop that calls it and times it."""

        def program(calls: int) -> int:
            returned: Any = tuple(outputs)
            begin = clock()
            for _ in range(calls):
                returned = self._function(*inputs)
            took = clock() - begin
            for place, value in zip(outputs, _all_of(returned, len(outputs)), strict=True):
                if value.shape != place.shape:
                    raise ValueError(f"returned shape {value.shape}, the output is {place.shape}")
                if not is_float(place.dtype) and kind_of(value.dtype) in {Kind.FLOAT, None}:
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


def timed(
    function: Callable[..., Any], arguments: Sequence[Any], clock: Callable[[], int] = perf_counter_ns
) -> Program:
    """Return the loop that calls a Python function and times it; a candidate can replace `time`'s clock."""

    def program(calls: int) -> int:
        begin = clock()
        for _ in range(calls):
            function(*arguments)
        return clock() - begin

    return program
