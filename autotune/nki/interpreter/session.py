"""One run of a kernel on one core: its machine, its memory, what it did so far."""

from __future__ import annotations

import linecache
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune.nki.errors import NkiError, inside, kernel_line
from autotune.nki.interpreter.dtypes import Array, DType
from autotune.nki.interpreter.layout import Layout, Shape, row_major
from autotune.nki.interpreter.memory import Life, Storage, fill
from autotune.nki.interpreter.sharing import Sharing
from autotune.nki.machine import PARTITIONS, Machine
from autotune.nki.trace import Recorder

if TYPE_CHECKING:
    from autotune.nki.interpreter.turns import Turns

_ASSIGNED = re.compile(r"\s*([A-Za-z_]\w*)\s*(?::[^=]*)?=[^=]")
_names: dict[tuple[str, int], str] = {}


def variable(at: tuple[str, int]) -> str:
    """Return the variable that a line of the kernel assigns, "tensor" if it assigns none."""
    found = _names.get(at)
    if found is None:
        match = _ASSIGNED.match(linecache.getline(*at))
        found = _names[at] = match.group(1) if match else "tensor"
    return found


@dataclass
class Shared:
    """Hold what the cores of one kernel share: their HBM tensors and whose turn it is.

    Args:
        tensors: shared HBM tensors by their name, or by their number on each core if they have none.
        turns: who runs; None if there is one core.
        roots, forms: layouts of whole tensors, and the forms of all layouts.
    """

    tensors: dict[object, Storage] = field(default_factory=dict)
    turns: Turns | None = None
    roots: dict[tuple[str, Shape, DType, int], Layout] = field(default_factory=dict)
    forms: dict[object, int] = field(default_factory=dict)


class Program:
    """Hold the state of one core that runs a kernel.

    Attributes:
        machine: the limits of its target.
        index, grid: which program it is, and how many there are along each axis.
        recorder: takes each instruction for the model of time, None if nobody asks.
        computes: there is data; otherwise instructions are checked and recorded only.
        strict: reading what nobody wrote is an error; otherwise it reads NaN, or 4 of integers.
        plans: what was found out about an instruction with operands of these forms; see `issue`.
        lives: the tensors of SBUF and PSUM.
        count: instructions so far.
        accumulators: the reduction registers of the vector and the scalar engine.
        by_lane: the instruction that runs computes each partition by itself.
        lanes: the partitions of its operands that were written, None if all were; see `access.held`.
    """

    def __init__(
        self,
        machine: Machine,
        shared: Shared | None = None,
        index: int = 0,
        grid: tuple[int, ...] = (),
        recorder: Recorder | None = None,
        computes: bool = True,
        strict: bool = True,
    ) -> None:
        """Start with empty memory."""
        self.machine = machine
        self.shared = shared or Shared()
        self.index = index
        self.grid = grid
        self.recorder = recorder
        self.computes = computes
        self.strict = strict
        self.roots = self.shared.roots
        self.plans: dict[object, Any] = {}
        self.lines: dict[tuple[object, int], int] = {}
        self.lives: list[Life] = []
        self.count = 0
        self.accumulators: dict[str, Array | None] = {"vector": None, "scalar": None}
        self.random_state = [0, 0]
        self.by_lane = False
        self.lanes: Array | None = None
        self.shared_count = 0

    def root(self, memory: str, shape: Shape, dtype: DType, base: int = 0) -> Layout:
        """Return the layout of a whole tensor."""
        key = (memory, shape, dtype, base)
        found = self.roots.get(key)
        if found is None:
            steps = row_major(shape)
            made = Layout(None, memory, dtype, shape, steps, 0, base=base, forms=self.shared.forms)
            found = self.roots[key] = made
        return found

    def allocate(
        self,
        shape: Shape,
        dtype: DType,
        memory: str,
        name: str = "",
        start: int | None = None,
        shared: bool = False,
        partition: int = 0,
    ) -> Storage:
        """Make a tensor that nobody has written yet.

        Raises:
            NkiError: it has more partitions, or more bytes in a partition, than the memory.
        """
        at = kernel_line()
        layout = self.root(memory, shape, dtype, start or 0)
        if shared and self.shared.turns and self.computes:
            key = name or self.shared_count
            self.shared_count += not name
            known = self.shared.tensors.get(key)
            if known is not None:
                return self._same(known, layout)
        rows = (partition, partition + shape[0])
        storage = self._made(layout, Life(name or variable(at), memory, 0, start, at, rows), shared)
        if shared and self.shared.turns and self.computes:
            self.shared.tensors[key] = storage
            storage.sharing = Sharing(storage.life.name, layout.bytes, self.shared.turns)
        return storage

    def _same(self, known: Storage, layout: Layout) -> Storage:
        if known.root.shape != layout.shape or known.root.dtype != layout.dtype:
            raise NkiError(
                f"{known.life.name} is shared by the cores, and one makes it {known.root.dtype}"
                f"{list(known.root.shape)}, another {layout.dtype}{list(layout.shape)}"
            )
        return known

    def _made(self, layout: Layout, life: Life, shared: bool) -> Storage:
        if layout.on_chip:
            life.bytes = layout.pitch
            self._check_size(layout, life)
            self.lives.append(life)
        data = np.empty(layout.bytes, np.uint8) if self.computes else None
        if data is not None and (not self.strict or not layout.on_chip):
            fill(data, layout.dtype)
        storage = Storage(layout, life, data, not self.strict, shared)
        if not self.strict and layout.memory == "psum":
            storage.complete = False  # a matmul still has to tell its first write from later ones
        if self.recorder:
            self.number(storage, life.bytes)
        return storage

    def number(self, storage: Storage, partition_bytes: int) -> None:
        """Tell the recorder of a tensor."""
        if self.recorder:
            life = storage.life
            line = self.recorder.line(*life.at)
            storage.number = self.recorder.tensor(life.name, life.memory, partition_bytes, line)

    def _check_size(self, layout: Layout, life: Life) -> None:
        memory, upper = layout.memory, layout.memory.upper()
        if layout.shape[0] > PARTITIONS:
            raise NkiError(
                f"{life.name} has {layout.shape[0]} partitions; {upper} has {PARTITIONS}: the first "
                "dimension of a tensor on chip is its partitions, so tile it",
                tensor=life.name,
                memory=memory,
                number=layout.shape[0],
                limit=PARTITIONS,
            )
        if life.rows[1] > PARTITIONS:
            raise NkiError(
                f"{life.name} is placed at partitions {life.rows[0]} to {life.rows[1]}; "
                f"{upper} has {PARTITIONS}",
                tensor=life.name,
                memory=memory,
                number=life.rows[1],
                limit=PARTITIONS,
            )
        limit = self.machine.bytes_of(memory)
        taken = life.bytes + (life.start or 0)
        if taken > limit:
            raise NkiError(
                f"{life.name} takes {life.bytes:,} bytes a partition"
                + (f" from byte {life.start:,} on" if life.start else "")
                + f"; {upper} of {self.machine.target} has {limit:,}",
                tensor=life.name,
                memory=memory,
                number=taken,
                limit=limit,
            )

    def line(self, frame: FrameType | None) -> int:
        """Return the recorder's number of the kernel's line that a frame, or one around it, runs."""
        while frame is not None and inside(frame):
            frame = frame.f_back
        if frame is None or self.recorder is None:
            return 0
        key = (frame.f_code, frame.f_lineno)
        found = self.lines.get(key)
        if found is None:
            found = self.lines[key] = self.recorder.line(frame.f_code.co_filename, frame.f_lineno)
        return found


class _Local(threading.local):
    program: Program | None = None


_local = _Local()


def current() -> Program:
    """Return the program that runs in this thread.

    Raises:
        NkiError: no kernel runs.
    """
    program = _local.program
    if program is None:
        raise NkiError("nki.language and nki.isa work inside a kernel only: nki.simulate(kernel)(*arrays)")
    return program


def running() -> Program | None:
    """Return the program that runs in this thread, if one does."""
    return _local.program


def run_in(program: Program, body: Callable[[], Any]) -> Any:
    """Call a function with a program as the current one of this thread."""
    before = _local.program
    _local.program = program
    try:
        return body()
    finally:
        _local.program = before
