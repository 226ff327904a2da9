"""Transpose of a matrix: blocks for the cache, vector shuffles for a tile; in place if it is square."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels.c_source import (
    ITEM_BYTES,
    host_vector_bytes,
    indent,
    lanes,
    prelude,
    require_c_types,
    round_up,
)
from autotune.kernels.c_threads import entry_point
from autotune.kernels.narrow import total_bytes
from autotune.kernels.nki_text import candidate
from autotune.machine.cpu import usable_cores
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace

ENTRY = "transpose"
IN_PLACE_ENTRY = "transpose_in_place"
"""A candidate of the method `in_place` exports this too: `void transpose_in_place(T *square)`."""

_SHUFFLE = """\
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (index_vec){__VA_ARGS__})
#endif
"""

_BLOCKS = """\
enum {{ IN_ROW = {in_row}, IN_COLUMN = {in_column}, OUT_ROW = {out_row}, OUT_COLUMN = {out_column} }};
enum {{ BLOCK_ROWS = {block_rows}, BLOCK_COLUMNS = {block_columns} }};

static void block(const T *in, T *out, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1) {{
{inner}
            tile(in + i * IN_ROW + j * IN_COLUMN, out + j * OUT_ROW + i * OUT_COLUMN);
}}

{edge}
static void share(ptrdiff_t thread, const T *in, T *out) {{
    const ptrdiff_t first = {tiles} * thread / {threads} * TILE;
    const ptrdiff_t last = {tiles} * (thread + 1) / {threads} * TILE;
{outer}
            block(in, out, i, MIN(i + BLOCK_ROWS, last), j, MIN(j + BLOCK_COLUMNS, {whole_columns}));
{edges}}}
"""

_EDGE = """\
static void edge(const T *in, T *out, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1) {
    for (ptrdiff_t j = j0; j < j1; j++)
        for (ptrdiff_t i = i0; i < i1; i++)
            out[j * OUT_ROW + i * OUT_COLUMN] = in[i * IN_ROW + j * IN_COLUMN];
}
"""

_TILE_LOOPS = {
    "rows": ("for (ptrdiff_t i = i0; i < i1; i += TILE)", "for (ptrdiff_t j = j0; j < j1; j += TILE)"),
    "columns": (
        "for (ptrdiff_t j = j0; j < j1; j += TILE)",
        "for (ptrdiff_t i = i0; i < i1; i += TILE)",
    ),
}
_BLOCK_LOOPS = {
    "rows": (
        "for (ptrdiff_t i = first; i < last; i += BLOCK_ROWS)",
        "for (ptrdiff_t j = 0; j < {columns}; j += BLOCK_COLUMNS)",
    ),
    "columns": (
        "for (ptrdiff_t j = 0; j < {columns}; j += BLOCK_COLUMNS)",
        "for (ptrdiff_t i = first; i < last; i += BLOCK_ROWS)",
    ),
}

_IN_PLACE = """\
enum {{ SIDE = {side}, BLOCK = {block} }};

/* Exchange the tile at (i, j) with that at (j, i), both transposed; on the diagonal they are one. */
INLINE void exchange(T *square, ptrdiff_t i, ptrdiff_t j) {{
    T *upper = square + i * SIDE + j, *lower = square + j * SIDE + i;
    T kept[TILE * TILE] __attribute__((aligned(64)));
    transpose_tile(upper, SIDE, kept, TILE);
    if (i != j) transpose_tile(lower, SIDE, upper, SIDE);
    for (int u = 0; u < TILE; u++) memcpy(lower + u * SIDE, kept + u * TILE, sizeof(T) * TILE);
}}

static void exchange_blocks(T *square, ptrdiff_t i0, ptrdiff_t j0) {{
    for (ptrdiff_t i = i0; i + TILE <= MIN(i0 + BLOCK, SIDE); i += TILE)
        for (ptrdiff_t j = i0 == j0 ? i : j0; j + TILE <= MIN(j0 + BLOCK, SIDE); j += TILE)
            exchange(square, i, j);
}}

void transpose_in_place(T *square) {{
    for (ptrdiff_t i = 0; i < SIDE; i += BLOCK)
        for (ptrdiff_t j = i; j < SIDE; j += BLOCK) exchange_blocks(square, i, j);
    for (ptrdiff_t j = SIDE / TILE * TILE; j < SIDE; j++)
        for (ptrdiff_t i = 0; i < j; i++) {{
            const T kept = square[i * SIDE + j];
            square[i * SIDE + j] = square[j * SIDE + i];
            square[j * SIDE + i] = kept;
        }}
}}

static void share(ptrdiff_t thread, const T *in, T *out) {{
    if (thread != 0) return;
    for (ptrdiff_t i = 0; i < SIDE; i++) memcpy(out + i * SIDE, in + i * SIDE, sizeof(T) * SIDE);
    transpose_in_place(out);
}}
"""


Shuffle = tuple[int, int, int, list[int]]
"""A row, the two rows that it is made from, and the indices of their elements, as if both were one row."""


def _interleave(width: int, piece: int) -> list[Shuffle]:
    """Return a round that interleaves the elements of rows i and i + piece/2 into rows 2i and 2i + 1.

    Elements stay within their piece of 16 bytes, because AVX is slower if they cross pieces.
    """
    half = piece // 2
    return [
        (
            group + 2 * i + part,
            group + i,
            group + i + half,
            [
                start + element + row * width
                for start in range(0, width, piece)
                for element in range(part * half, (part + 1) * half)
                for row in (0, 1)
            ],
        )
        for group in range(0, width, piece)
        for i in range(half)
        for part in (0, 1)
    ]


def _exchange(width: int, distance: int) -> list[Shuffle]:
    """Return a round that swaps runs of `distance` elements between rows that are `distance` apart."""
    kept = [e if not e & distance else e - distance + width for e in range(width)]
    others = [e + distance if not e & distance else e + width for e in range(width)]
    lows = [row for row in range(width) if not row & distance]
    return [
        shuffle
        for low in lows
        for shuffle in ((low, low, low + distance, kept), (low + distance, low, low + distance, others))
    ]


def _tile_function(dtype: str, vector_bytes: int) -> str:
    """Return `transpose_tile(in, in_row, out, out_row)`: lanes x lanes elements in log2(lanes) rounds.

    The first rounds transpose squares within the 16-byte pieces of vectors, the others exchange the pieces.
    """
    width, piece = lanes(dtype, vector_bytes), lanes(dtype, 16)
    rounds = [_interleave(width, piece)] * (piece.bit_length() - 1)
    rounds += [_exchange(width, piece << step) for step in range((width // piece).bit_length() - 1)]
    lines = [f"const vec r0_{i} = *(const uvec *)(in + {i} * in_row);" for i in range(width)]
    for step, shuffles in enumerate(rounds):
        for row, first, second, elements in shuffles:
            picked = ", ".join(map(str, elements))
            pair = f"r{step}_{first}, r{step}_{second}"
            lines.append(f"const vec r{step + 1}_{row} = SHUFFLE({pair}, {picked});")
    lines += [f"*(uvec *)(out + {i} * out_row) = r{len(rounds)}_{i};" for i in range(width)]
    integer = "int32_t" if ITEM_BYTES[dtype] == 4 else "int64_t"
    return (
        f"{_SHUFFLE}typedef {integer} index_vec __attribute__((vector_size({vector_bytes})));\n"
        "enum { TILE = LANES };\n\n"
        "INLINE void transpose_tile(const T *in, ptrdiff_t in_row, T *out, ptrdiff_t out_row) {\n"
        + indent("\n".join(lines), 1)
        + "\n}\n"
    )


_PLAIN_TILE = """\
enum { TILE = LANES };

INLINE void tile(const T *in, T *out) {
    for (ptrdiff_t j = 0; j < TILE; j++)
        for (ptrdiff_t i = 0; i < TILE; i++) out[j * %d + i * %d] = in[i * %d + j * %d];
}
"""


def source(config: Config, inputs: Specs, outputs: Specs) -> str:
    """Return the C source of one candidate; shuffles need contiguous rows in both matrices."""
    x, y = inputs[0], outputs[0]
    (in_row, in_column), (out_row, out_column) = x.element_strides, y.element_strides
    parts = [prelude(x.dtype, int(config["vector_bytes"]))]
    if config["method"] != "plain" and in_column == out_column == 1:
        parts.append(_tile_function(x.dtype, int(config["vector_bytes"])))
        parts.append(f"#define tile(in, out) transpose_tile(in, {in_row}, out, {out_row})\n")
    else:
        parts.append(_PLAIN_TILE % (out_row, out_column, in_row, in_column))
    if config["method"] == "in_place":
        parts.append(_IN_PLACE.format(side=x.shape[0], block=config["block_rows"]))
    else:
        strides = {"in_row": in_row, "in_column": in_column, "out_row": out_row, "out_column": out_column}
        parts.append(_out_of_place(config, x, strides))
    return "\n".join([*parts, entry_point(ENTRY, ["in"], ["out"], int(config["threads"]))])


def _out_of_place(config: Config, x: TensorSpec, strides: Mapping[str, int]) -> str:
    """Return the loops over blocks and tiles, and those over the rest at the right and at the bottom."""
    rows, columns = x.shape
    width, threads = lanes(x.dtype, int(config["vector_bytes"])), int(config["threads"])
    whole_rows, whole_columns = rows // width * width, columns // width * width
    edges = []
    if whole_columns < columns:
        edges.append(f"edge(in, out, first, last, {whole_columns}, {columns});")
    if whole_rows < rows:
        edges.append(f"if (thread == {threads - 1}) edge(in, out, {whole_rows}, {rows}, 0, {columns});")
    outer, inner = (
        _nest(loops[str(config[name])]) for name, loops in (("outer", _BLOCK_LOOPS), ("inner", _TILE_LOOPS))
    )
    return _BLOCKS.format(
        **strides,
        block_rows=round_up(int(config["block_rows"]), width),
        block_columns=round_up(int(config["block_columns"]), width),
        tiles=rows // width,
        threads=threads,
        whole_columns=whole_columns,
        outer=outer.format(columns=whole_columns),
        inner=inner,
        edge=_EDGE if edges else "",
        edges="".join(f"    {call}\n" for call in edges),
    )


def _nest(loops: tuple[str, str]) -> str:
    return f"    {loops[0]}\n        {loops[1]}"


def numpy_source(config: Config, inputs: Specs, outputs: Specs) -> str:  # noqa: ARG001
    """Return Python text that defines `transpose(x, y)`, block by block."""
    rows, columns = inputs[0].shape
    return f"""\
def {ENTRY}(x, y):
    for i in range(0, {rows}, {config["block_rows"]}):
        for j in range(0, {columns}, {config["block_columns"]}):
            rows, columns = slice(i, i + {config["block_rows"]}), slice(j, j + {config["block_columns"]})
            y[columns, rows] = x[rows, columns].T
"""


def inputs(rows: int, columns: int, *, dtype: str = "float32", seed: int = 0) -> Inputs:
    """Return the tensor of one workload."""
    return Inputs((TensorSpec("x", (rows, columns), dtype),), seed)


def space(specs: Specs) -> SearchSpace:
    """Return the default space of the C generator.

    Raises:
        UsageError: the C generator does not have the dtype.
    """
    require_c_types(specs)
    rows, columns = specs[0].shape
    vector_bytes = host_vector_bytes()
    neighbours = specs[0].element_strides[1] == 1
    parameters: dict[str, Any] = {
        "method": ("shuffle", "in_place") if neighbours else ("plain",),
        "vector_bytes": (vector_bytes // 2, vector_bytes) if vector_bytes > 16 else (16,),
        "block_rows": _blocks(rows),
        "block_columns": _blocks(columns),
        "outer": ("rows", "columns"),
        "inner": ("rows", "columns"),
        "threads": tuple(sorted({1, usable_cores()})),
    }

    def in_place_has_one_form(config: Config) -> bool:
        """Reject `in_place` if the matrix is not square, and all but one of its equal forms."""
        square = config["block_rows"] == config["block_columns"]
        fixed = config["outer"] == config["inner"] == "rows" and config["threads"] == 1
        return config["method"] != "in_place" or (rows == columns and square and fixed)

    return SearchSpace(parameters, (in_place_has_one_form,))


def _blocks(extent: int) -> tuple[int, ...]:
    """Return the sizes of a block that are worth trying: the smaller ones, and one that covers all."""
    sizes = (64, 128, 256, 512)
    return tuple(size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] < extent)


def numpy_space(specs: Specs) -> SearchSpace:  # noqa: ARG001
    """Return the space of the `numpy` generator."""
    sizes = (64, 256, 1024)
    return SearchSpace({"block_rows": sizes, "block_columns": sizes})


def nki_space(specs: Specs) -> SearchSpace:
    """Return the space of the NKI generator."""
    rows = specs[0].shape[0]
    blocks = tuple(size for size in (128, 256, 512, 1024, 2048) if size == 128 or size // 2 < rows)
    parameters = {"method": ("dma", "tensor"), "block": blocks, "drain": ("vector", "scalar", "both")}
    return SearchSpace(
        parameters, (lambda config: config["method"] == "tensor" or config["drain"] == "vector",)
    )


def golden(x: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return the transpose, laid out row by row."""
    return (np.ascontiguousarray(x.T),)


def _outputs(specs: Specs) -> Specs:
    rows, columns = specs[0].shape
    return (TensorSpec("y", (columns, rows), specs[0].dtype),)


kernel = Kernel(
    name="transpose",
    entry=ENTRY,
    generators={
        "c": source,
        "numpy": numpy_source,
        "nki": partial(candidate, file="transpose_nki.py", kernel="transpose"),
    },
    outputs=_outputs,
    golden=golden,
    baselines={"NumPy": golden},
    flops=lambda _specs: 0,
    bytes_moved=lambda specs: 2 * total_bytes(specs),
    space=space,
    spaces={"numpy": numpy_space, "nki": nki_space},
)
