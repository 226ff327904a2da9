"""An open NeuronCore: how the device's process commands `neuron_run.py` in the other interpreter.

That program is a child in the process group of the device's process. So it is killed with it, and what it
prints is the candidate's output. It ends if its parent is gone. It gets the tuner's memory file: no array is
sent.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from autotune.backends.artifact import Artifact
from autotune.backends.device import DeviceFault, Fault, HostTensor
from autotune.backends.neuron import errors
from autotune.backends.neuron.toolchain import RUN_PROGRAM
from autotune.model.trial import Status

_BUSY_S = (0.1, 0.4, 1.5)
"""Waits before a core that is in use is tried again."""


class NeuronDevice:
    """One logical NeuronCore, held by a child until it ends.

    Args:
        python: the interpreter with nrtpy or spike.
        env: of the child: the core, its LNC and the time limit.
        logical: physical cores of the logical one; candidates are compiled for as many.
        inputs: the inputs.
        outputs: the outputs.

    Raises:
        DeviceFault: it cannot be opened.
    """

    def __init__(
        self,
        python: str,
        env: Mapping[str, str],
        logical: int,
        inputs: Sequence[HostTensor],
        outputs: Sequence[HostTensor],
    ) -> None:
        self.logical = logical
        ours, theirs = socket.socketpair()
        memory = inputs[0].file if inputs else outputs[0].file
        with theirs:
            # -B: a .pyc longer than a candidate may write would be cut off, in an environment of the user's.
            command = [python, "-I", "-B", RUN_PROGRAM, str(theirs.fileno()), str(memory)]
            self._child = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), memory)
            )
        self._socket, self._stream = ours, ours.makefile("rw", encoding="utf-8")
        try:
            self.ask("open", inputs=[*map(_described, inputs)], outputs=[*map(_described, outputs)])
        except (Fault, DeviceFault):
            self.close()
            raise

    def load(self, artifact: Artifact) -> LoadedNeff:
        """Load a NEFF.

        Raises:
            Fault: it does not fit the workload, or the runtime refuses it.
            DeviceFault: the core failed.
        """
        if artifact.in_place:
            names = ", ".join(artifact.in_place)
            raise Fault(f"a NEFF's inputs cannot be changed, and the kernel changes {names}")
        about = json.loads((Path(artifact.folder) / "kernel.json").read_text(encoding="utf-8"))
        if about["lnc"] != self.logical:
            raise Fault(f"it was compiled for LNC {about['lnc']}, and the core has LNC {self.logical}")
        self.ask("load", neff=artifact.path)
        return LoadedNeff(self)

    @contextlib.contextmanager
    def limited(self, limit_s: float) -> Iterator[None]:
        """Limit the time of each order, outside of a search, where the keeper does.

        Raises:
            Fault: an order took longer; the child is in an unknown state.
        """
        self._socket.settimeout(limit_s)
        try:
            yield
        except (TimeoutError, subprocess.TimeoutExpired):
            raise Fault(f"did not return within {limit_s:g} s", Status.TIMEOUT, fatal=True) from None

    def close(self) -> None:
        """End the child, which frees the core."""
        self._child.kill()
        self._child.wait()
        self._stream.close()
        self._socket.close()

    def ask(self, op: str, **words: Any) -> Any:
        """Give the child an order and return its answer; a core that is in use is tried again.

        Raises:
            Fault: the candidate failed, or killed the child.
            DeviceFault: the core failed, or is held by others.
        """
        for wait_s in (*_BUSY_S, 0.0):
            answer = self._answer({"op": op, **words})
            if "ok" in answer:
                return answer["ok"]
            found = errors.of_the_runtime(answer["error"], answer["kind"], op)
            if found != "busy":
                raise found
            time.sleep(wait_s)
        raise DeviceFault(f"{answer['error']} (tried {len(_BUSY_S) + 1} times)")

    def _answer(self, order: Mapping[str, Any]) -> dict[str, str]:
        try:
            self._stream.write(json.dumps(order) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = ""
        if not line:
            _died(self._child.wait(self._socket.gettimeout()))
        answer: dict[str, str] = json.loads(line)
        return answer


class LoadedNeff:
    """A NEFF on its core."""

    def __init__(self, device: NeuronDevice) -> None:
        self._device = device
        self._changed: list[str] = []

    def poison(self) -> None:
        """Copy the outputs to the core's memory."""
        self._device.ask("poison")

    def run(self, calls: int, samples: int, *, cold: bool) -> list[int]:  # noqa: ARG002
        """Call the kernel; return nanoseconds by the core's clock. There are no caches to sweep."""
        taken: list[int] = self._device.ask("run", calls=calls, samples=samples)
        return taken

    def fetch(self) -> None:
        """Copy the outputs to the host.

        Raises:
            Fault: an input is not what it was.
        """
        self._changed = self._device.ask("fetch")
        if self._changed:
            raise Fault(f"wrote to its input {', '.join(self._changed)}", Status.WRONG_OUTPUT)

    def unload(self) -> None:
        """Forget the NEFF, and restore what it has changed."""
        self._device.ask("unload", restore=self._changed)


def _described(tensor: HostTensor) -> dict[str, Any]:
    """Return a tensor as `neuron_run.py` wants it; strides are in elements."""
    spec = tensor.spec
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": spec.shape,
        "strides": spec.element_strides,
        "offset": tensor.offset,
    }


def _died(code: int) -> NoReturn:
    """Raise the fault of a candidate whose child has died."""
    if code == -signal.SIGXFSZ:
        raise Fault("wrote more output than it may", Status.ERROR, fatal=True)
    if code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        raise Fault(f"the process that runs NEFFs was killed by {name}", Status.CRASH, fatal=True)
    raise Fault(f"ended the process with exit code {code} before it returned", Status.ERROR, fatal=True)
