"""Several devices of one machine, which are this interpreter; some of them fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends import Artifact, Isolation
from autotune.backends.device import DeviceFault, HostTensor
from autotune.backends.numpy import InterpreterDevice, LoadedFunction, NumpyBackend


@dataclass(frozen=True)
class Cards(NumpyBackend):
    """Devices in name only.

    Args:
        count: how many.
        absent: those that cannot be opened.
        tired: those that fail at their second candidate.
        note: a file to which each adds its name once for every candidate.
        clock: each has a clock of its own.
    """

    name: str = "numpy"
    process: Isolation = "device"
    count: int = 3
    absent: tuple[str, ...] = ()
    tired: tuple[str, ...] = ()
    note: str = "/dev/null"
    clock: bool = False

    def own_clock(self) -> bool:
        """Return what `clock` says."""
        return self.clock

    def devices(self) -> tuple[str, ...]:
        """Return their names."""
        return tuple(map(str, range(self.count)))

    def open(self, device: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]) -> Card:
        """Open one."""
        if device in self.absent:
            raise DeviceFault("it is not there")
        return Card(self, device, [tensor.address for tensor in (*inputs, *outputs)])


class Card(InterpreterDevice):
    """An open one."""

    def __init__(self, cards: Cards, name: str, addresses: Sequence[int]) -> None:
        super().__init__(cards, addresses)
        self._cards, self._name, self._loads = cards, name, 0

    def load(self, artifact: Artifact) -> LoadedFunction:
        """Load a candidate."""
        self._loads += 1
        if self._loads > 1 and self._name in self._cards.tired:
            raise DeviceFault("it is tired")
        with Path(self._cards.note).open("a") as note:
            note.write(f"{self._name}\n")
        return super().load(artifact)
