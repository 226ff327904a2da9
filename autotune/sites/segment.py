"""The memory that tuner and candidates share: the tensors, each between guard pages."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.kernel import TensorSpec
from autotune.model.tensors import dtype_of
from autotune.sites.correctness import Mismatch, poison_byte

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_TAKEN_BYTES = 64 << 20  # of pages kept out of use; larger tensors average over their many pages anyway


def _round_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _word(byte: int, size: int) -> int:
    return int.from_bytes(bytes([byte]) * size, "little")


def extent_bytes(spec: TensorSpec) -> int:
    """Return the bytes from a tensor's first element to the end of its last."""
    last = sum((extent - 1) * stride for extent, stride in zip(spec.shape, spec.element_strides, strict=True))
    return (last + 1) * dtype_of(spec).itemsize


class Segment:
    """One anonymous file with every tensor of a workload.

    Each tensor begins on a page of its own. Before and after it are a page of canary bytes and a page without
    access. A candidate gets the inputs read-only. A write just outside an output is detected; a write further
    out kills the candidate.

    Args:
        inputs: specs and values of the inputs.
        outputs: specs of the outputs.
    """

    def __init__(
        self, inputs: Sequence[tuple[TensorSpec, NDArray[Any]]], outputs: Sequence[TensorSpec]
    ) -> None:
        specs = [spec for spec, _ in inputs] + list(outputs)
        self.offsets: list[int] = []
        self.protected: list[tuple[int, int, int]] = [(_PAGE, _PAGE, _PROT_NONE)]
        end = 2 * _PAGE
        for place, spec in enumerate(specs):
            begin, size = end + _PAGE, _round_up(extent_bytes(spec))
            self.offsets.append(begin)
            end = begin + size + _PAGE
            if place < len(inputs):
                self.protected.append((begin - _PAGE, end - begin + _PAGE, mmap.PROT_READ))
            self.protected.append((end, _PAGE, _PROT_NONE))
            end += _PAGE
        self.size = end
        self.file = os.memfd_create("tensors")
        os.ftruncate(self.file, self.size)
        self._memory = mmap.mmap(self.file, self.size)
        self._bytes = np.frombuffer(self._memory, dtype=np.uint8)
        self._order = np.random.default_rng(0)
        self._taken: deque[mmap.mmap] = deque()
        views = [self._view(spec, offset) for spec, offset in zip(specs, self.offsets, strict=True)]
        self._inputs = [(view, values) for view, (_, values) in zip(views, inputs, strict=False)]
        self.outputs = views[len(inputs) :]
        self._specs = list(zip(outputs, self.offsets[len(inputs) :], strict=True))
        self.place_anew()

    def place_anew(self) -> None:
        """Move every tensor to other pages of physical memory; its address stays.

        A cache that is indexed by physical addresses is fast or slow by chance: it depends on how many pages
        share a set. A vector that fills most of such a cache differs by a tenth. The old pages are kept in
        use, or the kernel would return the same ones.
        """
        self._memory.madvise(mmap.MADV_REMOVE, _PAGE)
        if self.size <= _TAKEN_BYTES:
            taken = mmap.mmap(-1, self.size)
            np.frombuffer(taken, dtype=np.uint8)[::_PAGE] = 1
            self._taken.append(taken)
            while len(self._taken) * self.size > _TAKEN_BYTES:
                self._taken.popleft()
        self._bytes[_PAGE * (1 + self._order.permutation(self.size // _PAGE - 1))] = 0
        for view, values in self._inputs:
            view[...] = values

    def poison(self) -> None:
        """Fill the outputs and their surroundings with a value that no candidate writes by chance."""
        for spec, offset in self._specs:
            self._around(spec, offset)[:] = poison_byte(dtype_of(spec))

    def stray(self) -> Mismatch | None:
        """Describe the first output with a write outside of it; None if there is none."""
        for (spec, offset), view in zip(self._specs, self.outputs, strict=True):
            around, poison = self._around(spec, offset), poison_byte(dtype_of(spec))
            size = extent_bytes(spec)
            count = int((around[:_PAGE] != poison).sum() + (around[_PAGE + size :] != poison).sum())
            if view.nbytes != size:  # strided: the gaps between its elements are outside too
                inside = self._around(spec, offset)[_PAGE : _PAGE + size].copy()
                self._view(spec, 0, inside).view(f"u{view.itemsize}")[...] = _word(poison, view.itemsize)
                count += int((inside != poison).sum())
            if count:
                return Mismatch(spec.name, wrong=0, total=view.size, stray_bytes=count)
        return None

    def close(self) -> None:
        """Release the memory."""
        os.close(self.file)

    def _around(self, spec: TensorSpec, offset: int) -> NDArray[np.uint8]:
        return self._bytes[offset - _PAGE : offset + _round_up(extent_bytes(spec)) + _PAGE]

    def _view(self, spec: TensorSpec, offset: int, base: NDArray[np.uint8] | None = None) -> NDArray[Any]:
        dtype = dtype_of(spec)
        strides = [stride * dtype.itemsize for stride in spec.element_strides]
        view: NDArray[Any] = np.ndarray(
            spec.shape, dtype, self._bytes if base is None else base, offset, strides
        )
        return view
