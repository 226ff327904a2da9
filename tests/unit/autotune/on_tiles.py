"""Run a few instructions on tiles: what a test of the NKI interpreter writes around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotune.nki import language as nl
from autotune.nki import simulate


def on_tiles(body: Callable[..., Any], *arrays: Any, target: str = "trn2", unwritten: str = "error") -> Any:
    """Load arrays into SBUF, call a function with the tiles, and return what it returns as arrays."""

    def kernel(*inputs: Any) -> Any:
        made = body(*[nl.load(each) for each in inputs])
        results = [_stored(each) for each in (made if isinstance(made, tuple) else (made,))]
        return tuple(results) if isinstance(made, tuple) else results[0]

    return simulate(kernel, target=target, unwritten=unwritten)(*arrays)


def _stored(tile: Any) -> Any:
    if nl.is_psum(tile.buffer):
        tile = nl.copy(tile)
    out = nl.ndarray(tile.shape, tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out
