"""Build traces by hand: of instructions that take given times, and of kernels that others measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autotune.nki.timing.costs import ENGINES, Price
from autotune.nki.timing.dependencies import place, waits
from autotune.nki.timing.schedule import Schedule, schedule
from autotune.nki.trace import DMA, HBM, PSUM, SBUF, Operand, Recorder, Region, Trace, Work

ITEMSIZE = {"float32": 4, "bfloat16": 2, "int32": 4}
ROOM = {SBUF: 224 * 1024, PSUM: 16 * 1024}


@dataclass
class Timed:
    """Collect instructions that take given times, and schedule them.

    A tensor is a name; "name:low-high" is a part of it, in bytes of every partition.
    """

    recorder: Recorder = field(default_factory=lambda: Recorder("trn2"))
    prices: list[Price] = field(default_factory=list)
    tensors: dict[str, int] = field(default_factory=dict)

    def tensor(self, name: str, size: int, memory: str = SBUF, start: int = -1) -> None:
        """Make a tensor of a number of bytes in a partition."""
        self.tensors[name] = self.recorder.tensor(name, memory, size, 0, start)

    def do(
        self,
        lane: str,
        ns: float,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
        done: float = 0,
        signal: float = 0,
    ) -> None:
        """Add an instruction: its lane, how long it works, and how long its result then takes to be seen."""
        price = Price(ENGINES.index(lane), ns, done, signal)
        name = f"{lane} {ns} {done} {signal}"
        work = self.recorder.work(Work(name, lane, None))
        if work == len(self.prices):
            self.prices.append(price)
        regions = [tuple(self._region(each) for each in names) for names in (reads, writes)]
        self.recorder.record((work, regions[0], regions[1], self.recorder.line("kernel.py", work + 1)))

    def _region(self, text: str) -> int:
        name, _, part = text.partition(":")
        if name not in self.tensors:
            self.tensor(name, 8)
        low, high = map(int, part.split("-")) if part else (0, 8)
        return self.recorder.region(Region(self.tensors[name], 0, 128, low, high))

    def run(self) -> Schedule:
        """Schedule what was collected."""
        trace = self.recorder.trace
        taken = place(trace, ROOM)
        return schedule(trace, self.prices, waits(trace, [each.engine for each in self.prices], taken))


@dataclass(frozen=True)
class Tile:
    """Name a tensor of a `Kernel`: its number, and bytes and elements of each partition, or row in HBM."""

    number: int
    memory: str
    dtype: str
    rows: int
    columns: int

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Part:
        """Return rows and columns from one number to another."""
        return Part(self, rows, columns)

    @property
    def whole(self) -> Part:
        """Return all of it."""
        return Part(self, (0, self.rows), (0, self.columns))


@dataclass(frozen=True)
class Part:
    """Name the part of a tile that an instruction works on."""

    tile: Tile
    rows: tuple[int, int]
    columns: tuple[int, int]

    def operand(self) -> Operand:
        """Describe it for the costs."""
        tile, high = self.tile, self.rows[1] - self.rows[0]
        wide = self.columns[1] - self.columns[0]
        run = wide * (high if tile.memory == HBM and wide == tile.columns else 1)
        return Operand(tile.memory, tile.dtype, ITEMSIZE[tile.dtype], high, wide, run)

    def region(self) -> Region:
        """Return the bytes that it covers."""
        size = ITEMSIZE[self.tile.dtype]
        pitch = self.tile.columns * size if self.tile.memory == HBM else 0
        low, high = self.columns
        return Region(self.tile.number, self.rows[0], self.rows[1], low * size, high * size, pitch)


class Kernel:
    """Record a kernel instruction by instruction, without an interpreter."""

    def __init__(self, target: str = "trn2") -> None:
        """Start an empty kernel."""
        self.recorder = Recorder(target)
        self.known: dict[Part, tuple[Operand, int]] = {}

    @property
    def trace(self) -> Trace:
        """Return what was recorded."""
        return self.recorder.trace

    def tile(self, memory: str, rows: int, columns: int, dtype: str = "bfloat16", name: str = "tile") -> Tile:
        """Make a tensor."""
        size = 0 if memory == HBM else columns * ITEMSIZE[dtype]
        return Tile(self.recorder.tensor(name, memory, size, 0), memory, dtype, rows, columns)

    def do(
        self, name: str, dst: Part, *srcs: Part, op: str = "", engine: str = "", also: Part | None = None
    ) -> None:
        """Record one instruction that writes a part, and `also` another, and reads the rest."""
        pairs = [self._pair(each) for each in srcs]
        operand, written = self._pair(dst)
        work = self.recorder.work(Work(name, engine, operand, tuple(each for each, _ in pairs), op))
        line = self.recorder.line("kernel.py", work + 1)
        more = (self._pair(also)[1],) if also else ()
        self.recorder.record((work, tuple(each for _, each in pairs), (written, *more), line))

    def _pair(self, part: Part) -> tuple[Operand, int]:
        found = self.known.get(part)
        if found is None:
            found = self.known[part] = part.operand(), self.recorder.region(part.region())
        return found

    def dma(self, dst: Part, src: Part, transpose: bool = False) -> None:
        """Record a DMA."""
        self.do("dma_transpose" if transpose else "dma_copy", dst, src, engine=DMA)

    def zero(self, dst: Part) -> None:
        """Record a memset of zeros."""
        self.do("memset", dst, op="zero")


def tiles(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each of a number of tiles of 128, and where it begins and ends."""
    for each in range(count):
        yield each, each * 128, each * 128 + 128
