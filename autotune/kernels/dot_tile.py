"""The innermost block of a matrix product with few columns: a vector holds terms of one sum."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class DotTile:
    """C source of one tile: `rows` x `columns` sums, each a vector of partial sums.

    Both operands must be contiguous along K.

    Args:
        rows: rows of C.
        columns: columns of C.
        lhs_stride: elements between a row of A and the next, as this tile reads it.
        rhs_stride: elements between a column of B and the next.
        out_strides: (row, column) of C.
        name: the C function.
    """

    rows: int
    columns: int
    lhs_stride: int
    rhs_stride: int
    out_strides: tuple[int, int]
    name: str = "tile"

    def resized(self, rows: int, columns: int) -> DotTile:
        """Return a smaller tile for an edge of the matrix, with a name of its own."""
        return replace(self, rows=rows, columns=columns, name=f"tile_{rows}x{columns}")

    def source(self) -> str:
        """Return the function: `name(a, b, c, depth, accumulate)`."""
        grid = [(i, j) for i in range(self.rows) for j in range(self.columns)]
        loads = ", ".join(f"a{i} = *(const uvec *)(a + {i * self.lhs_stride} + k)" for i in range(self.rows))
        steps = []
        for j in range(self.columns):
            products = " ".join(f"s{i}_{j} += a{i} * y;" for i in range(self.rows))
            steps.append(
                f"        {{ const vec y = *(const uvec *)(b + {j * self.rhs_stride} + k); {products} }}"
            )
        row, column = self.out_strides
        lines = [
            f"static void {self.name}(const T *restrict a, const T *restrict b, T *restrict c,",
            "        ptrdiff_t depth, int accumulate) {",
            f"    vec {', '.join(f's{i}_{j} = {{0}}' for i, j in grid)};",
            "    ptrdiff_t k = 0;",
            "    for (; k + LANES <= depth; k += LANES) {",
            f"        const vec {loads};",
            *steps,
            "    }",
            f"    T sums[{len(grid)}] = {{{', '.join(f'total(s{i}_{j})' for i, j in grid)}}};",
            "    for (; k < depth; k++)",
            f"        for (ptrdiff_t i = 0; i < {self.rows}; i++)",
            f"            for (ptrdiff_t j = 0; j < {self.columns}; j++)",
            f"                sums[i * {self.columns} + j] +="
            f" a[i * {self.lhs_stride} + k] * b[j * {self.rhs_stride} + k];",
            f"    for (ptrdiff_t i = 0; i < {self.rows}; i++)",
            f"        for (ptrdiff_t j = 0; j < {self.columns}; j++) {{",
            f"            const T sum = sums[i * {self.columns} + j];",
            f"            T *cell = c + i * {row} + j * {column};",
            "            *cell = accumulate ? *cell + sum : sum;",
            "        }",
            "}",
            "",
        ]
        return "\n".join(lines)


TOTAL = """\
INLINE T total(vec v) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++) v[l] += v[l + width];
    return v[0];
}
"""
"""The C function that adds up a vector; `DotTile` calls it for each of its sums."""
