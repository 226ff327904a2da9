"""Kernels declared as a user declares them, in a module that workers can import."""

from __future__ import annotations

import threading

import numpy as np

import autotune

FACTOR = 2.0
LOCK = threading.Lock()


def double(x):
    return FACTOR * x


@autotune.kernel(space={"rows": [1, 4]}, golden=lambda x: 2 * x, flops=lambda x: x.shape[0])
def returned(x, *, rows):
    return np.concatenate([double(x[begin : begin + rows]) for begin in range(0, len(x), rows)])


@autotune.kernel(space={"rows": [4, 1]}, golden=lambda x: (2 * x, x > 0))
def written(x, twice, positive, *, rows):
    for begin in range(0, len(x), rows):
        np.multiply(x[begin : begin + rows], 2, out=twice[begin : begin + rows])
    positive[...] = x > 0


@autotune.kernel(space={"lanes": [1, 2]}, golden=lambda x: x.sum(axis=1), backend="c", name="row_sums")
def sums(x, *, lanes):
    rows, columns = x.shape
    return f"""void sums(const float *x, float *sums) {{
        for (int r = 0; r < {rows}; r++) {{
            float part[{lanes}] = {{0}};
            for (int c = 0; c < {columns}; c++) part[c % {lanes}] += x[r * {columns} + c];
            sums[r] = 0;
            for (int l = 0; l < {lanes}; l++) sums[r] += part[l];
        }}
    }}"""


def locked(x, *, rows):
    with LOCK:
        return x + rows
