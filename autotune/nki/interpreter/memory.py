"""The memory of a core: the storage behind each tensor, what of it was written, and how long it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autotune.nki.errors import NkiError, NkiWarning
from autotune.nki.interpreter.dtypes import Array, DType
from autotune.nki.interpreter.layout import Layout
from autotune.nki.interpreter.sharing import Sharing
from autotune.nki.machine import Machine
from autotune.nki.trace import Region

_WORDS: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4")}
_ALL_ONES = {1: 2**8 - 1, 2: 2**16 - 1, 4: 2**32 - 1}
NEVER = -1
_ROWS = 20  # of a table of who holds what


@dataclass
class Life:
    """Say how much of a partition a tensor takes, and from which instruction to which it is needed.

    Args:
        name: name of the tensor.
        memory: "sbuf" or "psum".
        bytes: bytes in each partition.
        start: byte within a partition at which the kernel placed it, None if it left that to the compiler.
        at: the kernel's line that made it.
        rows: the first partition that it takes, and the one behind the last.
        first, last: numbers of the first and the last instruction, other than copies by DMA, that touch it.
        loaded, moved: numbers of the first and the last copy by DMA from or to it.
        computed: an engine wrote it; otherwise all that it holds was loaded, and can be loaded again.
    """

    name: str
    memory: str
    bytes: int
    start: int | None
    at: tuple[str, int]
    rows: tuple[int, int] = (0, 0)
    first: int = NEVER
    last: int = NEVER
    loaded: int = NEVER
    moved: int = NEVER
    computed: bool = False


class Storage:
    """Hold the bytes of one tensor, and which of them were written.

    Attributes:
        data: the bytes, row-major over the whole tensor; None while a kernel is only recorded.
        complete: everything was written; the rest of the bookkeeping is then left alone.
        given: the caller gave it, and gets it back if the kernel returns it.
        sharing: tells when two cores of a kernel touch it without order; None if only one can.
        valued: it is in PSUM, and something other than a matmul gave it values that are not zero.
    """

    __slots__ = (
        "arrays",
        "complete",
        "data",
        "given",
        "life",
        "number",
        "regions",
        "root",
        "shadow",
        "shared",
        "sharing",
        "valued",
        "written",
    )

    def __init__(self, root: Layout, life: Life, data: Array | None, complete: bool, shared: bool) -> None:
        """Wrap bytes that may have been written already, as an input's have."""
        self.root = root
        self.life = life
        self.data = data
        self.complete = complete
        self.shared = shared
        self.given = False
        self.sharing: Sharing | None = None
        self.valued = False
        self.number = NEVER  # of the tensor, in the trace
        self.shadow: Array | None = None
        self.written: set[Layout] = set()
        self.arrays: dict[Layout, Array] = {}
        self.regions: dict[Layout, int] = {}

    def array(self, layout: Layout) -> Array:
        """Return a view as a NumPy array over the same bytes."""
        found = self.arrays.get(layout)
        if found is None:
            found = self.arrays[layout] = self._mapped(layout, layout.dtype.numpy, self.data)
        return found

    def _mapped(self, layout: Layout, dtype: np.dtype[Any], data: Array | None) -> Array:
        if data is None:
            raise NkiError(f"{self.life.name} has no data here: the kernel is only being recorded")
        size = layout.dtype.itemsize
        strides = tuple(stride * size for stride in layout.strides)
        try:
            made: Array = np.ndarray(layout.shape, dtype, data, layout.offset * size, strides)
            return made
        except (ValueError, TypeError):
            reach = layout.offset + sum(
                (n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True)
            )
            raise NkiError(
                f"the view {list(zip(layout.strides, layout.shape, strict=True))} at {layout.offset} of "
                f"{self.life.name} reaches element {reach}; it has {self.root.bytes // size}",
                tensor=self.life.name,
                memory=self.root.memory,
                number=reach,
                limit=self.root.bytes // size,
            ) from None

    def flags(self, layout: Layout) -> Array:
        """Return, for each element of a view, whether all of its bytes were written."""
        return np.asarray(self._marks(layout) == _ALL_ONES[layout.dtype.itemsize])

    def _marks(self, layout: Layout) -> Array:
        if self.shadow is None:
            self.shadow = np.zeros(self.root.bytes, np.uint8)
        return self._mapped(layout, _WORDS[layout.dtype.itemsize], self.shadow)

    def holds(self, layout: Layout) -> bool:
        """Tell whether every element of a view was written."""
        if self.complete or layout in self.written:
            return True
        if self.shadow is None or not bool(self.flags(layout).all()):
            return False
        self._note(layout)
        return True

    def untouched(self, layout: Layout) -> bool:
        """Tell whether no element of a view was written."""
        if self.complete or layout in self.written:
            return False
        return self.shadow is None or not bool(self.flags(layout).any())

    def mark(self, layout: Layout, where: Array | None = None) -> None:
        """Note that a view was written; with a mask, only there."""
        if self.complete or layout in self.written:
            return
        if where is not None:
            marks = self._marks(layout)
            marks[where] = _ALL_ONES[layout.dtype.itemsize]
        elif layout.dense:
            self._note(layout)
        else:
            self._marks(layout)[...] = _ALL_ONES[layout.dtype.itemsize]
            self._note(layout)

    def _note(self, layout: Layout) -> None:
        if layout.dense:
            self.complete, self.shadow = True, None
            self.written.clear()
        else:
            self.written.add(layout)

    def region(self, layout: Layout) -> Region:
        """Return the part of the tensor that a view touches, for the trace."""
        begin, end, low, high = layout.place()
        return Region(self.number, begin, end, low, high, 0 if layout.on_chip else layout.pitch)


def fill(data: Array, dtype: DType) -> None:
    """Fill new memory as the official simulator does: floats with NaN, integers with 4."""
    if dtype.kind == "float":
        data.view(dtype.numpy)[...] = np.nan
    else:
        data.view(dtype.numpy)[...] = 4 if dtype.kind == "int" else 0


@dataclass(frozen=True)
class Peak:
    """Say what a memory holds at the moment at which it holds most.

    Args:
        memory: "sbuf" or "psum".
        bytes: bytes in a partition.
        limit: bytes that a partition has.
        holders: the tensors that are needed then, the largest first.
        crossing: the tensor with whose first use the peak began; None if there is no tensor at all.
    """

    memory: str
    bytes: int
    limit: int
    holders: tuple[Life, ...]
    crossing: Life | None

    @property
    def fits(self) -> bool:
        """Tell whether the memory holds it."""
        return self.bytes <= self.limit

    def table(self) -> str:
        """Return who holds what at the peak: a line for the tensors of one name, made at one line."""
        title = f"{self.memory.upper()} at its peak: {self.bytes:,} of {self.limit:,} bytes a partition"
        groups: dict[tuple[str, tuple[str, int]], list[Life]] = {}
        for life in self.holders:
            groups.setdefault((life.name, life.at), []).append(life)
        rows = []
        for (name, at), lives in sorted(
            groups.items(), key=lambda each: -sum(life.bytes for life in each[1])
        ):
            count = f" ({len(lives)} x {lives[0].bytes:,})" if len(lives) > 1 else ""
            rows.append(f"  {sum(life.bytes for life in lives):>9,}  {name}{count}  {at[0]}:{at[1]}")
        rest = len(rows) - _ROWS
        return "\n".join([title, *rows[:_ROWS], *([f"  and {rest} more lines"] if rest > 0 else [])])


def _settled(life: Life) -> Life:
    """Return when a tensor is needed; one that is only copied, at its last copy."""
    return life if life.first != NEVER else replace(life, first=life.moved, last=life.moved)


def peak(lives: Sequence[Life], memory: str, machine: Machine) -> Peak:
    """Work out how full a memory gets.

    A tensor is needed from the first to the last instruction that computes with it: a compiler can move the
    load down to the one and the store up to the other. Tensors without an address are counted by their bytes,
    as if they could be packed without gaps; those that the kernel placed, by the highest byte they reach.
    """
    limit = machine.bytes_of(memory)
    used = [
        _settled(life) for life in lives if life.memory == memory and max(life.first, life.moved) != NEVER
    ]
    free = sorted((life for life in used if life.start is None), key=lambda life: life.first)
    placed = [life for life in used if life.start is not None]
    floor = max((life.bytes + (life.start or 0) for life in placed), default=0)
    events = [(life.first, 1, life.bytes) for life in free]
    events += [(life.last + 1, 0, -life.bytes) for life in free]
    total, most, moment = floor, floor, NEVER
    for when, _, change in sorted(events):
        total += change
        if total > most:
            most, moment = total, when
    alive = [life for life in free if life.first <= moment <= life.last]
    alive += placed if moment == NEVER else [life for life in placed if life.first <= moment <= life.last]
    crossing = max(alive, key=lambda life: life.first, default=None)
    holders = tuple(sorted(alive, key=lambda life: -life.bytes))
    return Peak(memory, most, limit, holders, crossing)


def _check_places(lives: Sequence[Life]) -> None:
    """Warn of two tensors that the kernel placed over each other while both are needed."""
    placed = [(*_span(life), life) for life in lives if life.start is not None]
    active: list[tuple[int, int, Life]] = []
    for begin, end, life in sorted(placed, key=lambda each: each[0]):
        if begin == NEVER:
            continue
        active = [each for each in active if each[1] > begin]
        for _, _, other in active:
            if other.memory == life.memory and _overlap(life, other):
                text = (
                    f"{life.at[0]}:{life.at[1]}: {life.name} and {other.name} ({other.at[0]}:{other.at[1]}) "
                    f"are placed over each other in {life.memory.upper()} while both are needed"
                )
                warnings.warn(NkiWarning(text), stacklevel=4)
        active.append((begin, end, life))


def _span(life: Life) -> tuple[int, int]:
    """Return the numbers of the first and the last instruction that touch a tensor in any way."""
    touched = [number for number in (life.first, life.loaded) if number != NEVER]
    return min(touched, default=NEVER), max(life.last, life.moved)


def _overlap(one: Life, other: Life) -> bool:
    first, second = one.start or 0, other.start or 0
    rows = one.rows[0] < other.rows[1] and other.rows[0] < one.rows[1]
    return rows and first < second + other.bytes and second < first + one.bytes


def check_capacity(lives: Sequence[Life], machine: Machine) -> tuple[Peak, Peak]:
    """Return the peaks of SBUF and PSUM.

    PSUM has to hold what is needed at once. So has SBUF what engines wrote; what was only loaded may be more,
    since a compiler can load it again before each use. Then it warns: nobody can say how long that takes.

    Raises:
        NkiError: a memory cannot hold what it has to.
    """
    _check_places(lives)
    peaks = (peak(lives, "sbuf", machine), peak(lives, "psum", machine))
    for found in peaks:
        if found.fits:
            continue
        core = peak([life for life in lives if life.computed], found.memory, machine)
        if core.fits:
            warnings.warn(NkiWarning(_overflow(found, machine) + _RELOADED + found.table()), stacklevel=2)
        elif core.crossing:
            raise NkiError(
                f"{core.crossing.name} does not fit: with it {_overflow(core, machine)}\n{core.table()}",
                tensor=core.crossing.name,
                memory=core.memory,
                number=core.bytes,
                limit=core.limit,
                at=core.crossing.at,
            )
    return peaks


_RELOADED = "; the compiler has to load tiles more than once, and how long that takes cannot be told\n"


def _overflow(found: Peak, machine: Machine) -> str:
    return (
        f"{found.memory.upper()} holds {found.bytes:,} bytes a partition at once, and {machine.target} has "
        f"{found.limit:,}"
    )
