"""Softmax of each row of a matrix, in three passes, or in two with a running maximum (online)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels.c_exp import exp_function
from autotune.kernels.c_source import host_vector_bytes, prelude, require_c_types
from autotune.kernels.c_threads import entry_point
from autotune.kernels.narrow import baseline, is_narrow, total_bytes
from autotune.kernels.nki_text import candidate
from autotune.machine.cpu import usable_cores
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace

ENTRY = "softmax"

_THREE_PASSES = """\
    for (; i + STEP <= COLUMNS; i += STEP)
        for (int u = 0; u < UNROLL; u++) top[u] = larger(top[u], load(x + i + u * LANES));
    for (; i < COLUMNS; i += LANES) top[0] = larger(top[0], load_part(x + i, COLUMNS - i));
    const T most = largest(top);
    for (i = 0; i + STEP <= COLUMNS; i += STEP)
        for (int u = 0; u < UNROLL; u++) {
            const vec e = exp_nonpositive(load(x + i + u * LANES) - most);
            *(uvec *)(y + i + u * LANES) = e;
            sum[u] += e;
        }
    for (; i < COLUMNS; i += LANES) {
        const vec e = exp_nonpositive(load_part(x + i, COLUMNS - i) - most);
        store_part(y + i, e, COLUMNS - i);
        sum[0] += e;
    }
    const T scale = 1 / total(sum);
    for (i = 0; i + LANES <= COLUMNS; i += LANES) *(uvec *)(y + i) = load(y + i) * scale;
    for (ptrdiff_t l = COLUMNS / LANES * LANES; l < COLUMNS; l++) y[l] *= scale;
"""

_ONLINE = """\
    T most = -(T)__builtin_inf();
    for (; i < COLUMNS; i += STEP) {
        vec part[UNROLL];
        for (int u = 0; u < UNROLL; u++) {
            part[u] = load_part(x + i + u * LANES, COLUMNS - i - u * LANES);
            top[u] = larger(top[u], part[u]);
        }
        const T more = largest(top);
        if (more > most) {
            const vec rescale = exp_nonpositive((vec){0} + (most - more));
            for (int u = 0; u < UNROLL; u++) sum[u] *= rescale;
            most = more;
        }
        for (int u = 0; u < UNROLL; u++) sum[u] += exp_nonpositive(part[u] - most);
    }
    const T scale = 1 / total(sum);
    for (i = 0; i + LANES <= COLUMNS; i += LANES)
        *(uvec *)(y + i) = exp_nonpositive(load(x + i) - most) * scale;
    if (i < COLUMNS)
        store_part(y + i, exp_nonpositive(load_part(x + i, COLUMNS - i) - most) * scale, COLUMNS - i);
"""

_BODIES = {"three_passes": _THREE_PASSES, "online": _ONLINE}

_ROW = """\
enum {{ ROWS = {rows}, COLUMNS = {columns}, UNROLL = {unroll}, STEP = UNROLL * LANES, THREADS = {threads} }};

INLINE vec load(const T *from) {{ return *(const uvec *)from; }}

/* Lanes past the end of the row hold -inf, which neither a maximum nor a sum of exponentials notices. */
INLINE vec load_part(const T *from, ptrdiff_t count) {{
    if (count >= LANES) return load(from);
    T lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = l < count ? from[l] : -(T)__builtin_inf();
    return load(lane);
}}

INLINE void store_part(T *to, vec value, ptrdiff_t count) {{
    for (int l = 0; l < MIN(count, LANES); l++) to[l] = value[l];
}}

INLINE vec larger(vec a, vec b) {{
    for (int l = 0; l < LANES; l++) a[l] = a[l] > b[l] ? a[l] : b[l];
    return a;
}}

INLINE T largest(const vec *top) {{
    vec v = top[0];
    for (int u = 1; u < UNROLL; u++) v = larger(v, top[u]);
    T most = v[0];
    for (int l = 1; l < LANES; l++) most = v[l] > most ? v[l] : most;
    return most;
}}

INLINE T total(const vec *sum) {{
    vec v = sum[0];
    for (int u = 1; u < UNROLL; u++) v += sum[u];
    T all = v[0];
    for (int l = 1; l < LANES; l++) all += v[l];
    return all;
}}

static void row(const T *x, T *y) {{
    vec top[UNROLL], sum[UNROLL];
    for (int u = 0; u < UNROLL; u++) {{
        top[u] = (vec){{0}} - (T)__builtin_inf();
        sum[u] = (vec){{0}};
    }}
    ptrdiff_t i = 0;
{body}}}

static void share(ptrdiff_t thread, const T *x, T *y) {{
    for (ptrdiff_t r = ROWS * thread / THREADS; r < ROWS * (thread + 1) / THREADS; r++) {{
{call}
    }}
}}
"""

_STRIDED_CALL = """\
        T from[COLUMNS], to[COLUMNS];
        for (ptrdiff_t i = 0; i < COLUMNS; i++) from[i] = x[{row_in} + i * {step_in}];
        row(from, to);
        for (ptrdiff_t i = 0; i < COLUMNS; i++) y[{row_out} + i * {step_out}] = to[i];"""


def source(config: Config, inputs: Specs, outputs: Specs) -> str:
    """Return the C source of one candidate; a row whose elements are not contiguous is copied first."""
    rows, columns = inputs[0].shape
    (row_in, step_in), (row_out, step_out) = inputs[0].element_strides, outputs[0].element_strides
    call = f"        row(x + r * {row_in}, y + r * {row_out});"
    if columns > 1 and (step_in, step_out) != (1, 1):
        call = _STRIDED_CALL.format(
            row_in=f"r * {row_in}", step_in=step_in, row_out=f"r * {row_out}", step_out=step_out
        )
    text = _ROW.format(
        rows=rows,
        columns=columns,
        unroll=config["unroll"],
        threads=config["threads"],
        body=_BODIES[str(config["variant"])],
        call=call,
    )
    dtype = inputs[0].dtype
    return "\n".join(
        [
            prelude(dtype, int(config["vector_bytes"])),
            exp_function(dtype),
            text,
            entry_point(ENTRY, ["x"], ["y"], int(config["threads"])),
        ]
    )


def numpy_source(config: Config, inputs: Specs, outputs: Specs) -> str:  # noqa: ARG001
    """Return Python text that defines `softmax(x, y)`; `block_rows` rows at a time stay in the cache."""
    if is_narrow(inputs):
        return f"""\
import numpy as np


def {ENTRY}(x, y):
    for low in range(0, {inputs[0].shape[0]}, {config["block_rows"]}):
        part = x[low : low + {config["block_rows"]}].astype(np.float32)
        part -= part.max(axis=1, keepdims=True)
        np.exp(part, out=part)
        y[low : low + {config["block_rows"]}] = part / part.sum(axis=1, keepdims=True)
"""
    return f"""\
import numpy as np


def {ENTRY}(x, y):
    for low in range(0, {inputs[0].shape[0]}, {config["block_rows"]}):
        part, out = x[low : low + {config["block_rows"]}], y[low : low + {config["block_rows"]}]
        np.subtract(part, part.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True)
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
    rows = specs[0].shape[0]
    vector_bytes = host_vector_bytes()
    parameters: dict[str, Any] = {
        "variant": tuple(_BODIES),
        "vector_bytes": tuple(sorted({16, vector_bytes // 2, vector_bytes} - {8})),
        "unroll": (1, 2, 4, 8),
        "threads": tuple(sorted({1, min(usable_cores(), rows)})),
    }
    return SearchSpace(parameters)


def numpy_space(specs: Specs) -> SearchSpace:
    """Return the space of the `numpy` generator."""
    rows = specs[0].shape[0]
    counts = {min(count, rows) for count in (1, 4, 16, 64, 256, rows)}
    return SearchSpace({"block_rows": tuple(sorted(counts))})


def nki_space(specs: Specs) -> SearchSpace:
    """Return the space of the NKI generator."""
    columns = specs[0].shape[1]
    pieces = tuple(count for count in (1, 2, 4, 8) if count == 1 or columns >= 64 * count)
    return SearchSpace({"pieces": pieces, "scale_on": ("vector", "scalar")})


def golden(x: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return the softmax of each row as NumPy users write it; with float64 input it is the golden."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True),)


def _outputs(specs: Specs) -> Specs:
    return (TensorSpec("y", specs[0].shape, specs[0].dtype),)


def _elements(specs: Specs) -> int:
    rows, columns = specs[0].shape
    return rows * columns


kernel = Kernel(
    name="softmax",
    entry=ENTRY,
    generators={
        "c": source,
        "numpy": numpy_source,
        "nki": partial(candidate, file="softmax_nki.py", kernel="softmax"),
    },
    outputs=_outputs,
    golden=golden,
    baselines={"NumPy": baseline(golden)},
    flops=lambda specs: 5 * _elements(specs),  # maximum, difference, exp, sum, quotient: one each
    bytes_moved=lambda specs: 2 * total_bytes(specs),
    reduction_length=lambda specs: specs[0].shape[1],
    space=space,
    spaces={"numpy": numpy_space, "nki": nki_space},
)
