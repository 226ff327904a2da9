"""The innermost block of a matrix product: a tile of C held in vector registers while K runs by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.kernels.c_source import host_registers, lanes


@dataclass(frozen=True)
class RegisterTile:
    """C source of one tile: `rows` x `vectors` accumulators, each fed by a broadcast of A and a vector of B.

    Args:
        rows: rows of C.
        vectors: vectors in a row of C.
        columns: columns of C that exist; fewer than `vectors` hold at the right edge.
        lhs_strides: (row, k) elements between neighbours of A as this tile reads it.
        rhs_stride: elements between a row of B and the next.
        out_strides: (row, column) of C.
        lanes: elements in a vector.
        unroll_k: steps of K written out in the loop's body.
        prefetch: steps of K that B is fetched ahead of its use; 0 leaves it to the hardware.
        row_scale: whether each row is multiplied by `scale[row]` before it is stored.
        name: the C function.
    """

    rows: int
    vectors: int
    columns: int
    lhs_strides: tuple[int, int]
    rhs_stride: int
    out_strides: tuple[int, int]
    lanes: int
    unroll_k: int
    prefetch: int = 0
    row_scale: bool = False
    name: str = "tile"

    def source(self) -> str:
        """Return the function: `name(a, b, c, depth, accumulate[, scale])`."""
        scale = ", const T *scale" if self.row_scale else ""
        grid = [(i, j) for i in range(self.rows) for j in range(self.vectors)]
        registers = ", ".join(f"c{i}_{j} = {{0}}" for i, j in grid)
        body = "".join(self._step(u) for u in range(self.unroll_k))
        lhs_step, rhs_step = self.lhs_strides[1], self.rhs_stride
        lines = [
            f"static void {self.name}(const T *restrict a, const T *restrict b, T *restrict c,",
            f"        ptrdiff_t depth, int accumulate{scale}) {{",
            f"    vec {registers};",
            "    ptrdiff_t k = 0;",
        ]
        if self.unroll_k > 1:
            lines += [
                f"    for (; k + {self.unroll_k} <= depth; k += {self.unroll_k}) {{",
                body + f"        a += {self.unroll_k * lhs_step}; b += {self.unroll_k * rhs_step};",
                "    }",
            ]
        lines += [
            "    for (; k < depth; k++) {",
            self._step(0) + f"        a += {lhs_step}; b += {rhs_step};",
            "    }",
        ]
        if self.row_scale:
            lines += [f"    c{i}_{j} *= scale[{i}];" for i, j in grid]
        return "\n".join([*lines, self._store(), "}", ""])

    def _step(self, u: int) -> str:
        """Return one step of K, `u` steps after where `a` and `b` point."""
        row_stride, k_stride = self.lhs_strides
        at = u * self.rhs_stride
        loads = [f"b{j} = *(const uvec *)(b + {at + j * self.lanes})" for j in range(self.vectors)]
        lines = [f"const vec {', '.join(loads)};"]
        if self.prefetch:
            ahead = at + self.prefetch * self.rhs_stride
            lines += [f"__builtin_prefetch(b + {ahead + j * self.lanes});" for j in range(self.vectors)]
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
    tile: RegisterTile, extent: tuple[int, int], fits: tuple[str, str], arguments: str
) -> tuple[str, str]:
    """Return C for a tile and its remainders at the edges, and the statement that calls the one that fits.

    Args:
        tile: the whole tile.
        extent: rows and columns of C.
        fits: C conditions: whether a whole tile's rows fit here, and its columns.
        arguments: what each tile is called with.
    """
    rows = [count for count in (tile.rows, extent[0] % tile.rows) if 0 < count <= extent[0]]
    columns = [count for count in (tile.columns, extent[1] % tile.columns) if 0 < count <= extent[1]]
    sources = []

    def call(i: int, j: int) -> str:
        name = f"tile_{rows[i]}x{columns[j]}"
        vectors = -(-columns[j] // tile.lanes)
        edge = replace(tile, name=name, rows=rows[i], vectors=vectors, columns=columns[j])
        sources.append(edge.source())
        return f"{name}({arguments});"

    def pick_rows(j: int) -> str:
        return call(0, j) if len(rows) == 1 else f"if ({fits[0]}) {call(0, j)} else {call(1, j)}"

    statement = pick_rows(0)
    if len(columns) == 2:
        statement = f"if ({fits[1]}) {{ {statement} }}\nelse {{ {pick_rows(1)} }}"
    return "\n".join(sources), statement


def register_tiles(rows: int, columns: int, dtype: str, vector_bytes: int) -> tuple[str, ...]:
    """Return the tiles ("rows x vectors") that fill the registers without spilling, one for each width.

    Rows are balanced: 129 in tiles of at most 14 become nine of 13 and one of 12. One vector a row is for
    products that have no more: every broadcast of A should serve more than one multiplication.
    """
    width = lanes(dtype, vector_bytes)
    widths = [vectors for vectors in (2, 3, 4) if (vectors - 1) * width < columns] or [1]
    tiles = []
    for vectors in widths:
        most = min(14, (host_registers() - 1 - vectors) // vectors)
        tiles.append(f"{-(-rows // -(-rows // most))}x{vectors}")
    return tuple(tiles)
