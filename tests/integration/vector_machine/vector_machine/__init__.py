"""A backend of another repository: a machine for vectors, with memory of its own, that counts its own cycles.

A program is a list of instructions, one a line: a name, and numbers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autotune.backends import Artifact, Backend, Build, Isolation
from autotune.backends.artifact import object_name
from autotune.backends.device import DeviceFault, Fault, HostTensor
from autotune.model.kernel import Specs
from autotune.model.roofline import Roofline
from autotune.model.trial import Status

_GHZ = 1.0
_START = 20  # cycles of each instruction, beside its elements
_ASSEMBLE = """\
import sys
text = open(0).read()
unknown = [line for line in text.splitlines() if line.split()[0] not in sys.argv[2].split()]
if unknown: sys.exit(f"error: unknown instruction: {unknown[0]}")
open(sys.argv[1], "w").write(text)
"""


@dataclass(frozen=True)
class VectorMachine(Backend):
    """Some cards, each with some lanes."""

    name: str = "vector_machine"
    lanes: int = 8
    cards: int = 2

    def fingerprint(self) -> dict[str, str]:
        """Return what decides the cycles."""
        return {"backend": self.name, "version": "1.0", "device": f"{self.lanes} lanes"}

    def includes(self, _source: str) -> dict[str, str]:
        """Return nothing: a program has no files."""
        return {}

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how to assemble a program."""
        key = object_name(source, entry, *self.fingerprint().values())
        artifact = Artifact(self.name, entry, str(folder / key), "program", inputs, outputs)
        part = f"{artifact.folder}.part"
        command = (sys.executable, "-I", "-S", "-c", _ASSEMBLE, f"{part}/program", " ".join(_INSTRUCTIONS))
        return Build(artifact, source, command, part)

    def isolation(self) -> Isolation:
        """Return that a card's candidates share one process."""
        return "device"

    def devices(self) -> tuple[str, ...]:
        """Return the cards."""
        return tuple(map(str, range(self.cards)))

    def roofline(self, _dtype: str, *, again: bool = False) -> Roofline:  # noqa: ARG002
        """Return the data sheet's."""
        return Roofline(self.lanes * _GHZ, 1000.0, sheet_gflops=self.lanes * _GHZ)

    def open(self, device: str, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]) -> Card:
        """Open a card, and copy the inputs to it."""
        if int(device) >= self.cards:
            raise DeviceFault(f"there is no card {device}")
        return Card(self.lanes, inputs, outputs)


class Memory:
    """A tensor in a card's memory, with what is around it."""

    def __init__(self, host: HostTensor) -> None:
        self.host = host
        self.first = (host.address - host.begin) // 4
        self.length = host.spec.shape[0]
        self.upload()

    def upload(self) -> None:
        """Copy it from the host."""
        self.floats = np.frombuffer(bytes(self.host.surroundings()), np.float32).copy()

    def download(self) -> None:
        """Copy it to the host."""
        self.host.surroundings()[:] = self.floats.tobytes()

    @property
    def values(self) -> np.ndarray:
        """The tensor itself."""
        return self.floats[self.first : self.first + self.length]


class Card:
    """An open card."""

    def __init__(self, lanes: int, inputs: Sequence[HostTensor], outputs: Sequence[HostTensor]) -> None:
        self.lanes = lanes
        self.a, self.b = map(Memory, inputs)
        (self.out,) = map(Memory, outputs)
        self.cycles = self.calls = 0

    def load(self, artifact: Artifact) -> Program:
        """Load a program."""
        self.calls = 0
        text = Path(artifact.path).read_text()
        return Program(self, [line.split() for line in text.splitlines()])


class Program:
    """A loaded program."""

    def __init__(self, card: Card, lines: list[list[str]]) -> None:
        self._card, self._lines = card, lines

    def poison(self) -> None:
        """Copy the poisoned output to the card."""
        self._card.out.upload()

    def run(self, calls: int, samples: int, *, cold: bool) -> list[int]:  # noqa: ARG002
        """Run the program; the card has no caches."""
        return [self._sample(calls) for _ in range(samples)]

    def _sample(self, calls: int) -> int:
        card, begin = self._card, self._card.cycles
        for _ in range(calls):
            card.calls += 1
            for name, *numbers in self._lines:
                _INSTRUCTIONS[name](card, *map(int, numbers))
                card.cycles += _START + card.out.length // card.lanes
        return int((card.cycles - begin) / _GHZ)

    def fetch(self) -> None:
        """Copy the output to the host, and look at the inputs."""
        self._card.out.download()
        for name in "ab":
            memory: Memory = getattr(self._card, name)
            if memory.floats.tobytes() != bytes(memory.host.surroundings()):
                raise Fault(f"input {name} was changed", Status.WRONG_OUTPUT)

    def unload(self) -> None:
        """Restore the inputs."""
        self._card.a.upload()
        self._card.b.upload()


def _add(card: Card, first: int = 0, last: int = 10**9) -> None:
    card.out.values[first:last] = (card.a.values + card.b.values)[first:last]


def _add_if_first(card: Card) -> None:
    if card.calls == 1:
        _add(card)


def _spoil_after(card: Card, calls: int) -> None:
    if card.calls > calls:
        card.out.values[0] += 1


def _copy(card: Card) -> None:
    card.out.values[:] = card.a.values


def _nan(card: Card) -> None:
    card.out.values[:] = np.nan


def _poke(card: Card, place: int) -> None:
    card.out.floats[card.out.first + place] = 1


def _poke_input(card: Card) -> None:
    card.a.values[0] = 77


def _say(card: Card, number: int) -> None:
    if card.calls == 1:
        print("tile", number)


def _print_on(_card: Card) -> None:
    while True:
        print("0123456789")


def _spin(_card: Card) -> None:
    while True:
        pass


def _raises(error: BaseException) -> Callable[[Card], None]:
    def instruction(_card: Card) -> None:
        raise error

    return instruction


_INSTRUCTIONS: dict[str, Callable[..., None]] = {
    "nop": lambda _card: None,
    "add": _add,
    "add_if_first": _add_if_first,
    "spoil_after": _spoil_after,
    "copy": _copy,
    "nan": _nan,
    "poke": _poke,
    "poke_input": _poke_input,
    "say": _say,
    "print_on": _print_on,
    "spin": _spin,
    "sleep": lambda _card: time.sleep(600),
    "divide": lambda _card: 1 // 0,
    "abort": lambda _card: os.abort(),
    "kill": lambda _card: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda _card, code: sys.exit(code),
    "quick_exit": lambda _card: os._exit(0),
    "trap": _raises(Fault("trap at 0x40", Status.CRASH, fatal=True)),
    "full": _raises(Fault("no memory is left on the card", Status.OUT_OF_MEMORY)),
    "interrupt": _raises(KeyboardInterrupt()),
    "burn": _raises(DeviceFault("the card does not answer")),
}
