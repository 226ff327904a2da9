"""What a device is to a backend whose candidates share one process: it loads, runs and fetches.

The process imports this module before it needs NumPy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from autotune.model.kernel import TensorSpec
from autotune.model.trial import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from autotune.backends.artifact import Artifact


@dataclass(frozen=True)
class HostTensor:
    """A tensor in memory that the tuner shares with the device's process.

    Args:
        spec: its shape and layout.
        address: of the element at index 0.
        begin: address of the first of the poisoned bytes around the tensor.
        end: address behind the last of them.
        file: descriptor of the memory file that it is in, for another process of the backend's; -1 if none.
        offset: bytes in that file to the element at index 0.
    """

    spec: TensorSpec
    address: int
    begin: int
    end: int
    file: int = -1
    offset: int = 0

    def array(self) -> NDArray[Any]:
        """Return the tensor as an array, without a copy."""
        from autotune.model.tensors import array_at

        return array_at(self.address, self.spec)

    def surroundings(self) -> memoryview:
        """Return the tensor's bytes with the poison around them.

        A device with an address space copies all of it there and back: then a write outside the tensor is
        seen. The tensor's first element is at offset `address - begin`.
        """
        return memoryview((ctypes.c_char * (self.end - self.begin)).from_address(self.begin)).cast("B")


class Loaded(Protocol):
    """A candidate on its device, with its tensors."""

    def poison(self) -> None:
        """Copy what the kernel writes from the host's memory to the device.

        The tuner has filled the outputs with poison, and restored the inputs that the kernel changes.
        """
        ...

    def run(self, calls: int, samples: int, *, cold: bool) -> Sequence[int]:
        """Call the candidate, and wait for its end.

        Args:
            calls: in each sample, one after another.
            samples: how often.
            cold: the device's caches are to be swept before each sample.

        Returns:
            The nanoseconds of each sample, by the device's own clock if it has one.

        Raises:
            Fault: the candidate failed.
            DeviceFault: the device failed.
        """
        ...

    def fetch(self) -> None:
        """Copy what the kernel writes from the device to the host's memory.

        Raises:
            Fault: the candidate has changed an input on the device: that is `wrong_output`.
        """
        ...

    def unload(self) -> None:
        """Remove the candidate from the device; the next one must find nothing of it."""
        ...


class Device(Protocol):
    """An open device; its process holds it until it ends."""

    def load(self, artifact: Artifact) -> Loaded:
        """Load a candidate.

        Raises:
            Fault: the candidate cannot be loaded.
            DeviceFault: the device failed.
        """
        ...


class Fault(Exception):
    """A candidate failed, in the words of its device's runtime.

    Args:
        message: one line that says what failed.
        status: how the trial ends: error, crash, timeout, out_of_memory or wrong_output.
        fatal: the process of the device cannot go on; another one is started for the next candidate.
    """

    def __init__(self, message: str, status: Status = Status.ERROR, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.status, self.fatal = status, fatal


class DeviceFault(Exception):
    """The device failed, and not the candidate: it is used no more."""
