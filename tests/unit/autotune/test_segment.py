"""The memory of the tensors keeps its values and its addresses when it is placed anew."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from autotune.model.kernel import TensorSpec
from autotune.sites.segment import Segment


def segment() -> Segment:
    """Return one with 64 pages of input and as many of output."""
    values = np.arange(65536, dtype="f4")
    return Segment([(TensorSpec("a", (65536,)), values)], [TensorSpec("out", (65536,))])


def frames(address: int, count: int) -> list[int]:
    """Return the physical page of each virtual one (the kernel's admin-guide/mm/pagemap)."""
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(address // mmap.PAGESIZE * 8)
        words = struct.unpack(f"={count}Q", file.read(8 * count))
    return [word & ((1 << 55) - 1) for word in words]


def test_inputs_and_addresses_stay_and_outputs_can_be_poisoned_again() -> None:
    with closing(segment()) as made, mmap.mmap(made.file, made.size) as other:
        made.outputs[0][...] = 1
        made.place_anew()
        made.poison(0)
        seen = np.frombuffer(other, "f4", 65536, made.tensors[0][0]).copy()
        np.testing.assert_array_equal(np.arange(65536, dtype="f4"), seen)
        assert np.isnan(made.outputs[0]).all()
        assert made.stray() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees which pages these are")
def test_the_pages_are_others_or_in_another_order() -> None:
    with closing(segment()) as made:
        address = made.outputs[0].ctypes.data
        made.poison(0)
        before = frames(address, 64)
        made.place_anew()
        made.poison(0)
        after = frames(address, 64)
    assert 0 not in before + after
    assert sum(one == other for one, other in zip(before, after, strict=True)) < 16
