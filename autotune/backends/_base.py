"""What a backend is: it says how a candidate's source becomes a folder, and how a worker calls it.

An artifact is a folder and its description, never a live object. A build is a command line and the text for
its standard input. So another interpreter, process or host can compile and run a candidate. A `neuron`
backend, for example, only has to name its own interpreter in `Build.command`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.model.kernel import Specs

Program = Callable[[int], int]
"""Call the candidate this many times in a row; return how many nanoseconds that took."""
Binding = Callable[[Sequence[int]], Program]
"""Bind a loaded candidate to the addresses of its tensors: of each input, then of each output."""


@dataclass(frozen=True)
class Artifact:
    """A compiled candidate: everything that a worker needs to load it.

    Args:
        backend: name of the backend that made it.
        entry: the symbol or function to call.
        folder: absolute; holds what the backend's command put there.
        main: the file to load, in that folder.
        inputs: specs of the inputs, in the order of the arguments.
        outputs: specs of the outputs, whose arguments follow those of the inputs.
        in_place: names of the inputs that the candidate may write; known to `Backend.load` only.
    """

    backend: str
    entry: str
    folder: str
    main: str
    inputs: Specs
    outputs: Specs
    in_place: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Path of the file to load."""
        return f"{self.folder}/{self.main}"


@dataclass(frozen=True)
class Build:
    """The one command that turns a source into an artifact.

    Args:
        artifact: the result, once the command has succeeded.
        source: the command's standard input; no file is written.
        command: the compiler's command line; it writes `artifact.main`, and what else it likes, in `part`.
        part: an empty folder, made for the command. It is renamed to `artifact.folder` on success, so an
            artifact is never incomplete.
    """

    artifact: Artifact
    source: str
    command: tuple[str, ...]
    part: str


class Backend(Protocol):
    """How one kind of candidate is compiled and called."""

    @property
    def name(self) -> str:
        """The name that the user types (`c`)."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what else decides object and speed: compiler, version, flags, CPU, threads."""
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

    def runner(self) -> tuple[str, ...]:
        """Return the command of the program that calls candidates; empty for `autotune/sites/runner.py`.

        Raises:
            UnavailableError: it cannot be made on this machine.
        """
        ...

    def load(self, artifact: Artifact) -> Binding:
        """Load a candidate; only `autotune/sites/runner.py` calls this."""
        ...


def object_name(*parts: str) -> str:
    """Return the name of a compiled object: 32 hex digits that identify these texts, in this order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}:".encode())
        state.update(part.encode())
    return state.hexdigest()[:32]
