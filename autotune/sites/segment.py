"""The memory that tuner and candidates share: the tensors, each between guard pages."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.kernel import ALIGNMENT, TensorSpec
from autotune.model.tensors import Index, dtype_of, extent_bytes
from autotune.sites.correctness import Mismatch
from autotune.sites.messages import HEADER_BYTES
from autotune.sites.poison import bits, word

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_TAKEN_BYTES = 64 << 20  # of pages kept out of use; larger tensors average over their many pages anyway
_LINE = 64
_SPARES = 64
_SPARE_BYTES = 256 << 10  # of all spare copies of the outputs, if that is more than one


def _round_up(size: int, unit: int = _PAGE) -> int:
    return -(-size // unit) * unit


@dataclass(frozen=True)
class _Room:
    """Copies of one tensor between guards, as offsets in the segment.

    Args:
        spec: the tensor.
        begin: of the canary page before the first copy.
        low: of the lowest byte of the first copy.
        first: of the element at index 0 of the first copy.
        stride: bytes from one copy to the next.
        copies: how many there are.
        end: of the canary page behind the last copy.
        restored: whether every call begins with a copy of the pristine tensor in it. The poison between its
            strided elements comes with that copy, so it is always the first.
    """

    spec: TensorSpec
    begin: int
    low: int
    first: int
    stride: int
    copies: int
    end: int
    restored: bool = False

    @classmethod
    def at(
        cls, spec: TensorSpec, guard: int, copies: int = 1, shift: int = 0, *, restored: bool = False
    ) -> _Room:
        """Lay out a room behind the guard page at an offset; the copies begin `shift` bytes into a line."""
        stride = _round_up(extent_bytes(spec), _LINE) + _LINE
        begin, below = guard + _PAGE, spec.reach[0] * dtype_of(spec).itemsize
        first = begin + _PAGE + shift + _round_up(below, _LINE)
        low = first - below
        end = _round_up(low + copies * stride) + _PAGE
        return cls(spec, begin, low, first, stride, copies, end, restored)


class Segment:
    """One anonymous file with every tensor of a workload.

    Each tensor begins on a page of its own. Before and after it are a page of canary bytes and a page without
    access. A candidate gets the inputs read-only. A write just outside an output is detected; a write further
    out kills the candidate.

    Each tensor has spare copies too, which are aligned no better than `ALIGNMENT`: one of an input, many of a
    small output. A device has memory of its own, whose alignment its runtime decides: it needs none.

    An input that the kernel changes is laid out as an output is. Its values stand in one more copy, which is
    read-only. From there the process of the candidate restores it before each call.

    Args:
        inputs: specs and values of the inputs.
        outputs: specs of the outputs.
        in_place: which of the inputs are changed; `outputs` and `spare_outputs` have them too, in this order,
            behind the outputs.
        spares: make spare copies.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[TensorSpec, NDArray[Any]]],
        outputs: Sequence[TensorSpec],
        in_place: Sequence[int] = (),
        *,
        spares: bool = True,
    ) -> None:
        written = [*outputs, *(inputs[place][0] for place in in_place)]
        total = sum(_round_up(extent_bytes(spec), _LINE) + _LINE for spec in written)
        self.spares = max(1, min(_SPARES, _SPARE_BYTES // max(1, total))) if spares else 0
        self.protected: list[tuple[int, int, int]] = []
        self._end = _round_up(HEADER_BYTES)
        changed = [place in in_place for place in range(len(inputs))]
        timed = (
            [self._room(spec, restored=new) for (spec, _), new in zip(inputs, changed, strict=True)],
            [self._room(spec) for spec in outputs],
        )
        self._timed_end = self._end
        spare = (
            [
                self._room(spec, self.spares if new else min(1, self.spares), ALIGNMENT, restored=new)
                for (spec, _), new in zip(inputs, changed, strict=True)
            ],
            [self._room(spec, self.spares, ALIGNMENT) for spec in outputs],
        )
        pristine = [self._room(inputs[place][0]) for place in in_place]
        for room in (*timed[0], *spare[0], *pristine):
            if not room.restored:
                self.protected.append((room.begin - _PAGE, room.end - room.begin + _PAGE, mmap.PROT_READ))
        for room in (*timed[0], *timed[1], *spare[0], *spare[1], *pristine):
            self.protected += [(room.begin - _PAGE, _PAGE, _PROT_NONE), (room.end, _PAGE, _PROT_NONE)]
        strides = [room.stride if room.restored else 0 for room in spare[0]]
        strides += [room.stride for room in spare[1]]
        rooms = zip([*timed[0], *timed[1]], [*spare[0], *spare[1]], strides, strict=True)
        self.tensors = tuple((one.first, other.first, stride) for one, other, stride in rooms)
        self.rooms = tuple((room.begin, room.end) for room in (*timed[0], *timed[1]))
        self.restored = tuple(
            (place, room.low, room.first - room.low, extent_bytes(room.spec))
            for place, room in zip(in_place, pristine, strict=True)
        )
        self.size = self._end
        self.file = os.memfd_create("tensors")
        os.ftruncate(self.file, self.size)
        self._memory = mmap.mmap(self.file, self.size)
        self._bytes = np.frombuffer(self._memory, dtype=np.uint8)
        self._order = np.random.default_rng(0)
        self._taken: deque[mmap.mmap] = deque()
        self._values = [values for _, values in inputs]
        self._timed_inputs = timed[0]
        self._timed_outputs = [*timed[1], *(timed[0][place] for place in in_place)]
        self._spare_outputs = [*spare[1], *(spare[0][place] for place in in_place)]
        self._turns = dict.fromkeys(
            (*self._timed_outputs, *self._spare_outputs), 0
        )  # of the poison around each
        self.outputs = [self._views(room)[0, ...] for room in self._timed_outputs]
        self.spare_outputs = [self._views(room) for room in self._spare_outputs]
        if spares:
            self._fill_inputs(spare[0], turn=1)
        for place, room in zip(in_place, pristine, strict=True):
            self._words(room)[...] = word(dtype_of(room.spec), 0)
            self._views(room)[0, ...] = self._values[place]
        self.place_anew()

    def place_anew(self) -> None:
        """Move every timed tensor to other pages of physical memory; its address stays.

        A cache that is indexed by physical addresses is fast or slow by chance: it depends on how many pages
        share a set. A vector that fills most of such a cache differs by a tenth. The old pages are kept in
        use, or the kernel would return the same ones.
        """
        begin, size = _round_up(HEADER_BYTES), self._timed_end - _round_up(HEADER_BYTES)
        self._memory.madvise(mmap.MADV_REMOVE, begin, size)
        if size <= _TAKEN_BYTES:
            taken = mmap.mmap(-1, size)
            np.frombuffer(taken, dtype=np.uint8)[::_PAGE] = 1
            self._taken.append(taken)
            while len(self._taken) * size > _TAKEN_BYTES:
                self._taken.popleft()
        self._bytes[begin + _PAGE * self._order.permutation(size // _PAGE)] = 0
        self._fill_inputs(self._timed_inputs, turn=0)

    def poison(self, turn: int, places: Sequence[Index | None] = ()) -> None:
        """Fill the outputs that are timed with poison, and their surroundings; inputs that are changed too.

        Args:
            turn: which of the two poisons.
            places: for each output the elements to fill; None for all of them, and their surroundings.
        """
        for place, room in enumerate(self._timed_outputs):
            chosen = places[place] if places else None
            if chosen is None:
                self._fill(room, turn)
            elif not room.restored:
                bits(self.outputs[place])[chosen] = word(dtype_of(room.spec), turn)

    def poison_spares(self, turn: int) -> None:
        """Fill the spare copies of the outputs with poison, and their surroundings."""
        for room in self._spare_outputs:
            self._fill(room, turn)

    def stray(self, *, spares: bool = False) -> Mismatch | None:
        """Describe the first output, or spare copy, with a write outside of it; None if there is none."""
        for room in self._spare_outputs if spares else self._timed_outputs:
            if count := self._stray_bytes(room, word(dtype_of(room.spec), self._turns[room])):
                total = self._views(room)[0, ...].size
                return Mismatch(room.spec.name, wrong=0, total=total, stray_bytes=count)
        return None

    def close(self) -> None:
        """Release the memory."""
        os.close(self.file)

    # -- inside

    def _room(self, spec: TensorSpec, copies: int = 1, shift: int = 0, *, restored: bool = False) -> _Room:
        made = _Room.at(spec, self._end, copies, shift, restored=restored)
        self._end = made.end + _PAGE
        return made

    def _fill_inputs(self, rooms: Sequence[_Room], turn: int) -> None:
        """Write the inputs; what is around them, and between strided elements, is poison too."""
        for room, values in zip(rooms, self._values, strict=True):
            self._words(room)[...] = word(dtype_of(room.spec), turn)
            self._views(room)[0, ...] = values

    def _fill(self, room: _Room, turn: int) -> None:
        turn = 0 if room.restored else turn
        self._words(room)[...] = word(dtype_of(room.spec), turn)
        self._turns[room] = turn

    def _words(self, room: _Room) -> NDArray[Any]:
        return self._bytes[room.begin : room.end].view(f"u{dtype_of(room.spec).itemsize}")

    def _views(self, room: _Room) -> NDArray[Any]:
        """Return all copies as one array with an axis more."""
        dtype = dtype_of(room.spec)
        strides = [room.stride, *(stride * dtype.itemsize for stride in room.spec.element_strides)]
        shape = (room.copies, *room.spec.shape)
        view: NDArray[Any] = np.ndarray(shape, dtype, self._bytes, room.first, strides)
        return view

    def _stray_bytes(self, room: _Room, poison: int) -> int:
        """Count the bytes of the elements outside of a tensor that are no poison any more."""
        itemsize = dtype_of(room.spec).itemsize
        words = self._words(room)
        size, stride = extent_bytes(room.spec) // itemsize, room.stride // itemsize
        first = (room.low - room.begin) // itemsize
        behind = first + room.copies * stride
        copies = words[first:behind].reshape(room.copies, stride)
        outside = [words[:first], copies[:, size:], words[behind:]]
        if room.spec.strides is not None:
            inside = copies[:, :size].copy()
            strides = [inside.strides[0], *(step * itemsize for step in room.spec.element_strides)]
            shape, below = (room.copies, *room.spec.shape), room.first - room.low
            np.ndarray(shape, inside.dtype, inside, below, strides)[...] = poison
            outside.append(inside)
        return sum(int(np.count_nonzero(part != poison)) for part in outside) * itemsize
