"""Candidates written in Python with NumPy: the backend that needs no compiler."""

from __future__ import annotations

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

from autotune.backends._base import Artifact, Binding, Build, Program, object_name
from autotune.machine.cpu import machine_facts
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.tensors import extent_bytes, view_of

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
        """Return the versions of the interpreter, NumPy and ml_dtypes, and the CPU."""
        return {
            "backend": self.name,
            "compiler": sys.executable,
            "version": f"Python {platform.python_version()}, NumPy {np.__version__}, "
            f"ml_dtypes {ml_dtypes.__version__}",
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
        path = artifact.path
        scope: dict[str, Any] = {"__name__": artifact.entry}
        exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec"), scope)
        function, specs = scope[artifact.entry], artifact.inputs + artifact.outputs

        def bind(addresses: Sequence[int]) -> Program:
            arrays = [array_at(address, spec) for address, spec in zip(addresses, specs, strict=True)]
            for array, spec in zip(arrays, artifact.inputs, strict=False):
                array.flags.writeable = spec.name in artifact.in_place
            return timed(function, arrays)

        return bind


def array_at(address: int, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return the tensor whose element at index 0 is at this address as an array, without a copy."""
    below = spec.reach[0] * np.dtype(spec.dtype).itemsize
    buffer = memoryview((ctypes.c_char * extent_bytes(spec)).from_address(address - below))
    return view_of(buffer, spec, below)


def timed(function: Callable[..., Any], arguments: Sequence[Any]) -> Program:
    """Return the loop that calls a Python function and times it."""

    def program(calls: int) -> int:
        begin = perf_counter_ns()
        for _ in range(calls):
            function(*arguments)
        return perf_counter_ns() - begin

    return program
