"""The configs of the NKI products in `gemm_nki`, and the text of a candidate."""

from __future__ import annotations

from functools import partial
from typing import Any

from autotune.kernels.nki_text import candidate
from autotune.model.kernel import Specs
from autotune.model.space import Config, SearchSpace

ROWS, COLUMNS = 128, 512
ORDERS = ("MNK", "MKN", "NMK", "NKM", "KMN", "KNM")


def space(specs: Specs, *, lhs_transposed: bool) -> SearchSpace:
    """Return the space of one product; what does not fit SBUF or PSUM is in it, and refused when it is tried.

    Args:
        specs: A and B.
        lhs_transposed: A comes as [K, M].
    """
    m, n, k = extents(specs, lhs_transposed=lhs_transposed)
    tiles = {"M": -(-m // ROWS), "N": -(-n // COLUMNS), "K": -(-k // ROWS)}
    parameters: dict[str, Any] = {
        "loop_order": ORDERS,
        "tiles_m": powers(tiles["M"], 16),
        "tiles_n": powers(tiles["N"], 4),
        "tiles_k": powers(tiles["K"], 32),
        "lhs_buffers": (1, 2, 4, 8),
        "rhs_buffers": (1, 2, 4),
        "psum_banks": (1, 2, 4, 7, 8),
        "sums": ("together", "apart"),
        "drain": ("vector", "scalar", "both"),
    }
    if not lhs_transposed:
        parameters["transpose"] = ("dma", "tensor")
    own = (partial(loops_are_canonical, tiles), partial(buffers_are_used, tiles))
    return SearchSpace(parameters, (banks_are_enough, *own))


def extents(specs: Specs, *, lhs_transposed: bool) -> tuple[int, int, int]:
    """Return M, N and K of a product."""
    (first, second), (_, n) = specs[0].shape, specs[1].shape
    return (second, n, first) if lhs_transposed else (first, n, second)


def powers(count: int, most: int) -> tuple[int, ...]:
    """Return the powers of two up to a number of tiles, and up to a bound."""
    return tuple(each for each in (1, 2, 4, 8, 16, 32) if each <= min(most, max(1, count)))


def banks_are_enough(config: Config) -> bool:
    """Reject sums together that need more banks than there are, and sums apart with banks left over."""
    if config["sums"] == "together":
        return int(config["tiles_m"]) * int(config["tiles_n"]) <= int(config["psum_banks"])
    return int(config["psum_banks"]) <= 2 or int(config["tiles_m"]) * int(config["tiles_n"]) >= 2


def _blocks(tiles: dict[str, int], config: Config) -> dict[str, int]:
    return {axis: -(-tiles[axis] // int(config[f"tiles_{axis.lower()}"])) for axis in "MNK"}


def loops_are_canonical(tiles: dict[str, int], config: Config) -> bool:
    """Reject orders that mean the same: loops of one block are outermost, in the order M, N, K."""
    blocks = _blocks(tiles, config)
    single = [axis for axis in "MNK" if blocks[axis] == 1]
    return list(str(config["loop_order"])[: len(single)]) == single


def buffers_are_used(tiles: dict[str, int], config: Config) -> bool:
    """Reject more buffers than an operand has blocks."""
    blocks = _blocks(tiles, config)
    lhs, rhs = blocks["M"] * blocks["K"], blocks["N"] * blocks["K"]
    return int(config["lhs_buffers"]) <= max(1, lhs) and int(config["rhs_buffers"]) <= max(1, rhs)


def source(config: Config, inputs: Specs, outputs: Specs, *, lhs_transposed: bool) -> str:
    """Return the text of a candidate."""
    kernel = "gemm_lhsT_rhs" if lhs_transposed else "gemm_lhs_rhs"
    return candidate(config, inputs, outputs, file="gemm_nki.py", kernel=kernel)
