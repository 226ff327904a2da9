"""C source of C = A B: three loops over cache blocks, packing in their bodies, a register tile inside."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.kernel import Specs
from autotune.kernels.c_source import entry_point, indent, lanes, offset, prelude, round_up
from autotune.kernels.register_tile import RegisterTile, with_edges
from autotune.space import Config

ENTRY = "gemm"


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

    @classmethod
    def of(cls, inputs: Specs, outputs: Specs, lhs_transposed: bool) -> Product:
        """Read the product off its tensors; `lhs_transposed` says that the first input is A transposed."""
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
    """How a config computes a product; a parameter that a space leaves out has the value given here.

    Args:
        NUM_BLOCK_M, NUM_BLOCK_N, NUM_BLOCK_K: cache blocks along each axis of one thread's share.
        loop_order: the block loops, outermost first.
        lhs_position, rhs_position: depth of the loop (0 outermost) in whose body the operand is packed:
            all of it that this loop and those around it leave open.
        pack_lhs, pack_rhs: False reads the operand where it lies; its position is then always 2.
        vector_bytes: width of a vector.
        register_tile: rows x vectors per row.
        unroll_k: steps of K written out in the innermost loop.
        prefetch: steps of K that B is fetched ahead.
        threads: shares, cut along the longer side of C.
    """

    NUM_BLOCK_M: int = 1
    NUM_BLOCK_N: int = 1
    NUM_BLOCK_K: int = 1
    loop_order: str = "NKM"
    lhs_position: int = 2
    rhs_position: int = 2
    pack_lhs: bool = True
    pack_rhs: bool = True
    vector_bytes: int = 32
    register_tile: str = "6x2"
    unroll_k: int = 4
    prefetch: int = 0
    threads: int = 1

    @classmethod
    def of(cls, config: Config) -> Schedule:
        """Read a config."""
        return replace(cls(), **dict(config))  # type: ignore[arg-type]

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Return the register tile's rows and vectors."""
        rows, vectors = map(int, self.register_tile.split("x"))
        return rows, vectors


@dataclass(frozen=True)
class Blocking:
    """Extents that follow from a product and a schedule, in elements; blocks are whole register tiles."""

    product: Product
    schedule: Schedule

    @property
    def tile_m(self) -> int:
        return self.schedule.tile_shape[0]

    @property
    def tile_n(self) -> int:
        return self.schedule.tile_shape[1] * lanes(self.product.dtype, self.schedule.vector_bytes)

    @property
    def shares_rows(self) -> bool:
        """Whether threads share out rows of C rather than columns."""
        return -(-self.product.m // self.tile_m) >= -(-self.product.n // self.tile_n)

    def share(self, axis: str) -> int:
        """Return what one thread has of an axis."""
        extent = {"M": self.product.m, "N": self.product.n, "K": self.product.k}[axis]
        if axis == ("M" if self.shares_rows else "N"):
            tile = self.tile_m if axis == "M" else self.tile_n
            return round_up(-(-extent // self.schedule.threads), tile)
        return extent

    def block(self, axis: str) -> int:
        """Return the extent of a cache block."""
        tile = {"M": self.tile_m, "N": self.tile_n, "K": 1}[axis]
        return round_up(-(-self.share(axis) // self.count(axis)), tile)

    def count(self, axis: str) -> int:
        """Return how many blocks the config asks for."""
        return int(getattr(self.schedule, f"NUM_BLOCK_{axis}"))

    @property
    def sensible(self) -> bool:
        """Whether every block that the config asks for has something in it, and every thread a share."""
        blocks = all(-(-self.share(axis) // self.block(axis)) == self.count(axis) for axis in "MNK")
        axis, extent = ("M", self.product.m) if self.shares_rows else ("N", self.product.n)
        return blocks and -(-extent // self.share(axis)) == self.schedule.threads


@dataclass(frozen=True)
class Operand:
    """One input on its way to the register tile: which part is packed at a time, and how it lies there."""

    name: str
    axis: str
    base: str
    stride: int
    k_stride: int
    tile: int
    packed: bool
    row_layout: bool
    position: int
    blocking: Blocking

    def _inside(self, axis: str) -> bool:
        return self.blocking.schedule.loop_order.index(axis) <= self.position

    @property
    def line(self) -> int:
        """Elements between rows of a panel in row layout: padded, so that rows fall in different sets."""
        return round_up(self.blocking.block("K"), 16) + 16

    @property
    def panel(self) -> int:
        """Elements of one packed panel: a tile's width, a block's depth."""
        return self.tile * (self.line if self.row_layout else self.blocking.block("K"))

    @property
    def panels(self) -> int:
        """Panels side by side in what is packed at a time."""
        extent = self.blocking.block(self.axis) if self._inside(self.axis) else self.blocking.share(self.axis)
        return -(-extent // self.tile)

    @property
    def buffer(self) -> int:
        """Elements of the buffer of one thread."""
        return self.panel * self.panels * (1 if self._inside("K") else self.blocking.count("K"))

    @property
    def strides(self) -> tuple[int, int]:
        """Strides (along the tile, along K) with which the register tile reads."""
        if not self.packed:
            return self.stride, self.k_stride
        return (self.line, 1) if self.row_layout else (1, self.tile)

    def pack_function(self) -> str:
        """Return `pack_<name>(to, from, extent, depth)`: panels, with zeros past a column layout's edge."""
        element = "from[(at + i) * STRIDE + k * K_STRIDE]"
        if self.row_layout:
            copy = "memcpy(to + i * LINE, from + (at + i) * STRIDE, depth * sizeof(T));"
            if self.k_stride != 1:
                copy = f"for (ptrdiff_t k = 0; k < depth; k++) to[i * LINE + k] = {element};"
            body = f"for (ptrdiff_t i = 0; i < MIN(TILE, extent - at); i++)\n    {copy}"
        else:
            columns = "for (ptrdiff_t i = 0; i < TILE; i++) to[k * TILE + i] ="
            body = (
                "if (at + TILE <= extent)\n"
                f"    for (ptrdiff_t k = 0; k < depth; k++)\n        {columns} {element};\n"
                "else\n"
                "    for (ptrdiff_t k = 0; k < depth; k++)\n"
                f"        {columns} at + i < extent ? {element} : 0;"
            )
        names = {"TILE": self.tile, "STRIDE": self.stride, "K_STRIDE": self.k_stride, "LINE": self.line}
        return (
            f"static void pack_{self.name}(T *restrict to, const T *restrict from,\n"
            "        ptrdiff_t extent, ptrdiff_t depth) {\n"
            f"    enum {{ {', '.join(f'{name} = {value}' for name, value in names.items())} }};\n"
            f"    for (ptrdiff_t at = 0; at < extent; at += TILE, to += {self.panel}) {{\n"
            f"{indent(body, 2)}\n    }}\n}}\n"
        )

    def pack_call(self) -> str:
        """Return the statements that pack all that the loops around leave open."""
        low, high = f"{self.base}_low", f"{self.base}_high"
        if self._inside(self.axis):
            low, high = self.base, f"MIN({self.base} + {self.blocking.block(self.axis)}, {high})"
        source = offset((low, self.stride), ("k", self.k_stride))
        depth = f"MIN({self.blocking.block('K')}, {self.blocking.product.k} - k)"
        call = f"pack_{self.name}({self.name}_pack + %s, {self.name} + {source}, {high} - ({low}), {depth});"
        if self._inside("K"):
            return call % "0"
        step = self.panel * self.panels
        block = self.blocking.block("K")
        return (
            f"for (ptrdiff_t k = 0; k < {self.blocking.product.k}; k += {block})\n"
            f"    {call % f'k / {block} * {step}'}"
        )

    def pointer(self, at: str) -> str:
        """Return the expression for where the tile at index `at` and block `k` reads."""
        if not self.packed:
            return f"{self.name} + {offset((at, self.stride), ('k', self.k_stride))}"
        origin = self.base if self._inside(self.axis) else f"{self.base}_low"
        k_part = (
            "" if self._inside("K") else f" + k / {self.blocking.block('K')} * {self.panel * self.panels}"
        )
        return f"{self.name}_pack + ({at} - {origin}) / {self.tile} * {self.panel}{k_part}"


def source(config: Config, inputs: Specs, outputs: Specs, lhs_transposed: bool) -> str:
    """Return the C source of one candidate."""
    product = Product.of(inputs, outputs, lhs_transposed)
    blocking = Blocking(product, Schedule.of(config))
    schedule = blocking.schedule
    lhs = Operand(
        "lhs",
        "M",
        "m",
        *product.lhs,
        blocking.tile_m,
        schedule.pack_lhs,
        product.lhs[0] != 1,
        schedule.lhs_position,
        blocking,
    )
    rhs = Operand(
        "rhs",
        "N",
        "n",
        product.rhs[1],
        product.rhs[0],
        blocking.tile_n,
        schedule.pack_rhs,
        False,
        schedule.rhs_position,
        blocking,
    )
    tiles, dispatch = _tiles(blocking, lhs, rhs)
    packed = [operand for operand in (lhs, rhs) if operand.packed]
    buffers = [
        f"static T {operand.name}_packs[{schedule.threads}][{round_up(operand.buffer, 64)}] "
        "__attribute__((aligned(4096)));"
        for operand in packed
    ]
    return "\n".join(
        [
            prelude(product.dtype, schedule.vector_bytes),
            tiles,
            *(operand.pack_function() for operand in packed),
            *buffers,
            "",
            _share(blocking, lhs, rhs, dispatch),
            entry_point(ENTRY, ["lhs", "rhs"], ["out"], schedule.threads),
        ]
    )


def _tiles(blocking: Blocking, lhs: Operand, rhs: Operand) -> tuple[str, str]:
    """Return the register tiles that this product needs, and the statement that calls the right one."""
    product, schedule = blocking.product, blocking.schedule
    tile = RegisterTile(
        rows=blocking.tile_m,
        vectors=schedule.tile_shape[1],
        columns=blocking.tile_n,
        lhs_strides=lhs.strides,
        rhs_stride=rhs.strides[1],
        out_strides=product.out,
        lanes=lanes(product.dtype, schedule.vector_bytes),
        unroll_k=schedule.unroll_k,
        prefetch=schedule.prefetch,
    )
    fits = (f"i + {blocking.tile_m} <= {product.m}", f"j + {blocking.tile_n} <= {product.n}")
    depth = f"MIN({blocking.block('K')}, {product.k} - k)"
    return with_edges(tile, (product.m, product.n), fits, f"a, b, c, {depth}, k > 0")


def _share(blocking: Blocking, lhs: Operand, rhs: Operand, dispatch: str) -> str:
    """Return the function that computes one thread's share: the three block loops."""
    product, schedule = blocking.product, blocking.schedule
    bounds = {"M": ("m_low", "m_high"), "N": ("n_low", "n_high"), "K": ("0", str(product.k))}
    shared = "M" if blocking.shares_rows else "N"
    low = f"thread * {blocking.share(shared)}"
    limits = {"M": ("0", str(product.m)), "N": ("0", str(product.n))}
    limits[shared] = (low, f"MIN({low} + {blocking.share(shared)}, {limits[shared][1]})")
    body = (
        f"for (ptrdiff_t j = n; j < MIN(n + {blocking.block('N')}, n_high); j += {blocking.tile_n})\n"
        f"    for (ptrdiff_t i = m; i < MIN(m + {blocking.block('M')}, m_high); i += {blocking.tile_m}) {{\n"
        f"        const T *a = {lhs.pointer('i')}, *b = {rhs.pointer('j')};\n"
        f"        T *c = out + {offset(('i', product.out[0]), ('j', product.out[1]))};\n"
        f"{indent(dispatch, 2)}\n"
        "    }"
    )
    for depth in (2, 1, 0):
        axis = schedule.loop_order[depth]
        packs = [
            operand.pack_call() for operand in (lhs, rhs) if operand.packed and operand.position == depth
        ]
        index, (first, last) = axis.lower(), bounds[axis]
        loop = f"for (ptrdiff_t {index} = {first}; {index} < {last}; {index} += {blocking.block(axis)}) {{"
        body = "\n".join([loop, indent("\n".join([*packs, body]), 1), "}"])
    packs = [f"    T *{o.name}_pack = {o.name}_packs[thread];" for o in (lhs, rhs) if o.packed]
    lines = [
        "static void share(ptrdiff_t thread, const T *lhs, const T *rhs, T *out) {",
        f"    const ptrdiff_t m_low = {limits['M'][0]}, m_high = {limits['M'][1]};",
        f"    const ptrdiff_t n_low = {limits['N'][0]}, n_high = {limits['N'][1]};",
        *packs,
        indent(body, 1),
        "}",
        "",
    ]
    return "\n".join(lines)
