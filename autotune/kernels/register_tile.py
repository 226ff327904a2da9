"""The innermost block of a matrix product: a tile of C that stays in vector registers for the loop over K."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.kernels.c_source import host_registers, lanes
from autotune.kernels.dot_tile import DotTile


@dataclass(frozen=True)
class RegisterTile:
    """C source of one tile: accumulators to which products of A's elements and vectors of B are added.

    Args:
        rows: rows of C.
        columns: columns of C; if they do not fill the last vector, only those columns of it are stored.
        lhs_strides: (row, k) elements between neighbours of A as this tile reads it.
        rhs_stride: elements between a row of B and the next.
        out_strides: (row, column) of C.
        lanes: elements in a vector.
        unroll_k: steps of K written out in the loop's body.
        row_scale: whether each row is multiplied by `scale[row]` before it is stored.
        padded: whether whole vectors may be read in every row of B. If not, the last row is copied first at
            the right edge. In other rows reading past the end is harmless, since another row follows.
        name: the C function.
    """

    rows: int
    columns: int
    lhs_strides: tuple[int, int]
    rhs_stride: int
    out_strides: tuple[int, int]
    lanes: int
    unroll_k: int
    row_scale: bool = False
    padded: bool = True
    name: str = "tile"

    @property
    def vectors(self) -> int:
        """Vectors in a row of C."""
        return -(-self.columns // self.lanes)

    def resized(self, rows: int, columns: int) -> RegisterTile:
        """Return a smaller tile for an edge of the matrix, with a name of its own."""
        return replace(self, rows=rows, columns=columns, name=f"tile_{rows}x{columns}")

    def source(self) -> str:
        """Return the function: `name(a, b, c, depth, accumulate[, scale])`."""
        scale = ", const T *scale" if self.row_scale else ""
        grid = [(i, j) for i in range(self.rows) for j in range(self.vectors)]
        registers = ", ".join(f"c{i}_{j} = {{0}}" for i, j in grid)
        body = "".join(self._step(u) for u in range(self.unroll_k))
        depth = "depth" if self.padded or self.columns == self.vectors * self.lanes else "depth - 1"
        lhs_step, rhs_step = self.lhs_strides[1], self.rhs_stride
        lines = [
            f"static void {self.name}(const T *restrict a, const T *restrict b, T *restrict c,",
            f"        ptrdiff_t depth, int accumulate{scale}) {{",
            f"    vec {registers};",
            "    ptrdiff_t k = 0;",
        ]
        if self.unroll_k > 1:
            lines += [
                f"    for (; k + {self.unroll_k} <= {depth}; k += {self.unroll_k}) {{",
                body + f"        a += {self.unroll_k * lhs_step}; b += {self.unroll_k * rhs_step};",
                "    }",
            ]
        lines += [
            f"    for (; k < {depth}; k++) {{",
            self._step(0) + f"        a += {lhs_step}; b += {rhs_step};",
            "    }",
        ]
        if depth != "depth":
            width = self.vectors * self.lanes
            lines += [
                f"    T last[{width}] __attribute__((aligned(64))) = {{0}};",
                f"    memcpy(last, b, {self.columns} * sizeof(T));",
                "    b = last;",
                self._step(0),
            ]
        if self.row_scale:
            lines += [f"    c{i}_{j} *= scale[{i}];" for i, j in grid]
        return "\n".join([*lines, self._store(), "}", ""])

    def _step(self, u: int) -> str:
        """Return one step of K, `u` steps after the pointers `a` and `b`."""
        row_stride, k_stride = self.lhs_strides
        at = u * self.rhs_stride
        loads = [f"b{j} = *(const uvec *)(b + {at + j * self.lanes})" for j in range(self.vectors)]
        lines = [f"const vec {', '.join(loads)};"]
        for i in range(self.rows):
            products = " ".join(f"c{i}_{j} += x * b{j};" for j in range(self.vectors))
            lines.append(f"{{ const T x = a[{i * row_stride + u * k_stride}]; {products} }}")
        return "        {\n" + "".join(f"            {line}\n" for line in lines) + "        }\n"

    def _store(self) -> str:
        row_stride, column_stride = self.out_strides
        whole = self.columns == self.vectors * self.lanes and column_stride == 1
        if whole:
            cells = [
                (f"*(uvec *)(c + {i * row_stride + j * self.lanes})", f"c{i}_{j}")
                for i in range(self.rows)
                for j in range(self.vectors)
            ]
            added = " ".join(f"{cell} += {value};" for cell, value in cells)
            stored = " ".join(f"{cell} = {value};" for cell, value in cells)
            return f"    if (accumulate) {{ {added} }}\n    else {{ {stored} }}"
        lines = [f"    T row[{self.vectors * self.lanes}] __attribute__((aligned(64)));"]
        target = f"c[j * {column_stride}]"
        for i in range(self.rows):
            lines += [f"    *(vec *)(row + {j * self.lanes}) = c{i}_{j};" for j in range(self.vectors)]
            loop = f"for (int j = 0; j < {self.columns}; j++)"
            lines.append(f"    if (accumulate) {loop} {target} += row[j];")
            lines.append(f"    else {loop} {target} = row[j];")
            lines.append(f"    c += {row_stride};")
        return "\n".join(lines)


def with_edges(
    tile: RegisterTile | DotTile, extent: tuple[int, int], fits: tuple[str, str], arguments: str
) -> tuple[str, str]:
    """Return C for a tile and the smaller ones at the edges, and the statement that calls the one that fits.

    Args:
        tile: the whole tile.
        extent: rows and columns of C.
        fits: C conditions: whether a whole tile's rows fit here, and its columns.
        arguments: of the call, as C.
    """
    rows = [count for count in (tile.rows, extent[0] % tile.rows) if 0 < count <= extent[0]]
    columns = [count for count in (tile.columns, extent[1] % tile.columns) if 0 < count <= extent[1]]
    sources = []

    def call(i: int, j: int) -> str:
        edge = tile.resized(rows[i], columns[j])
        sources.append(edge.source())
        return f"{edge.name}({arguments});"

    def pick_rows(j: int) -> str:
        return call(0, j) if len(rows) == 1 else f"if ({fits[0]}) {call(0, j)} else {call(1, j)}"

    statement = pick_rows(0)
    if len(columns) == 2:
        statement = f"if ({fits[1]}) {{ {statement} }}\nelse {{ {pick_rows(1)} }}"
    return "\n".join(sources), statement


def register_tiles(rows: int, columns: int, dtype: str, vector_bytes: int) -> tuple[str, ...]:
    """Return the tiles ("rows x vectors") that fill the registers without spilling, one for each width.

    Rows are balanced: 129 rows in tiles of at most 14 become nine tiles of 13 and one of 12. Only a matrix
    with fewer than 6 rows gets tiles of fewer than 6, because each load should serve many products. For the
    same reason only a narrow matrix gets tiles of one vector.
    """
    width = lanes(dtype, vector_bytes)
    most = {vectors: min(14, (host_registers() - 1 - vectors) // vectors) for vectors in (2, 3, 4, 6, 8, 14)}
    widths = [v for v in most if (v - 1) * width < columns and min(rows, 6) <= most[v]] or [1]
    return tuple(f"{-(-rows // -(-rows // most.get(v, 14)))}x{v}" for v in widths)


def dot_tiles(rows: int, columns: int) -> tuple[str, ...]:
    """Return the tiles ("rows x columns") of sums along K that fill the registers, and half of them."""
    across = min(columns, 8)
    most = min(rows, 8, (host_registers() - 2) // (across + 1))
    return tuple(f"{count}x{across}" for count in sorted({most, -(-most // 2)}))
