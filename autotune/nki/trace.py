"""What a kernel did on the core, instruction by instruction: the record that the model of time prices.

A trace holds no data and no times. Everything that repeats (what an instruction works on, the regions it
touches, the kernel's lines) is interned to a small integer once: recording an instruction is one append, and
a cost is worked out once for each distinct piece of work, not once for each instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

HBM, SBUF, PSUM = "hbm", "sbuf", "psum"
TENSOR, VECTOR, SCALAR, GPSIMD, SYNC, DMA = "tensor", "vector", "scalar", "gpsimd", "sync", "dma"


class Operand(NamedTuple):
    """Describe one operand as far as its cost depends on it: the layout, not the place.

    Args:
        memory: "hbm", "sbuf" or "psum".
        dtype: name of the dtype, such as "bfloat16".
        itemsize: bytes of one element.
        partitions: partitions that it spans; of an HBM operand, the size of its first dimension.
        elements: elements in each partition.
        run: elements that lie next to each other in memory, at most `elements` in SBUF and PSUM; in HBM a run
            may cross rows, so that a contiguous tensor is one run of all of its elements.
    """

    memory: str
    dtype: str
    itemsize: int
    partitions: int
    elements: int
    run: int


class Work(NamedTuple):
    """Describe what one instruction does, whichever tensors it does it to.

    Args:
        name: function of `nki.isa`, such as "nc_matmul".
        engine: the engine that the kernel asked for, "dma" for a DMA, "" if the compiler may choose.
        dst: what it writes first.
        srcs: what it reads, in the function's order; of nc_matmul: stationary, moving.
        op: names of the operators, joined with a blank, such as "multiply add" or "exp".
        flags: whatever else changes the cost: "transpose" (nc_matmul with is_transpose, dma_copy that
            transposes), "perf_mode=double_row", "indirect".
    """

    name: str
    engine: str
    dst: Operand | None
    srcs: tuple[Operand, ...] = ()
    op: str = ""
    flags: tuple[str, ...] = ()


class Tensor(NamedTuple):
    """Describe a tensor: a name for people, the memory, and how much of it the tensor holds.

    Args:
        name: name in the kernel, or the function that made it.
        memory: "hbm", "sbuf" or "psum".
        partition_bytes: bytes in each partition (SBUF and PSUM); 0 in HBM.
        first: number of instructions recorded before the tensor was made.
        line: number of the kernel's line that made it, in `Trace.lines`.
        start: byte in each partition at which the kernel put it, -1 if that is left to the compiler.
    """

    name: str
    memory: str
    partition_bytes: int
    first: int
    line: int
    start: int = -1


class Region(NamedTuple):
    """Describe the part of a tensor that an instruction touches.

    In SBUF and PSUM `begin` and `end` are partitions, and `low` and `high` bytes within each of them. In HBM
    `begin` and `end` are rows of `pitch` bytes, and `low` and `high` bytes within each row.
    """

    tensor: int
    begin: int
    end: int
    low: int
    high: int
    pitch: int = 0


Instruction = tuple[int, tuple[int, ...], tuple[int, ...], int]
"""Number of the work, of the regions read, of the regions written, of the kernel's line."""


@dataclass
class Trace:
    """Hold all that one core does in one call of a kernel, in program order.

    Args:
        target: "trn1", "trn2" or "trn3".
        works: each distinct piece of work; an instruction names one by its place here.
        tensors: every tensor of the kernel.
        regions: each distinct region.
        lines: each distinct line of the kernel, as (file, number).
        instructions: what was done; see `Instruction`.
    """

    target: str
    works: list[Work] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    lines: list[tuple[str, int]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)


class TooLong(Exception):
    """A kernel has more instructions than were to be recorded."""


class Recorder:
    """Record what a kernel does; the interpreter calls this once for each instruction."""

    __slots__ = ("_lines", "_regions", "_works", "record", "trace")
    most: ClassVar[int | None] = None
    """Instructions after which recording ends with `TooLong`, None for no end; see `at_most`."""

    def __init__(self, target: str) -> None:
        """Start an empty trace for one target."""
        self.trace = Trace(target)
        self._works: dict[Work, int] = {}
        self._regions: dict[Region, int] = {}
        self._lines: dict[tuple[str, int], int] = {}
        instructions, most = self.trace.instructions, self.most
        append = instructions.append

        def limited(instruction: Instruction) -> None:
            if len(instructions) == most:
                raise TooLong
            append(instruction)

        self.record = append if most is None else limited
        """Record one instruction: (work, regions read, regions written, line), all by their numbers.

        An accumulating matmul reads its destination; leave that out of the regions read, since the tensor
        engine adds in PSUM without waiting for itself.
        """

    def work(self, work: Work) -> int:
        """Return the number of a piece of work, the same for equal ones."""
        number = self._works.get(work)
        if number is None:
            number = self._works[work] = len(self._works)
            self.trace.works.append(work)
        return number

    def tensor(self, name: str, memory: str, partition_bytes: int, line: int, start: int = -1) -> int:
        """Return the number of a new tensor."""
        tensors = self.trace.tensors
        tensors.append(Tensor(name, memory, partition_bytes, len(self.trace.instructions), line, start))
        return len(tensors) - 1

    def region(self, region: Region) -> int:
        """Return the number of a region, the same for equal ones."""
        number = self._regions.get(region)
        if number is None:
            number = self._regions[region] = len(self._regions)
            self.trace.regions.append(region)
        return number

    def line(self, file: str, number: int) -> int:
        """Return the number of a line of the kernel, the same for equal ones."""
        key = (file, number)
        place = self._lines.get(key)
        if place is None:
            place = self._lines[key] = len(self._lines)
            self.trace.lines.append(key)
        return place


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """End the recording of a kernel that has more instructions than a number, by raising `TooLong`."""
    before, Recorder.most = Recorder.most, count
    try:
        yield
    finally:
        Recorder.most = before
