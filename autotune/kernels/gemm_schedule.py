"""A matrix product, the schedule by which a config computes it, and the block sizes that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.kernels.c_source import lanes, round_up
from autotune.model.kernel import Specs
from autotune.model.space import Config


@dataclass(frozen=True)
class Product:
    """The matrix product as extents and element strides: (m, k) of A, (k, n) of B, (m, n) of C."""

    m: int
    n: int
    k: int
    dtype: str
    lhs: tuple[int, int]
    rhs: tuple[int, int]
    out: tuple[int, int]

    def readable(self, operand: str, schedule: Schedule) -> bool:
        """Return whether vectors of an operand can be read in place, without reading past its end.

        At the right edge of B whole vectors are read from every row except the last. So the next row must
        begin at least a vector after the start of this one.
        """
        row, column = self.rhs
        if schedule.vector_axis == "K":
            return (row if operand == "rhs" else self.lhs[1]) == 1
        width = lanes(self.dtype, schedule.vector_bytes)
        return operand == "lhs" or (column == 1 and (self.n % width == 0 or row >= width))

    @classmethod
    def of(cls, inputs: Specs, outputs: Specs, lhs_transposed: bool) -> Product:
        """Make the product from its tensors; with `lhs_transposed` the first input is A transposed."""
        lhs, rhs = inputs
        rows, depth = lhs.element_strides
        if lhs_transposed:
            rows, depth = depth, rows
        k, n = rhs.shape
        m = outputs[0].shape[0]
        row, column = rhs.element_strides
        out_row, out_column = outputs[0].element_strides
        return cls(m, n, k, lhs.dtype, (rows, depth), (row, column), (out_row, out_column))


@dataclass(frozen=True)
class Schedule:
    """How a config computes a product; a parameter that a space does not have takes its default here.

    Args:
        NUM_BLOCK_M, NUM_BLOCK_N, NUM_BLOCK_K: cache blocks along each axis of one thread's share.
        loop_order: the block loops, outermost first.
        lhs_position, rhs_position: depth of the loop (0 is outermost) that packs the operand: the part that
            this loop and the enclosing loops have selected.
        pack_lhs, pack_rhs: False reads the operand in place, if vectors can be read there; its position is
            then always 2.
        vector_axis: what a vector holds: columns of C (N), or terms of one sum (K) if C has few columns.
        vector_bytes: width of a vector.
        register_tile: rows x vectors per row; if `vector_axis` is K, rows x columns.
        unroll_k: steps of K that the innermost loop is unrolled by.
        threads: how many threads share C, which is divided along its longer side.
    """

    NUM_BLOCK_M: int = 1
    NUM_BLOCK_N: int = 1
    NUM_BLOCK_K: int = 1
    loop_order: str = "NKM"
    lhs_position: int = 2
    rhs_position: int = 2
    pack_lhs: bool = True
    pack_rhs: bool = True
    vector_axis: str = "N"
    vector_bytes: int = 32
    register_tile: str = "6x2"
    unroll_k: int = 4
    threads: int = 1

    @classmethod
    def of(cls, config: Config) -> Schedule:
        """Read a config."""
        return replace(cls(), **dict(config))  # type: ignore[arg-type]

    @property
    def tile_shape(self) -> tuple[int, int]:
        """The register tile's rows, and its vectors or columns."""
        rows, across = map(int, self.register_tile.split("x"))
        return rows, across


@dataclass(frozen=True)
class Blocking:
    """Sizes in elements that follow from product and schedule; a block is a multiple of a register tile."""

    product: Product
    schedule: Schedule

    @property
    def tile_m(self) -> int:
        return self.schedule.tile_shape[0]

    @property
    def tile_n(self) -> int:
        across = self.schedule.tile_shape[1]
        return across if self.schedule.vector_axis == "K" else across * self.lanes

    @property
    def lanes(self) -> int:
        """Elements in a vector."""
        return lanes(self.product.dtype, self.schedule.vector_bytes)

    @property
    def shares_rows(self) -> bool:
        """Whether threads divide the rows of C; if not, they divide its columns."""
        return -(-self.product.m // self.tile_m) >= -(-self.product.n // self.tile_n)

    def share(self, axis: str) -> int:
        """Return how many elements of an axis one thread has."""
        extent = {"M": self.product.m, "N": self.product.n, "K": self.product.k}[axis]
        if axis == ("M" if self.shares_rows else "N"):
            tile = self.tile_m if axis == "M" else self.tile_n
            return round_up(-(-extent // self.schedule.threads), tile)
        return extent

    def block(self, axis: str) -> int:
        """Return how many elements of an axis a cache block has."""
        tile = {"M": self.tile_m, "N": self.tile_n, "K": 1}[axis]
        return round_up(-(-self.share(axis) // self.count(axis)), tile)

    def count(self, axis: str) -> int:
        """Return how many blocks the config asks for."""
        return int(getattr(self.schedule, f"NUM_BLOCK_{axis}"))

    @property
    def sensible(self) -> bool:
        """Whether no block that the config asks for is empty, and every thread has a share."""
        blocks = all(-(-self.share(axis) // self.block(axis)) == self.count(axis) for axis in "MNK")
        axis, extent = ("M", self.product.m) if self.shares_rows else ("N", self.product.n)
        return blocks and -(-extent // self.share(axis)) == self.schedule.threads
