"""Attention of one head: softmax(Q Kᵀ / sqrt(d)) V, with all keys for each query."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels.narrow import baseline, is_narrow, total_bytes
from autotune.kernels.nki_text import candidate
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace

ENTRY = "attention"


def numpy_source(config: Config, inputs: Specs, outputs: Specs) -> str:  # noqa: ARG001
    """Return Python text that defines `attention(q, k, v, out)`; `block_rows` queries at a time."""
    widen = ".astype(np.float32)" if is_narrow(inputs) else ""
    return f"""\
import numpy as np


def {ENTRY}(q, k, v, out):
    keys, values = k.T{widen}, v{widen}
    for low in range(0, {inputs[0].shape[0]}, {config["block_rows"]}):
        part = np.matmul(q[low : low + {config["block_rows"]}]{widen}, keys) * {inputs[0].shape[1] ** -0.5!r}
        part -= part.max(axis=1, keepdims=True)
        np.exp(part, out=part)
        total = part.sum(axis=1, keepdims=True)
        out[low : low + {config["block_rows"]}] = np.matmul(part, values) / total
"""


def inputs(queries: int, keys: int, depth: int, *, dtype: str = "float32", seed: int = 0) -> Inputs:
    """Return the tensors of one head: q of queries x depth, k and v of keys x depth."""
    names = (("q", queries), ("k", keys), ("v", keys))
    return Inputs(tuple(TensorSpec(name, (rows, depth), dtype) for name, rows in names), seed)


def space(specs: Specs) -> SearchSpace:
    """Return the space of the `numpy` generator."""
    rows = specs[0].shape[0]
    return SearchSpace({"block_rows": tuple(sorted({min(count, rows) for count in (16, 64, 256, rows)}))})


NKI_PARAMETERS = {
    "transpose": ("dma", "tensor"),
    "turn": ("tensor", "dma"),
    "drain": ("vector", "scalar", "both"),
}
"""The parameters of the NKI generator."""


def golden(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return the attention as NumPy users write it; with float64 inputs it is the golden."""
    scores = np.matmul(q, k.T) * q.shape[1] ** -0.5
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (np.matmul(powers / powers.sum(axis=1, keepdims=True), v),)


def _outputs(specs: Specs) -> Specs:
    return (TensorSpec("out", (specs[0].shape[0], specs[2].shape[1]), specs[0].dtype),)


def _flops(specs: Specs) -> int:
    """Return the flops of both products, and five for each score."""
    (queries, depth), keys = specs[0].shape, specs[1].shape[0]
    return 4 * queries * keys * depth + 5 * queries * keys


kernel = Kernel(
    name="attention",
    entry=ENTRY,
    generators={
        "numpy": numpy_source,
        "nki": partial(candidate, file="attention_nki.py", kernel="attention"),
    },
    outputs=_outputs,
    golden=golden,
    baselines={"NumPy": baseline(golden)},
    flops=_flops,
    bytes_moved=lambda specs: total_bytes(specs, _outputs(specs)),
    reduction_length=lambda specs: specs[1].shape[0] + specs[0].shape[1],
    space=space,
    spaces={"nki": lambda _specs: SearchSpace(NKI_PARAMETERS)},
)
