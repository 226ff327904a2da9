"""Which core touched which bytes of a tensor in shared HBM since the cores last met."""

from __future__ import annotations

import warnings

import numpy as np

from autotune.nki.errors import NkiWarning, kernel_line
from autotune.nki.interpreter.dtypes import Array
from autotune.nki.interpreter.layout import Layout
from autotune.nki.interpreter.turns import Turns

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_EACH = {1: 0x01, 2: 0x0101, 4: 0x01010101}  # the lowest bit of every byte of a word
_READ = 2  # bits of a byte: core 0 wrote it, core 1 wrote it, core 0 read it, core 1 read it


class Sharing:
    """Warn when what a kernel computes depends on which of its two cores comes first.

    The cores run in turns here, but at once on the machine. Bytes that one changes and the other touches,
    with no barrier and no exchange between, may come out either way there.

    Args:
        name: name of the tensor.
        size: its bytes.
        turns: whose turn it is, and how often each core has met the other.
    """

    def __init__(self, name: str, size: int, turns: Turns) -> None:
        """Start with bytes that nobody has touched."""
        self.name = name
        self.marks = np.zeros(size, np.uint8)
        self.turns = turns
        self.meetings = 0
        self.touched = (size, 0)
        self.warned = False

    def _of(self, core: int, layout: Layout, spots: Array | None) -> Array:
        """Return the marks of a view, or of all elements if there are places; forget what is settled."""
        size = layout.dtype.itemsize
        meetings = self.turns.meetings[core]
        if meetings != self.meetings:
            self.marks[self.touched[0] : self.touched[1]] = 0
            self.meetings, self.touched = meetings, (len(self.marks), 0)
        if spots is None:
            low = layout.offset
            high = low + sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True))
            strides = tuple(step * size for step in layout.strides)
            found: Array = np.ndarray(layout.shape, _WORDS[size], self.marks, low * size, strides)
        else:
            low, high = (int(spots.min()), int(spots.max())) if spots.size else (0, 0)
            found = self.marks[: len(self.marks) // size * size].view(_WORDS[size])
        self.touched = (min(self.touched[0], low * size), max(self.touched[1], (high + 1) * size))
        return found

    def reads(self, core: int, layout: Layout, spots: Array | None = None) -> None:
        """Note that a core reads a view, or the elements at some places."""
        found = self._of(core, layout, spots)
        marks = found if spots is None else found[spots]
        each = _EACH[layout.dtype.itemsize]
        foreign = (marks & (each << (1 - core))).astype(bool) & ~(marks & (each << core)).astype(bool)
        if foreign.any():
            self._warn(core, "reads", "writes")
        if spots is None:
            found |= each << (core + _READ)
        else:
            found[spots] = marks | (each << (core + _READ))

    def writes(
        self, core: int, layout: Layout, before: Array, made: Array, spots: Array | None = None
    ) -> None:
        """Note that a core is about to write values where there are others, unless they are the same."""
        found = self._of(core, layout, spots)
        marks = found if spots is None else found[spots]
        size = layout.dtype.itemsize
        each = _EACH[size]
        touched = marks & (each << (1 - core) | each << (1 - core + _READ))
        if touched.any():
            word = _WORDS[size]
            changed = np.ascontiguousarray(before).view(word) != np.ascontiguousarray(made).view(word)
            if (touched.astype(bool) & changed.reshape(touched.shape)).any():
                self._warn(core, "writes", "touches")
        if spots is None:
            found |= each << core
        else:
            found[spots] = marks | (each << core)

    def _warn(self, core: int, does: str, other: str) -> None:
        if self.warned:
            return
        self.warned = True
        file, line = kernel_line()
        text = (
            f"{file}:{line}: core {core} {does} {self.name} in shared HBM where core {1 - core} {other} it, "
            "with no barrier between: on the machine either may be first"
        )
        warnings.warn(NkiWarning(text), stacklevel=2)
