"""C source that gives an operand of a matrix product to the register tile, packed or in place."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.kernels.c_source import indent, offset, round_up
from autotune.kernels.gemm_schedule import Blocking


@dataclass(frozen=True)
class Operand:
    """One input of the product: which part of it is packed at a time, and the layout of the packed part."""

    name: str
    blocking: Blocking

    @property
    def axis(self) -> str:
        """The axis of C that the operand shares."""
        return "M" if self.name == "lhs" else "N"

    @property
    def base(self) -> str:
        """The C variable of that axis's block loop."""
        return self.axis.lower()

    @property
    def stride(self) -> int:
        """Elements between neighbours along that axis."""
        return self.blocking.product.lhs[0] if self.name == "lhs" else self.blocking.product.rhs[1]

    @property
    def k_stride(self) -> int:
        """Elements between neighbours along K."""
        return self.blocking.product.lhs[1] if self.name == "lhs" else self.blocking.product.rhs[0]

    @property
    def tile(self) -> int:
        """Extent of the register tile along that axis."""
        return self.blocking.tile_m if self.name == "lhs" else self.blocking.tile_n

    @property
    def packed(self) -> bool:
        """Whether it is packed: if the config asks for it, or if vectors cannot be read in place."""
        schedule = self.blocking.schedule
        wanted = schedule.pack_lhs if self.name == "lhs" else schedule.pack_rhs
        return wanted or not self.blocking.product.readable(self.name, schedule)

    @property
    def row_layout(self) -> bool:
        """Whether a panel is contiguous along K; if not, the elements of each k are contiguous."""
        if self.blocking.schedule.vector_axis == "K":
            return True
        return self.name == "lhs" and self.stride != 1

    @property
    def position(self) -> int:
        """Depth of the loop in whose body it is packed."""
        schedule = self.blocking.schedule
        return schedule.lhs_position if self.name == "lhs" else schedule.rhs_position

    def _inside(self, axis: str) -> bool:
        return self.blocking.schedule.loop_order.index(axis) <= self.position

    @property
    def line(self) -> int:
        """Elements between rows of a panel in row layout; padding puts rows into different cache sets."""
        return round_up(self.blocking.block("K"), 16) + 16

    @property
    def panel(self) -> int:
        """Elements of one packed panel, which is as wide as a tile and as deep as a block."""
        return self.tile * (self.line if self.row_layout else self.blocking.block("K"))

    @property
    def panels(self) -> int:
        """How many panels are packed at a time, side by side."""
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
        """Return `pack_<name>(to, from, extent, depth)`: which fills panels (padded in column layout)."""
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
        """Return the statements that pack the part that the enclosing loops have selected."""
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

    def buffer_declaration(self) -> str:
        """Return the buffers, one for each thread."""
        return (
            f"static T {self.name}_packs[{self.blocking.schedule.threads}][{round_up(self.buffer, 64)}] "
            "__attribute__((aligned(4096)));"
        )

    def pointer(self, at: str) -> str:
        """Return the address at which the tile at index `at` and block `k` reads, as C."""
        if not self.packed:
            return f"{self.name} + {offset((at, self.stride), ('k', self.k_stride))}"
        origin = self.base if self._inside(self.axis) else f"{self.base}_low"
        k_part = (
            "" if self._inside("K") else f" + k / {self.blocking.block('K')} * {self.panel * self.panels}"
        )
        return f"{self.name}_pack + ({at} - {origin}) / {self.tile} * {self.panel}{k_part}"
