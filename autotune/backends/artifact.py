"""What a compiled candidate is, and the command that makes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from autotune.model.kernel import Specs


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


def object_name(*parts: str) -> str:
    """Return the name of a compiled object: 32 hex digits that identify these texts, in this order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}:".encode())
        state.update(part.encode())
    return state.hexdigest()[:32]
