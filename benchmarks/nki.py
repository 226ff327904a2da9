"""Time the NKI interpreter on one thread: `python benchmarks/nki.py`.

Printed are CPU times: a 2048^3 product in bfloat16 by 1,024 matmuls, beside NumPy's in float32; what an
instruction costs beside its arithmetic, on tiles of one element; what recording one costs, views included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ml_dtypes
import numpy as np
from threadpoolctl import threadpool_limits

from autotune.nki import isa, simulate
from autotune.nki import language as nl
from autotune.nki.launch import record

SIDE = 2048
COUNT = 5000
ROUNDS = 5


def product(lhs_t: Any, rhs: Any) -> Any:
    """Multiply by 1,024 matmuls of 128 x 128 x 512; each input is loaded once."""
    out = nl.ndarray((SIDE, SIDE), lhs_t.dtype, buffer=nl.shared_hbm)
    left = [nl.load(lhs_t[nl.ds(k, 128)]) for k in range(0, SIDE, 128)]
    right = [nl.load(rhs[nl.ds(k, 128)]) for k in range(0, SIDE, 128)]
    for m in range(0, SIDE, 128):
        for n in range(0, SIDE, 512):
            sums = nl.ndarray((128, 512), nl.float32, buffer=nl.psum)
            for one, other in zip(left, right, strict=True):
                isa.nc_matmul(sums, one[:, m : m + 128], other[:, n : n + 512])
            isa.dma_copy(out[m : m + 128, n : n + 512], nl.copy(sums, dtype=out.dtype))
    return out


def small(x: Any) -> None:
    """Run one instruction of each of five kinds, many times, on one element."""
    tile, total = nl.load(x), nl.ndarray((1, 1), nl.float32, buffer=nl.psum)
    other = nl.zeros((1, 1), nl.float32)
    for _ in range(COUNT // 5):
        isa.nc_matmul(total, tile[0:1, 0:1], tile[0:1, 0:1])
        isa.tensor_copy(other[0:1, 0:1], total[0:1, 0:1])
        isa.tensor_scalar(other[0:1, 0:1], tile[0:1, 0:1], nl.multiply, 2.0, op1=nl.add, operand1=1.0)
        isa.activation(other[0:1, 0:1], nl.exp, tile[0:1, 0:1], scale=0.5)
        isa.dma_copy(tile[0:1, 0:1], other[0:1, 0:1])


def cpu_s(call: Callable[[], Any]) -> float:
    """Return the least CPU time of several calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print the three figures."""
    rng = np.random.default_rng(0)
    lhs_t, rhs = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    narrow = [each.astype(ml_dtypes.bfloat16) for each in (lhs_t, rhs)]
    theirs = cpu_s(lambda: lhs_t.T @ rhs)
    ours = cpu_s(lambda: simulate(product)(*narrow))
    print(
        f"product: {ours * 1e3:.0f} ms, NumPy {theirs * 1e3:.0f} ms: {ours / theirs:.2f} times (to reach: 4)"
    )
    one = np.ones((1, 1), np.float32)
    computed = cpu_s(lambda: simulate(small)(one)) / COUNT
    print(f"an instruction: {computed * 1e6:.1f} us, arithmetic of one element included (to reach: 15)")
    shapes = [((1, 1), "float32")]
    recorded = cpu_s(lambda: record(small, shapes)) / COUNT
    print(f"recording one: {recorded * 1e6:.1f} us, with its views and their regions (to reach: 5)")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
