"""Running kernels: `nki.jit`, `nki.simulate`, and recording a kernel for the model of time."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from autotune.model.errors import UsageError
from autotune.nki.errors import NkiError, NkiWarning
from autotune.nki.interpreter.dtypes import Array, dtype_of
from autotune.nki.interpreter.memory import Life, Peak, Storage, check_capacity
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.session import Program, Shared, run_in, running
from autotune.nki.interpreter.tensor import NkiTensor, view
from autotune.nki.interpreter.turns import Abandoned, Turns
from autotune.nki.machine import Machine, machine
from autotune.nki.trace import Recorder, Trace

UNWRITTEN = "AUTOTUNE_NKI_UNWRITTEN"
SHOW_MEMORY = "AUTOTUNE_NKI_MEMORY"
_GONE = ("platform_target",)


class Kernel:
    """Hold a function decorated with `nki.jit`; `kernel[2]` runs it on two cores."""

    def __init__(self, function: Callable[..., Any], grid: tuple[int, ...] = ()) -> None:
        """Wrap a function for a number of cores."""
        functools.update_wrapper(self, function)
        self.__name__ = getattr(function, "__name__", "kernel")
        self.function = function
        self.grid = grid

    def __getitem__(self, grid: Any) -> Kernel:
        """Return the kernel for one core or two."""
        sizes = tuple(int(size) for size in (grid if isinstance(grid, tuple) else (grid,)))
        return Kernel(self.function, sizes)

    def with_schedule(self, edges: Sequence[Any]) -> Kernel:  # noqa: ARG002  program order holds them all
        """Return the kernel; edges between named instructions change no result here."""
        return Kernel(self.function, self.grid)

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Run on arrays; inside another kernel, run as a part of it."""
        if running() is not None:
            return self.function(*arrays, **keywords)
        return Simulation(self)(*arrays, **keywords)


def jit(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a kernel of a function. Options such as `mode` are taken and ignored, as NKI does.

    Raises:
        NkiError: `platform_target` is given, which NKI removed; set NEURON_PLATFORM_TARGET_OVERRIDE.
    """
    for name in _GONE:
        if options.get(name) is not None:
            raise NkiError(f"nki.jit has no {name} since NKI 0.3; set NEURON_PLATFORM_TARGET_OVERRIDE")
    if fn is None:
        return functools.partial(jit, **options)
    return fn if isinstance(fn, Kernel) else Kernel(fn)


@dataclass(frozen=True)
class Recorded:
    """Hold what one core did when a kernel was recorded.

    Args:
        trace: its instructions.
        sbuf, psum: how full its memories got, and of what.
    """

    trace: Trace
    sbuf: Peak
    psum: Peak


class Simulation:
    """Run a kernel on the CPU, in NumPy, checked against the limits of a target.

    Attributes:
        memory: after a run, the peaks of SBUF and PSUM of core 0.
    """

    def __init__(self, kernel: Any, target: str | None = None, unwritten: str | None = None) -> None:
        """Choose the target, and whether reading what nobody wrote is an "error" or gives "nan"."""
        self.kernel: Kernel = jit(kernel)
        self.machine = machine(target)
        mode = unwritten or os.environ.get(UNWRITTEN) or "error"
        if mode not in ("error", "nan"):
            raise UsageError(f"unwritten={mode!r}: it is 'error' or 'nan'")
        self.strict = mode == "error"
        self.memory: tuple[Peak, Peak] | None = None

    def __getitem__(self, grid: Any) -> Simulation:
        """Return the simulation on one core or two."""
        return Simulation(self.kernel[grid], self.machine.target, "error" if self.strict else "nan")

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Run the kernel; return NumPy arrays, or torch tensors if the inputs are."""
        launch = Launch(self.kernel, self.machine, self.strict)
        results = launch.run(arrays, keywords)
        self.memory = launch.check()[0]
        if os.environ.get(SHOW_MEMORY):
            for found in self.memory:
                print(f"{self.kernel.__name__}: {found.table()}", file=sys.stderr)
        launch.write_back()
        return launch.unwrapped(results[0])


def simulate(kernel: Any, target: str | None = None, unwritten: str | None = None) -> Simulation:
    """Return a callable that runs a kernel on NumPy arrays, ml_dtypes' among them.

    Args:
        kernel: a function, or what `nki.jit` made of one; `kernel[2]` runs on two cores.
        target: "trn1", "trn2" or "trn3"; without it NEURON_PLATFORM_TARGET_OVERRIDE, else "trn2".
        unwritten: what reading memory that nobody wrote does: "error", or "nan" as the official simulator;
            without it AUTOTUNE_NKI_UNWRITTEN, else "error".

    Raises:
        NkiError: the kernel asks for something that the target does not do; it names the kernel's line.
    """
    return Simulation(kernel, target, unwritten)


def record(
    kernel: Any, operands: Sequence[Any], keywords: Mapping[str, Any] | None = None, target: str | None = None
) -> list[Recorded]:
    """Record what a kernel does on each core, without data: it is checked as always, and nothing is computed.

    Args:
        kernel: as for `simulate`.
        operands: arrays, or pairs such as ((2048, 2048), "bfloat16").
        keywords: what goes to the kernel by name.
        target: as for `simulate`.

    Raises:
        NkiError: as `simulate`.
    """
    launch = Launch(jit(kernel), machine(target), True, records=True)
    launch.run(tuple(_shaped(each) for each in operands), dict(keywords or {}))
    peaks = launch.check()
    traces = [program.recorder.trace for program in launch.programs if program.recorder]
    return [Recorded(trace, sbuf, psum) for trace, (sbuf, psum) in zip(traces, peaks, strict=True)]


@dataclass(frozen=True)
class Spec:
    """Stand for an array of which only shape and dtype are known."""

    shape: tuple[int, ...]
    dtype: Any


def _shaped(operand: Any) -> Any:
    if isinstance(operand, tuple) and len(operand) == 2 and isinstance(operand[0], (tuple, list)):
        return Spec(tuple(int(size) for size in operand[0]), operand[1])
    return operand


class Launch:
    """Run one call of a kernel on all of its cores.

    Attributes:
        programs: the state of each core.
    """

    def __init__(self, kernel: Kernel, target: Machine, strict: bool, records: bool = False) -> None:
        """Make the cores."""
        self.kernel = kernel
        self.machine = target
        grid = kernel.grid
        self.cores = 1
        for size in grid:
            self.cores *= size
        if self.cores not in (1, 2) or self.cores > target.logical_cores:
            raise NkiError(
                f"{kernel.__name__}[{', '.join(map(str, grid))}] asks for {self.cores} cores; a kernel spans "
                f"{'1 or 2' if target.logical_cores == 2 else '1'} on {target.target}",
                number=self.cores,
                limit=target.logical_cores,
            )
        shared = Shared(turns=Turns(self.cores) if self.cores > 1 else None)
        self.programs = [
            Program(
                target, shared, index, grid, Recorder(target.target) if records else None, not records, strict
            )
            for index in range(self.cores)
        ]
        self.inputs: dict[int, tuple[Any, Array, Storage]] = {}
        self.torch = False

    def run(self, arrays: tuple[Any, ...], keywords: dict[str, Any]) -> list[Any]:
        """Run every core; return what each returned."""
        calls = [self._wrapped(program, arrays, keywords) for program in self.programs]
        function = self.kernel.function
        if self.cores == 1:
            given, named = calls[0]
            return [run_in(self.programs[0], lambda: function(*given, **named))]
        return self._run_in_turns(calls, function)

    def _run_in_turns(self, calls: list[tuple[Any, Any]], function: Callable[..., Any]) -> list[Any]:
        turns = self.programs[0].shared.turns
        assert turns is not None
        results: list[Any] = [None] * self.cores
        errors: list[BaseException] = []

        def core(index: int) -> None:
            given, named = calls[index]
            try:
                turns.begin(index)
                results[index] = run_in(self.programs[index], lambda: function(*given, **named))
                turns.end(index)
            except Abandoned:
                pass
            except BaseException as error:  # noqa: BLE001  it is raised again in the caller's thread
                errors.append(error)
                turns.fail()

        threads = [threading.Thread(target=core, args=(index,), daemon=True) for index in range(self.cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results

    def check(self) -> list[tuple[Peak, Peak]]:
        """Return how full the memories of each core got, or raise if one does not fit."""
        return [check_capacity(program.lives, self.machine) for program in self.programs]

    def _wrapped(
        self, program: Program, arrays: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        names = _parameters(self.kernel.function, arrays)
        given = [self._argument(program, each, name) for each, name in zip(arrays, names, strict=True)]
        return given, {name: self._argument(program, each, name) for name, each in keywords.items()}

    def _argument(self, program: Program, value: Any, name: str) -> Any:
        """Make tensors of arrays, also of those in containers and in NKI objects."""
        if isinstance(value, Spec):
            return self._tensor(program, value.shape, dtype_of(value.dtype), name, None, None)
        if _is_array(value):
            return self._array(program, value, name)
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self._argument(program, each, f"{name}[{n}]") for n, each in enumerate(value))
        if type(value) is dict:
            return {key: self._argument(program, each, f"{name}[{key!r}]") for key, each in value.items()}
        if is_dataclass(value) and not isinstance(value, type) and _holds_arrays(vars(value).values()):
            found = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
            made = {key: self._argument(program, each, f"{name}.{key}") for key, each in found.items()}
            return replace(value, **made)
        return value

    def _array(self, program: Program, value: Any, name: str) -> NkiTensor:
        self.torch = self.torch or type(value).__module__.split(".")[0] == "torch"
        known = self.inputs.get(id(value))
        if known is not None and self.cores > 1 and program.computes:
            return view(known[2], program.root("hbm", known[2].root.shape, known[2].root.dtype))
        array = _from_torch(value) if type(value).__module__.split(".")[0] == "torch" else np.asarray(value)
        dtype = dtype_of(array.dtype)
        usable = np.ascontiguousarray(array)
        if usable is array and not array.flags.writeable:
            usable = array.copy()
        shape = array.shape or (1,)
        made = self._tensor(program, shape, dtype, name, usable if program.computes else None, value)
        if usable is not array and array.flags.writeable:
            self.inputs[id(value)] = (array, usable, made.storage)
        return made

    def _tensor(
        self,
        program: Program,
        shape: tuple[int, ...],
        dtype: Any,
        name: str,
        array: Array | None,
        source: Any,
    ) -> NkiTensor:
        root = program.root("hbm", shape, dtype)
        code = self.kernel.function.__code__
        data = None if array is None else array.reshape(-1).view(np.uint8)
        life = Life(name, "hbm", 0, None, (code.co_filename, code.co_firstlineno))
        storage = Storage(root, life, data, True, self.cores > 1)
        storage.given = True
        program.number(storage, 0)
        if source is not None and array is not None:
            self.inputs[id(source)] = (None, array, storage)
        return view(storage, root)

    def write_back(self) -> None:
        """Copy what the kernel wrote to its inputs into arrays that could not be used in place."""
        for target, used, _ in self.inputs.values():
            if target is not None:
                target[...] = used.reshape(target.shape)

    def unwrapped(self, result: Any) -> Any:
        """Make arrays of the tensors that a kernel returned."""
        if isinstance(result, NkiTensor):
            return self._result(result)
        if isinstance(result, (list, tuple)) and not hasattr(result, "_fields"):
            return type(result)(self.unwrapped(each) for each in result)
        if type(result) is dict:
            return {key: self.unwrapped(each) for key, each in result.items()}
        return result

    def _result(self, tensor: NkiTensor) -> Any:
        layout = tensor.layout
        text = (
            f"{self.kernel.__name__} returns {tensor.name}, which is in {tensor.buffer.value}; what a kernel "
            "returns is made with buffer=nl.shared_hbm"
        )
        if layout.memory != "hbm":
            raise NkiError(text, tensor=tensor.name, memory=layout.memory, at=tensor.storage.life.at)
        if not (tensor.storage.shared or tensor.storage.given):
            warnings.warn(NkiWarning(f"{text}, or it does not compile"), stacklevel=4)
        array = tensor.storage.array(layout)
        return _to_torch(array) if self.torch else array


def _parameters(function: Callable[..., Any], arrays: tuple[Any, ...]) -> list[str]:
    """Name the positional arguments of a call."""
    names: list[str] = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            names += [f"{each.name}[{n}]" for n in range(len(arrays) - len(names))]
        elif each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            names.append(each.name)
    return [*names, *[f"argument {n + 1}" for n in range(len(names), len(arrays))]][: len(arrays)]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__array__") and hasattr(value, "shape") and not isinstance(value, (np.generic, type))
    )


def _holds_arrays(values: Any) -> bool:
    return any(_is_array(value) for value in values)


def _from_torch(value: Any) -> Array:
    """Return a torch tensor's memory as an array; torch's bfloat16 is none that NumPy knows."""
    plain = value.detach().cpu()
    if str(plain.dtype) == "torch.bfloat16":
        import torch  # only who passes torch tensors has it

        return np.asarray(plain.view(torch.int16).numpy()).view(dtype_of("bfloat16").numpy)
    return np.asarray(plain.numpy())


def _to_torch(array: Array) -> Any:
    import torch  # only who passes torch tensors has it

    if array.dtype == dtype_of("bfloat16").numpy:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))


__all__ = ["Kernel", "NKIObject", "Recorded", "Simulation", "jit", "record", "simulate"]
