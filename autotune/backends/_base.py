"""What a backend is: how a candidate's source becomes files, and how a worker calls them.

An artifact is files plus a description, never a live object, and a build is a command line and what it reads
from its standard input: so compiling and running may happen in other interpreters, in other processes and on
other hosts than the tuner's. A `neuron` backend names its own interpreter in `Build.command`; nothing else
here has to know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autotune.model.kernel import Specs, TensorSpec

Program = Callable[[int], int]
"""Call the candidate this many times back to back; return the nanoseconds that took."""


@dataclass(frozen=True)
class Artifact:
    """A compiled candidate: all that a worker needs to load it.

    Args:
        backend: name of the backend that made it.
        entry: the symbol or function to call.
        files: absolute paths, the object first; what else it needs after it.
        inputs: specs of the inputs, in the order of the arguments.
        outputs: specs of the outputs, which follow the inputs.
    """

    backend: str
    entry: str
    files: tuple[str, ...]
    inputs: Specs
    outputs: Specs

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Artifact:
        """Make an artifact of `dataclasses.asdict` that went through JSON, where tuples become lists."""
        return cls(
            backend=record["backend"],
            entry=record["entry"],
            files=tuple(record["files"]),
            inputs=tuple(map(TensorSpec.from_json, record["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, record["outputs"])),
        )


@dataclass(frozen=True)
class Build:
    """What turns a source into an artifact: one command.

    Args:
        artifact: what there will be once the command has succeeded.
        source: what the command reads from its standard input: no file system comes between.
        command: the compiler's command line; its output is `produces`.
        produces: where the command writes; renamed to `artifact.files[0]` on success, so that no half-written
            object is ever found.
    """

    artifact: Artifact
    source: str
    command: tuple[str, ...]
    produces: str


class Backend(Protocol):
    """How one kind of candidate is compiled and called."""

    @property
    def name(self) -> str:
        """What the user calls it (`c`)."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what besides the source decides the object and its speed: compiler, version, flags, CPU."""
        ...

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Say how to compile a source; nothing is written yet.

        Args:
            source: the candidate.
            entry: the symbol or function to call.
            inputs: specs of the inputs.
            outputs: specs of the outputs.
            folder: where objects go; it is there.

        Raises:
            UnavailableError: the compiler is not on this machine.
        """
        ...

    def runner(self) -> tuple[str, ...]:
        """Return the command of the program that loads and calls candidates; empty for `autotune/runner.py`.

        Raises:
            UnavailableError: it cannot be made on this machine.
        """
        ...

    def load(self, artifact: Artifact, addresses: Sequence[int]) -> Program:
        """Load a candidate and bind it to its tensors; only ever called by `autotune/runner.py`.

        Args:
            artifact: what was built.
            addresses: where each input, then each output, begins in this process.
        """
        ...


def digest(*parts: str) -> str:
    """Return 32 hex digits that identify these texts, in this order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}:".encode())
        state.update(part.encode())
    return state.hexdigest()[:32]
