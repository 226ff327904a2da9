"""The kinds of candidates: one file for each."""

from __future__ import annotations

import difflib

from autotune.backends._base import Backend, Binding, Isolation, Program
from autotune.backends.artifact import Artifact, Build
from autotune.model.errors import UsageError

NAMES = ("c", "numpy", "neuron")

__all__ = ["NAMES", "Artifact", "Backend", "Binding", "Build", "Isolation", "Program", "get"]


def get(name: str) -> Backend:
    """Return the backend of this name, with its default settings.

    Raises:
        UsageError: no backend has this name; the message suggests the nearest.
    """
    # Imported here, because each C candidate forks its worker, and a fork without NumPy is cheaper.
    if name == "c":
        from autotune.backends.c import CBackend

        return CBackend()
    if name == "numpy":
        from autotune.backends.numpy import NumpyBackend

        return NumpyBackend()
    if name == "neuron":
        from autotune.backends.neuron import NeuronBackend

        return NeuronBackend()
    if name in ("nki", "nki_sim"):
        raise UsageError(
            f"backend {name!r} estimates, and tune() measures: rank configs by autotune.estimating.rank(), "
            "or by a script's --backend nki"
        )
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"no backend {name!r}{hint} Known: {', '.join(NAMES)}.")
