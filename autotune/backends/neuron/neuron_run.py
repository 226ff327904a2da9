"""Run NEFFs on one NeuronCore: a program of its own, for the interpreter that has `nrtpy` or `spike`.

    python -I neuron_run.py SOCKET MEMORY

Standard library, NumPy and ml_dtypes only: autotune is not there. It obeys its parent, the process of the
device: one JSON object a line over the socket, `{"op": name, ...}`, and one line back, `{"ok": value}` or
`{"error": text, "kind": exception}`. The tensors stand in the memory file that the parent shares with the
tuner. The core is the parent's choice: NEURON_RT_VISIBLE_CORES is set, and the runtime counts from 0.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import mmap
import signal
import socket
import sys
import traceback
from typing import Any

RUNTIMES = {"nrtpy": ("NrtpyModel", "NrtpyTensor"), "spike": ("SpikeModel", "SpikeTensor")}
"""Module -> its classes; the first one that is there is used. Their methods are the same."""
UNAVAILABLE = 69
MOST_CALLS = 256
"""In one trace: its events are kept in a ring buffer."""
LIBRARY = ("libnrt.so.1", "/opt/aws/neuron/lib/libnrt.so.1")


def main() -> int:
    """Serve the parent until it hangs up, or say which versions would."""
    if sys.argv[1:] == ["--versions"]:
        return versions()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # who prints without end is killed
    stream = socket.socket(fileno=int(sys.argv[1])).makefile("rw", encoding="utf-8")
    core = Core(int(sys.argv[2]))
    for line in stream:
        with Answer(stream) as answer:
            order = json.loads(line)
            answer.value = getattr(core, order.pop("op"))(**order)
    return 0


def versions() -> int:
    """Print the versions of what runs, as JSON."""
    import importlib.metadata

    found = {}
    for name in RUNTIMES:
        if importlib.util.find_spec(name) is not None:
            try:
                found["module"] = f"{name} {importlib.metadata.version(name)}"
            except importlib.metadata.PackageNotFoundError:
                found["module"] = f"{name} (version unknown)"
            break
    else:
        print(f"error: {sys.executable} has neither nrtpy nor spike", file=sys.stderr)
        return UNAVAILABLE
    found["runtime"] = runtime_version()
    print(json.dumps(found))
    return 0


class _NrtVersion(ctypes.Structure):  # nrt_version.h
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("major", "minor", "patch", "maintenance")),
        ("detail", ctypes.c_char * 128),
        ("git_hash", ctypes.c_char * 64),
    )


def runtime_version() -> str:
    """Return the version of libnrt, which is loaded and not initialized: no core is touched."""
    for name in LIBRARY:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        found = _NrtVersion()
        if library.nrt_get_version(ctypes.byref(found), ctypes.c_size_t(ctypes.sizeof(found))) == 0:
            return ".".join(str(getattr(found, part)) for part in ("major", "minor", "patch", "maintenance"))
    return "unknown"


class Answer:
    """Answer an order: with its value, or with the exception that ended it, which is printed too."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.value: Any = None

    def __enter__(self) -> Answer:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        """Send the answer; only SystemExit goes on."""
        if isinstance(error, SystemExit):
            return False
        told: dict[str, Any] = {"ok": self.value}
        if error is not None and kind is not None:
            traceback.print_exception(kind, error, trace)
            told = {"error": " ".join(str(error).split())[:1000], "kind": kind.__name__}
        for printed in (sys.stdout, sys.stderr):
            printed.flush()
        self._stream.write(json.dumps(told) + "\n")
        self._stream.flush()
        return True


class Core:
    """One core, its tensors, and the NEFF that is loaded. Each public method is an order of the parent's.

    Args:
        file: descriptor of the memory file with the tensors.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, 0)
        self._host: dict[str, Any] = {}
        self._held: dict[str, Any] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._model: Any = None
        self._bound: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def open(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> str:
        """Import the runtime, which begins with the first tensor, and copy all tensors to the device."""
        name = next((name for name in RUNTIMES if importlib.util.find_spec(name)), None)
        if name is None:
            raise ImportError(f"{sys.executable} has neither nrtpy nor spike")
        runtime = importlib.import_module(name)
        self._load, self._tensor = (getattr(runtime, each) for each in RUNTIMES[name])
        self._inputs, self._outputs = [], []  # the core may have been in use before
        for tensors, names in ((inputs, self._inputs), (outputs, self._outputs)):
            for each in tensors:
                names.append(each.pop("name"))
                self._host[names[-1]] = self._view(**each)
        for tensor in (*self._inputs, *self._outputs):
            self._held[tensor] = self._tensor.from_numpy(self._contiguous(tensor), name=tensor, core_id=0)
        return name

    def _view(self, dtype: str, shape: list[int], strides: list[int], offset: int) -> Any:
        import numpy as np

        try:
            kind = np.dtype(dtype)
        except TypeError:
            import ml_dtypes

            kind = np.dtype(getattr(ml_dtypes, dtype))
        steps = [step * kind.itemsize for step in strides]
        return np.ndarray(tuple(shape), kind, self._memory, offset, steps)

    def _contiguous(self, name: str) -> Any:
        import numpy as np

        return np.ascontiguousarray(self._host[name])

    def load(self, neff: str) -> list[str]:
        """Load a NEFF, and bind its tensors: by name if they have ours, else in order."""
        self._model = self._load.load_from_neff(neff, core_id=0)
        known = self._model.input_tensors_info, self._model.output_tensors_info
        self._bound = self._matched(known[0], self._inputs), self._matched(known[1], self._outputs)
        return [*self._bound[0], *self._bound[1]]

    def _matched(self, known: dict[str, Any], names: list[str]) -> dict[str, Any]:
        if len(known) != len(names):
            raise ValueError(f"the NEFF has the tensors {', '.join(known)}; the workload {', '.join(names)}")
        ours = names if set(known) != set(names) else list(known)
        for theirs, own in zip(known, ours, strict=True):
            size = self._host[own].size * self._host[own].itemsize
            if known[theirs].size != size:
                raise ValueError(f"tensor {own} has {size} bytes; the NEFF's {theirs} {known[theirs].size}")
        return {theirs: self._held[own] for theirs, own in zip(known, ours, strict=True)}

    def poison(self) -> None:
        """Copy the outputs, which the tuner has filled with poison, to the device."""
        for name in self._outputs:
            self._held[name].write_from_numpy(self._contiguous(name))

    def run(self, calls: int, samples: int) -> list[int]:
        """Call the kernel; return the nanoseconds of each sample by the core's own clock.

        A NEFF of several parts has several events a call: their times are added up.
        """
        taken: list[float] = []
        while (left := calls * samples - len(taken)) > 0:
            count = min(left, MOST_CALLS)
            told = self._model.benchmark(*self._bound, warmup_iter=0, benchmark_iter=count, mode="device")
            events = [float(each) for each in told.durations_ms]
            parts, rest = divmod(len(events), count)
            if rest or not parts:
                raise RuntimeError(f"the runtime traced {len(events)} executions of {count} calls")
            taken += [sum(events[at : at + parts]) for at in range(0, len(events), parts)]
        return [round(sum(taken[at : at + calls]) * 1e6) for at in range(0, len(taken), calls)]

    def fetch(self) -> list[str]:
        """Copy the outputs to the host; return the inputs that are not what they were."""
        for name in self._outputs:
            self._host[name][...] = self._fetched(name)
        return [
            name for name in self._inputs if self._fetched(name).tobytes() != self._contiguous(name).tobytes()
        ]

    def _fetched(self, name: str) -> Any:
        """Return a tensor of the device; libnrt does not always know its dtype."""
        host = self._host[name]
        return self._held[name].numpy().view(host.dtype).reshape(host.shape)

    def unload(self, restore: list[str]) -> None:
        """Forget the NEFF, and restore the inputs that it has changed."""
        self._model, self._bound = None, ({}, {})
        for name in restore:
            self._held[name].write_from_numpy(self._contiguous(name))

    def trace(self, ntff: str) -> None:
        """Call the kernel once, and write what the core recorded."""
        self._model(*self._bound, save_trace=True, ntff_name=ntff)


if __name__ == "__main__":
    sys.exit(main())
