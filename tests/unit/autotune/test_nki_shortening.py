"""Long kernels are estimated from a few trips of their outermost loop, and only if that tells the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autotune.nki import activate, estimate
from autotune.nki.launch import record
from autotune.nki.timing.estimates import LONG, estimate_trace

activate()
import nki  # noqa: E402  NKI is there only now
import nki.isa as nisa  # noqa: E402
import nki.language as nl  # noqa: E402

MATRIX = ((4096, 4096), "bfloat16")


def body(matrix: Any, out: Any, row: int, count: int = 400) -> None:
    """Load a tile, add it to itself often, store it."""
    tile = nl.ndarray((128, 512), dtype=matrix.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 512), dtype=matrix.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=matrix[row * 128 : row * 128 + 128, 0:512])
    nisa.memset(dst=total, value=0.0)
    for _ in range(count):
        nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)
    nisa.dma_copy(dst=out[row * 128 : row * 128 + 128, 0:512], src=total)


@nki.jit
def alike(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    for _ in range(1):
        for row in nl.affine_range(16):
            body(matrix, out, row)
    return out


@nki.jit
def first_and_last_differ(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    for row in range(16):
        body(matrix, out, row, 800 if row in (0, 15) else 400)
    return out


@nki.jit
def results_are_kept(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    rows = []
    for row in range(16):
        body(matrix, out, row)
        rows.append(row)
    for place in range(4):
        body(matrix, out, rows[place * 4], 4)
    return out


@nki.jit
def memory_grows(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    kept = []
    for row in range(16):
        body(matrix, out, row)
        tile = nl.ndarray((128, 512), dtype=matrix.dtype, buffer=nl.sbuf)
        nisa.memset(dst=tile, value=0.0)
        kept.append(tile)
    for tile in kept:
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    return out


@nki.jit
def two_lengths(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    for row in range(16):
        body(matrix, out, row)
    for row in range(8):
        body(matrix, out, row, 10)
    return out


@nki.jit
def short_outer_loop(matrix: Any) -> Any:
    out = nl.ndarray(matrix.shape, dtype=matrix.dtype, buffer=nl.shared_hbm)
    for _ in range(2):
        for row in range(16):
            body(matrix, out, row, 200)
    return out


@pytest.mark.parametrize(
    ("kernel", "trips"),
    [
        (alike, (3, 16)),
        (first_and_last_differ, (3, 16)),
        (results_are_kept, None),
        (memory_grows, None),
        (two_lengths, None),
        (short_outer_loop, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_few_trips_tell_the_same_as_all(kernel: Callable[..., Any], trips: tuple[int, int] | None) -> None:
    trace = record(kernel, [MATRIX])[0].trace
    assert len(trace.instructions) > LONG
    found, whole = estimate(kernel, MATRIX), estimate_trace(trace)
    assert trips == found.trips
    assert whole.by_profile == pytest.approx(found.by_profile, rel=1e-6)
    assert whole.engines == pytest.approx(found.engines, abs=1e-6)
    assert whole.dma.count == found.dma.count
    assert whole.bound_by == found.bound_by
    assert sum(step.times for step in whole.critical_path) == pytest.approx(
        sum(step.times for step in found.critical_path), rel=0.02
    )
    assert ("from 3 of 16 trips" in str(found)) == (trips is not None)


def test_range_is_as_it_was_afterwards() -> None:
    estimate(alike, MATRIX)
    assert "range" not in globals()
    assert list(range(9)) == list(nl.affine_range(9))
