"""Stands in for `nrtpy`: executes the lines of a NEFF of the stand-in for nki, by a clock of its own."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

STATE = Path(os.environ["NEURONX_STATE"])
_held: list[Any] = []
_CODES = {4: "NRT_RESOURCE", 5: "NRT_TIMEOUT", 101: "NRT_EXEC_UNIT_UNRECOVERABLE", 1005: "NRT_EXEC_NC_BUSY"}


class NrtError(RuntimeError):
    """What libnrt says."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NRT Error {_CODES.get(code, 'NRT_EXEC')}({code}): Failed to execute model")


def _take_core() -> None:
    """Take the core, as the runtime does with the first tensor; who holds it keeps it until its end."""
    if not _held:
        names = "NEURON_RT_VISIBLE_CORES", "NEURON_LOGICAL_NC_CONFIG", "NEURON_RT_EXEC_TIMEOUT"
        core = os.environ[names[0]]
        _held.append((STATE / f"core{core}").open("a"))
        try:
            fcntl.flock(_held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _held.clear()
            raise NrtError(1005) from None
        _held[0].truncate(0)
        print(os.getpid(), file=_held[0], flush=True)
        (STATE / f"environment{core}").write_text(json.dumps([os.environ[name] for name in names]))


class NrtpyTensor:
    """A tensor of the device."""

    def __init__(self, array: Any) -> None:
        self.array = array.copy()

    @classmethod
    def from_numpy(cls, array: Any, name: str | None = None, core_id: int = 0) -> NrtpyTensor:
        """Copy an array to the device."""
        assert name is not None and core_id == 0
        _take_core()
        return cls(array)

    def write_from_numpy(self, array: Any) -> None:
        """Copy an array into it."""
        assert array.nbytes == self.array.nbytes
        self.array[...] = array

    def numpy(self) -> Any:
        """Return it, of a dtype that is void, as libnrt may."""
        return self.array.view(f"V{self.array.itemsize}").copy()


class NrtpyModel:
    """A program with its tensors."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._lines = [line.split() for line in about["program"].splitlines()]
        names = ("in_tensor_0", "in_tensor_1", "output_0")
        infos = [
            SimpleNamespace(shape=shape, dtype=dtype, size=int(np.prod(shape)) * 4)
            for dtype, shape in about["inputs"]
        ]
        self.input_tensors_info = dict(zip(names, infos, strict=False))
        self.output_tensors_info = {"output_0": infos[0]}
        self._calls = 0

    @classmethod
    def load_from_neff(cls, path: str, core_id: int = 0) -> NrtpyModel:
        """Load a NEFF."""
        assert core_id == 0
        return cls(json.loads(Path(path).read_text()))

    def __call__(self, inputs: Any, outputs: Any, save_trace: bool = False, ntff_name: str = "") -> None:
        """Run it once."""
        self._run(inputs, outputs)
        assert save_trace
        Path(ntff_name).write_text(str(len(self._lines)))

    def benchmark(self, inputs: Any, outputs: Any, warmup_iter: int, benchmark_iter: int, mode: str) -> Any:
        """Run it some times; its parts are traced one by one."""
        assert (0, "device") == (warmup_iter, mode)
        durations = []
        for _ in range(benchmark_iter):
            durations += [0.001 * self._run(inputs, outputs), 0.001]
        return SimpleNamespace(durations_ms=durations)

    def _run(self, inputs: Any, outputs: Any) -> int:
        self._calls += 1
        tensors = [tensor.array for tensor in (*inputs.values(), *outputs.values())]
        for name, *numbers in self._lines:
            _INSTRUCTIONS[name](self._calls, *tensors, *map(int, numbers))
        return len(self._lines)


def _add(_calls: int, a: Any, b: Any, out: Any, last: int = 10**9) -> None:
    out[:last] = (a + b)[:last]


def _later(calls: int, a: Any, b: Any, out: Any) -> None:
    out[:] = a + b
    out[0] += calls > 3


def _copy(_calls: int, a: Any, _b: Any, out: Any) -> None:
    out[:] = a


def _poke_input(_calls: int, a: Any, _b: Any, _out: Any) -> None:
    a[0] = 77


def _say(calls: int, _a: Any, _b: Any, _out: Any, number: int) -> None:
    if calls == 1:
        print("tile", number)


def _print_on(*_tensors: Any) -> None:
    while True:
        print("0123456789")


def _spin(*_tensors: Any) -> None:
    while True:
        pass


def _nrt(_calls: int, _a: Any, _b: Any, _out: Any, code: int) -> None:
    raise NrtError(code)


def _busy(_calls: int, a: Any, b: Any, out: Any) -> None:
    mark = STATE / "busy"
    if not mark.exists():
        mark.touch()
        raise NrtError(1005)
    out[:] = a + b


_INSTRUCTIONS: dict[str, Callable[..., Any]] = {
    "nop": lambda *_: None,
    "add": _add,
    "later": _later,
    "copy": _copy,
    "poke_input": _poke_input,
    "say": _say,
    "print_on": _print_on,
    "spin": _spin,
    "divide": lambda *_: 1 // 0,
    "abort": lambda *_: os.abort(),
    "exit": lambda *numbers: sys.exit(numbers[-1]),
    "nrt": _nrt,
    "busy": _busy,
}
