"""What a backend is: it says how a candidate's source becomes a folder, and how that is called.

An artifact is a folder and its description, never a live object. A build is a command line and the text for
its standard input. So another interpreter, process or host can compile and run a candidate. A `neuron`
backend, for example, only has to name its own interpreter in `Build.command`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from autotune.backends.artifact import Artifact, Build
from autotune.backends.device import Device, HostTensor
from autotune.model.budget import Limits
from autotune.model.errors import UsageError
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.roofline import Roofline
from autotune.model.trial import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

Isolation = Literal["fork", "device"]
"""Where a candidate runs: in a process of its own, a fork, or in the long-lived process of its device.

A device's process gets one candidate after another. It is replaced after a crash, a hang, or a fault that
the backend calls fatal.
"""

Program = Callable[[int], int]
"""Call the candidate this many times in a row; return how many nanoseconds that took."""
Binding = Callable[[Sequence[int]], Program]
"""Bind a loaded candidate to the addresses of its tensors: of each input, then of each output."""


class Backend(Protocol):
    """How one kind of candidate is compiled, and where and how it is called.

    A backend is a frozen dataclass: it travels to other processes as its class, by name, and its fields. One
    that inherits from this class has to define the first four methods, and those for its isolation.
    """

    @property
    def name(self) -> str:
        """The name that the user types (`c`)."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what else decides object and speed: compiler, version, flags, device, threads.

        `version` is printed at the head of a compilation's log.
        """
        ...

    def includes(self, source: str) -> dict[str, str]:
        """Return path -> digest of each file that a source includes, but for those of the compiler.

        They decide a result as the source does.
        """
        ...

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how to compile a source; this writes nothing.

        Args:
            source: the candidate.
            entry: the symbol or function to call.
            inputs: specs of the inputs.
            outputs: specs of the outputs.
            folder: for the artifacts; it exists.

        Raises:
            UnavailableError: this machine does not have the compiler.
        """
        ...

    def compile_failure(self, log: str) -> tuple[Status, str] | None:  # noqa: ARG002
        """Return what a compiler's messages say of its failure; None for its exit code.

        Args:
            log: what it printed; it ended with an error.

        Returns:
            compile_error or out_of_memory, and one line for people.
        """
        return None

    def caution(self) -> str:
        """Return one line that a person must read before the results; empty for none."""
        return ""

    def study(
        self,
        source: str,  # noqa: ARG002
        entry: str,  # noqa: ARG002
        inputs: Sequence[tuple[TensorSpec, NDArray[Any]]],  # noqa: ARG002
        outputs: Specs,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
    ) -> str:
        """Look closer at the best candidate, once the search is over and its devices are free again.

        Args:
            source: the candidate.
            entry: the symbol or function to call.
            inputs: specs and values of the inputs.
            outputs: specs of the outputs.
            folder: of its config in the cache, for files.

        Returns:
            One line for people; empty if there is nothing to tell.
        """
        return ""

    # -- the device

    def isolation(self) -> Isolation:
        """Return whether each candidate gets a process of its own, or all of a device share one."""
        return "fork"

    def devices(self) -> tuple[str, ...]:
        """Return the names of this machine's devices, for `--devices`.

        Raises:
            UnavailableError: it has none, or they cannot be listed.
        """
        return ("0",)

    def limits(self) -> Limits:
        """Return what a candidate may use if the user says nothing."""
        return Limits(memory_bytes=0) if self.isolation() == "device" else Limits()

    def roofline(self, dtype: str, *, again: bool = False) -> Roofline | None:  # noqa: ARG002
        """Return the limits of one device; None if nobody knows them.

        Args:
            dtype: of the kernel's outputs.
            again: a candidate seemed faster than they allow: measure once more, if they are measured.
        """
        return None

    # -- isolation "fork"

    def runner(self) -> tuple[str, ...]:
        """Return the command of the program that calls candidates; empty for `autotune/sites/runner.py`.

        Raises:
            UnavailableError: it cannot be made on this machine.
        """
        return ()

    def load(self, artifact: Artifact) -> Binding:
        """Load a candidate; only `autotune/sites/runner.py` calls this, in the candidate's process.

        Raises:
            UsageError: the backend's own program loads candidates, or its device does.
        """
        raise UsageError(f"{artifact.path}: backend {self.name} does not load candidates into Python")

    # -- isolation "device"

    def own_clock(self) -> bool:
        """Return whether the device counts the nanoseconds, and not the processor that also compiles."""
        return True

    def open(self, device: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]) -> Device:
        """Open a device, in the process that uses it from now on; importing the module must not touch it.

        Args:
            device: its name, of `devices()`.
            inputs: the inputs, in the host's memory; they cannot be written.
            outputs: where the outputs are read, in the host's memory.

        Raises:
            DeviceFault: it cannot be used.
        """
        tensors = len(inputs) + len(outputs)
        raise UsageError(f"backend {self.name} cannot open device {device} for {tensors} tensors")
