"""Root-mean-square norm of each row, then a linear map: y = (x / rms(x) * gain) W, fused or not.

1 / rms(x) is one factor for each row, so it can be applied to the row of the product instead. The gain can be
multiplied into W. Fused in this way, x is read once, in place, and no normalized copy of it is written.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels.c_source import (
    host_vector_bytes,
    indent,
    lanes,
    prelude,
    require_c_types,
    round_up,
)
from autotune.kernels.c_threads import entry_point
from autotune.kernels.narrow import baseline, is_narrow, total_bytes
from autotune.kernels.nki_text import candidate
from autotune.kernels.register_tile import RegisterTile, register_tiles, with_edges
from autotune.machine.cpu import usable_cores
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace

ENTRY = "rmsnorm_linear"
EPSILON = 1e-6
"""Added to the mean of the squares, so that a row of zeros is not divided by zero."""

_NORM = """\
enum {{ DEPTH = {depth}, COLUMNS = {columns}, BLOCK_ROWS = {block_rows}, LINE = {line} }};
enum {{ TILE_ROWS = {tile_rows}, TILE_COLUMNS = {tile_columns}, PANELS = {panels} }};
enum {{ X_ROW = {x_row}, X_COLUMN = {x_column}, GAIN = {gain}, W_ROW = {w_row}, W_COLUMN = {w_column} }};
enum {{ Y_ROW = {y_row}, Y_COLUMN = {y_column} }};

static T weights[{threads}][PANELS * DEPTH * TILE_COLUMNS] __attribute__((aligned(4096)));

static T inverse_rms(const T *x) {{
    T sum = 0;
{vector_sum}    for (ptrdiff_t k = {summed}; k < DEPTH; k++) sum += x[k * X_COLUMN] * x[k * X_COLUMN];
    return 1 / {sqrt}(sum / DEPTH + (T){epsilon});
}}

static void pack_weights(const T *gain, const T *weight, T *to) {{
    for (ptrdiff_t at = 0; at < COLUMNS; at += TILE_COLUMNS)
        for (ptrdiff_t k = 0; k < DEPTH; k++, to += TILE_COLUMNS)
            for (ptrdiff_t j = 0; j < TILE_COLUMNS; j++)
                to[j] = at + j < COLUMNS ? weight[k * W_ROW + (at + j) * W_COLUMN]{weight_gain} : 0;
}}

static void multiply(const T *x, const T *b, const T *scales, T *y, ptrdiff_t rows) {{
    for (ptrdiff_t j = 0; j < COLUMNS; j += TILE_COLUMNS, b += DEPTH * TILE_COLUMNS)
        for (ptrdiff_t i = 0; i < rows; i += TILE_ROWS) {{
            const T *a = x + i * {a_row}, *scale = scales + i;
            T *c = y + i * Y_ROW + j * Y_COLUMN;
{dispatch}
        }}
}}

static void share(ptrdiff_t thread, const T *x, const T *gain, const T *weight, T *y) {{
    const ptrdiff_t first = thread * {share}, last = MIN(first + {share}, {rows});
    pack_weights(gain, weight, weights[thread]);
{body}}}
"""

_VECTOR_SUM = """\
    vec squares[4] = {{0}};
    for (ptrdiff_t k = 0; k + 4 * LANES <= DEPTH; k += 4 * LANES)
        for (int u = 0; u < 4; u++) {
            const vec v = *(const uvec *)(x + k + u * LANES);
            squares[u] += v * v;
        }
    const vec all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    for (int l = 0; l < LANES; l++) sum += all[l];
"""

_IN_WEIGHTS = """\
    for (ptrdiff_t r = first; r < last; r += BLOCK_ROWS) {
        T scales[BLOCK_ROWS];
        const ptrdiff_t rows = MIN(BLOCK_ROWS, last - r);
        for (ptrdiff_t i = 0; i < rows; i++) scales[i] = inverse_rms(x + (r + i) * X_ROW);
        multiply(x + r * X_ROW, weights[thread], scales, y + r * Y_ROW, rows);
    }
"""

_IN_BLOCKS = """\
    static T kept[THREADS][BLOCK_ROWS * LINE] __attribute__((aligned(4096)));
    for (ptrdiff_t r = first; r < last; r += BLOCK_ROWS) {
        T scales[BLOCK_ROWS];
        const ptrdiff_t rows = MIN(BLOCK_ROWS, last - r);
        for (ptrdiff_t i = 0; i < rows; i++) {
            const T *from = x + (r + i) * X_ROW;
            T *to = kept[thread] + i * LINE;
            scales[i] = inverse_rms(from);
            for (ptrdiff_t k = 0; k < DEPTH; k++) to[k] = from[k * X_COLUMN] * gain[k * GAIN];
        }
        multiply(kept[thread], weights[thread], scales, y + r * Y_ROW, rows);
    }
"""

_BEFORE = """\
    static T kept[THREADS][SHARE * LINE] __attribute__((aligned(4096)));
    static const T one[BLOCK_ROWS] = {[0 ... BLOCK_ROWS - 1] = 1};
    for (ptrdiff_t r = first; r < last; r++) {
        const T *from = x + r * X_ROW, scale = inverse_rms(from);
        T *to = kept[thread] + (r - first) * LINE;
        for (ptrdiff_t k = 0; k < DEPTH; k++) to[k] = from[k * X_COLUMN] * scale * gain[k * GAIN];
    }
    for (ptrdiff_t r = first; r < last; r += BLOCK_ROWS)
        multiply(kept[thread] + (r - first) * LINE, weights[thread], one, y + r * Y_ROW,
                 MIN(BLOCK_ROWS, last - r));
"""

_BODIES = {"in_weights": _IN_WEIGHTS, "in_blocks": _IN_BLOCKS, "before": _BEFORE}
"""Where the gain is applied: to the weights, a copy of a block of rows, or (not fused) a copy of all x."""


def source(config: Config, inputs: Specs, outputs: Specs) -> str:
    """Return the C source of one candidate."""
    (rows, depth), (_, columns) = inputs[0].shape, inputs[2].shape
    dtype, vector_bytes, threads = inputs[0].dtype, int(config["vector_bytes"]), int(config["threads"])
    (x_row, x_column), (y_row, y_column) = inputs[0].element_strides, outputs[0].element_strides
    width = lanes(dtype, vector_bytes)
    tile_rows, vectors = map(int, str(config["register_tile"]).split("x"))
    line = round_up(depth, 16) + 16
    lhs_strides = (x_row, x_column) if config["norm"] == "in_weights" else (line, 1)
    tile = RegisterTile(
        rows=tile_rows,
        columns=vectors * width,
        lhs_strides=lhs_strides,
        rhs_stride=vectors * width,
        out_strides=(y_row, y_column),
        lanes=width,
        unroll_k=int(config["unroll_k"]),
        row_scale=True,
    )
    fits = ("i + TILE_ROWS <= rows", "j + TILE_COLUMNS <= COLUMNS")
    tiles, dispatch = with_edges(tile, (rows, columns), fits, "a, b, c, DEPTH, 0, scale")
    share = round_up(-(-rows // threads), tile_rows)
    text = _NORM.format(
        rows=rows,
        depth=depth,
        columns=columns,
        threads=threads,
        share=share,
        line=line,
        block_rows=int(config["tiles_per_block"]) * tile_rows,
        tile_rows=tile_rows,
        tile_columns=tile.columns,
        panels=-(-columns // tile.columns),
        x_row=x_row,
        x_column=x_column,
        gain=inputs[1].element_strides[0],
        w_row=inputs[2].element_strides[0],
        w_column=inputs[2].element_strides[1],
        y_row=y_row,
        y_column=y_column,
        a_row=lhs_strides[0],
        vector_sum=_VECTOR_SUM if x_column == 1 else "",
        summed="DEPTH / (4 * LANES) * (4 * LANES)" if x_column == 1 else "0",
        weight_gain=" * gain[k * GAIN]" if config["norm"] == "in_weights" else "",
        sqrt="__builtin_sqrtf" if dtype == "float32" else "__builtin_sqrt",
        epsilon=EPSILON,
        dispatch=indent(dispatch, 3),
        body=_BODIES[str(config["norm"])],
    )
    shares = f"enum {{ THREADS = {threads}, SHARE = {share} }};\n"
    entry = entry_point(ENTRY, ["x", "gain", "weight"], ["y"], threads)
    return "\n".join([prelude(dtype, vector_bytes), shares, tiles, text, entry])


def numpy_source(config: Config, inputs: Specs, outputs: Specs) -> str:  # noqa: ARG001
    """Return Python text that defines `rmsnorm_linear(x, gain, weight, y)`, `block_rows` at a time."""
    step = config["block_rows"]
    if is_narrow(inputs):
        return f"""\
import numpy as np


def {ENTRY}(x, gain, weight, y):
    scaled = gain.astype(np.float32)[:, None] * weight.astype(np.float32)
    for low in range(0, {inputs[0].shape[0]}, {step}):
        part = x[low : low + {step}].astype(np.float32)
        mean_square = np.einsum("ij,ij->i", part, part) / {inputs[0].shape[1]}
        y[low : low + {step}] = np.matmul(part, scaled) / np.sqrt(mean_square + {EPSILON})[:, None]
"""
    return f"""\
import numpy as np


def {ENTRY}(x, gain, weight, y):
    scaled = gain[:, None] * weight
    for low in range(0, {inputs[0].shape[0]}, {step}):
        part, out = x[low : low + {step}], y[low : low + {step}]
        np.matmul(part, scaled, out=out)
        mean_square = np.einsum("ij,ij->i", part, part) / {inputs[0].shape[1]}
        out /= np.sqrt(mean_square + {EPSILON})[:, None]
"""


def inputs(rows: int, depth: int, columns: int, *, dtype: str = "float32", seed: int = 0) -> Inputs:
    """Return the tensors of one workload: x of rows x depth, a gain of depth, W of depth x columns."""
    x, gain = TensorSpec("x", (rows, depth), dtype), TensorSpec("gain", (depth,), dtype)
    return Inputs((x, gain, TensorSpec("weight", (depth, columns), dtype)), seed)


def space(specs: Specs) -> SearchSpace:
    """Return the default space of the C generator.

    Raises:
        UsageError: the C generator does not have the dtype.
    """
    require_c_types(specs)
    rows, columns = specs[0].shape[0], specs[2].shape[1]
    vector_bytes = host_vector_bytes()
    tiles = register_tiles(rows, columns, specs[0].dtype, vector_bytes)
    parameters: dict[str, Any] = {
        "norm": tuple(_BODIES),
        "tiles_per_block": (1, 4, 16),
        "vector_bytes": (vector_bytes,),
        "register_tile": tiles,
        "unroll_k": (1, 4),
        "threads": tuple(sorted({1, usable_cores()})),
    }

    def share_is_filled(config: Config) -> bool:
        """Reject more threads than tiles of rows, and blocks that are longer than a share."""
        tile_count = -(-rows // int(str(config["register_tile"]).partition("x")[0]))
        return int(config["tiles_per_block"]) * int(config["threads"]) <= tile_count

    return SearchSpace(parameters, (share_is_filled,))


def numpy_space(specs: Specs) -> SearchSpace:
    """Return the space of the `numpy` generator."""
    rows = specs[0].shape[0]
    counts = {min(count, rows) for count in (16, 64, 256, rows)}
    return SearchSpace({"block_rows": tuple(sorted(counts))})


NKI_PARAMETERS = {
    "transpose": ("dma", "tensor"),
    "square_on": ("scalar", "vector"),
    "drain": ("vector", "scalar", "both"),
}
"""The parameters of the NKI generator."""


def golden(x: NDArray[Any], gain: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return the layer as NumPy users write it; with float64 inputs it is the golden."""
    rms = np.sqrt(np.mean(x * x, axis=1, keepdims=True) + EPSILON)
    return (np.matmul(x / rms * gain, weight),)


def _outputs(specs: Specs) -> Specs:
    return (TensorSpec("y", (specs[0].shape[0], specs[2].shape[1]), specs[0].dtype),)


def _flops(specs: Specs) -> int:
    """Return the product's flops plus four for each element of x: square, sum, scaling and gain."""
    (rows, depth), (_, columns) = specs[0].shape, specs[2].shape
    return 2 * rows * depth * columns + 4 * rows * depth


def _bytes_moved(specs: Specs) -> int:
    return total_bytes(specs, _outputs(specs))


kernel = Kernel(
    name="rmsnorm_linear",
    entry=ENTRY,
    generators={
        "c": source,
        "numpy": numpy_source,
        "nki": partial(
            candidate, file="rmsnorm_linear_nki.py", kernel="rmsnorm_linear", fixed={"epsilon": EPSILON}
        ),
    },
    outputs=_outputs,
    golden=golden,
    baselines={"NumPy": baseline(golden)},
    flops=_flops,
    bytes_moved=_bytes_moved,
    reduction_length=lambda specs: specs[0].shape[1],
    space=space,
    spaces={"numpy": numpy_space, "nki": lambda _specs: SearchSpace(NKI_PARAMETERS)},
)
