"""Matrix product: C = A B (`lhs_rhs`) and C = AᵀB (`lhsT_rhs`), any strides.

The C is of float32 or float64; the NumPy source of any float.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.kernels import gemm_c, gemm_nki_space, gemm_numpy
from autotune.kernels.c_source import host_vector_bytes, lanes, require_c_types
from autotune.kernels.gemm_schedule import Blocking, Product, Schedule
from autotune.kernels.narrow import baseline, total_bytes
from autotune.kernels.register_tile import dot_tiles, register_tiles
from autotune.machine.cpu import usable_cores
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import Config, SearchSpace, Value

Arrays = tuple[NDArray[Any], ...]
OPERANDS = (("lhs", "MK"), ("rhs", "NK"))
SMALL = 128 * 1024
"""Elements that most L2 caches hold: an operand up to this size may be faster without packing."""
BLOCKING = (
    "NUM_BLOCK_M",
    "NUM_BLOCK_N",
    "NUM_BLOCK_K",
    "vector_axis",
    "vector_bytes",
    "register_tile",
    "threads",
)
"""The parameters that decide the sizes of blocks and shares."""

FEW = 14
"""Up to so many rows (columns) of C, B (A) is read only once, and packing it costs as much as the product."""


def inputs(
    m: int, n: int, k: int, *, lhs_transposed: bool = False, dtype: str = "float32", seed: int = 0
) -> Inputs:
    """Return the tensors of one product: A is M x K (K x M if transposed), B is K x N."""
    lhs = TensorSpec("lhs", (k, m) if lhs_transposed else (m, k), dtype)
    return Inputs((lhs, TensorSpec("rhs", (k, n), dtype)), seed)


def space(specs: Specs, *, lhs_transposed: bool) -> SearchSpace:
    """Return the default space of the C generator.

    Raises:
        UsageError: the C generator does not have the dtype.
    """
    require_c_types(specs)
    product = Product.of(specs, _outputs(specs, lhs_transposed=lhs_transposed), lhs_transposed)
    vector_bytes = host_vector_bytes()
    few = 2 * product.n <= lanes(product.dtype, vector_bytes)
    tiles = register_tiles(product.m, product.n, product.dtype, vector_bytes)
    parameters: dict[str, Any] = {
        **_loops(product.m, product.n, product.k),
        "pack_lhs": (False, True) if product.m * product.k <= SMALL or product.n <= FEW else (True,),
        "pack_rhs": (False, True) if product.k * product.n <= SMALL or product.m <= FEW else (True,),
        "vector_axis": ("K",) if few else ("N",),
        "vector_bytes": (vector_bytes,),
        "register_tile": dot_tiles(product.m, product.n) if few else tiles,
        "unroll_k": (4,),
        "threads": tuple(sorted({1, usable_cores()})),
    }
    own = (partial(packs_what_cannot_be_read, product), partial(blocks_are_filled, product))
    return SearchSpace(parameters, (loops_are_canonical, packs_once, *own))


def _loops(m: int, n: int, k: int) -> dict[str, Any]:
    """Return the parameters of the block loops; several blocks have at least 128 elements a side."""

    def counts(extent: int) -> tuple[int, ...]:
        return tuple(count for count in (1, 2, 4, 8) if count == 1 or extent >= 128 * count)

    return {
        "loop_order": ("MNK", "MKN", "NMK", "NKM", "KMN", "KNM"),
        "lhs_position": (0, 1, 2),
        "rhs_position": (0, 1, 2),
        "NUM_BLOCK_M": counts(m),
        "NUM_BLOCK_N": counts(n),
        "NUM_BLOCK_K": counts(k),
    }


def loops_are_canonical(config: Config) -> bool:
    """Reject loop orders that mean the same: loops of one block must be outermost, in the order M, N, K."""
    order = str(config["loop_order"])
    single = [axis for axis in "MNK" if config[f"NUM_BLOCK_{axis}"] == 1]
    return list(order[: len(single)]) == single


def packs_once(config: Config) -> bool:
    """Reject a position for packing if a loop further out would pack the same data less often.

    That is the case in a loop whose axis the operand does not have, unless the loop has one block: its
    position then means "before all loops". An operand that is not packed must have position 2.
    """
    order = str(config["loop_order"])
    single = [axis for axis in "MNK" if config[f"NUM_BLOCK_{axis}"] == 1]
    for operand, axes in OPERANDS:
        position = int(config[f"{operand}_position"])
        if not config.get(f"pack_{operand}", True):
            if position != 2:
                return False
        elif position < len(single) - 1 or (position >= len(single) and order[position] not in axes):
            return False
    return True


def packs_what_cannot_be_read(product: Product, config: Config) -> bool:
    """Reject an unpacked operand from which vectors cannot be read: the generator would pack it anyway."""
    return all(
        config[f"pack_{operand}"]
        or product.readable(operand, _schedule(config["vector_axis"], config["vector_bytes"]))
        for operand, _axes in OPERANDS
    )


@lru_cache(maxsize=64)
def _schedule(vector_axis: Value, vector_bytes: Value) -> Schedule:
    return Schedule.of({"vector_axis": vector_axis, "vector_bytes": vector_bytes})


def blocks_are_filled(product: Product, config: Config) -> bool:
    """Reject more blocks than tiles, and more threads than shares."""
    return _is_filled(product, tuple(config[name] for name in BLOCKING))


@lru_cache(maxsize=4096)
def _is_filled(product: Product, values: tuple[Value, ...]) -> bool:
    """Cache the answer, because all loop orders and positions of one blocking have the same."""
    return Blocking(product, Schedule.of(dict(zip(BLOCKING, values, strict=True)))).sensible


def numpy_space(specs: Specs, *, lhs_transposed: bool) -> SearchSpace:
    """Return the space of the `numpy` generator: its block loops, and which loops make blocks contiguous."""
    (k, m), (_, n) = specs[0].shape if lhs_transposed else specs[0].shape[::-1], specs[1].shape
    return SearchSpace(_loops(m, n, k), (loops_are_canonical, packs_once))


def _outputs(specs: Specs, *, lhs_transposed: bool) -> Specs:
    rows = specs[0].shape[1 if lhs_transposed else 0]
    return (TensorSpec("out", (rows, specs[1].shape[1]), specs[0].dtype),)


def _depth(specs: Specs) -> int:
    return specs[1].shape[0]


def _flops(specs: Specs, *, lhs_transposed: bool) -> int:
    rows, columns = _outputs(specs, lhs_transposed=lhs_transposed)[0].shape
    return 2 * rows * columns * _depth(specs)


def _bytes_moved(specs: Specs, *, lhs_transposed: bool) -> int:
    return total_bytes(specs, _outputs(specs, lhs_transposed=lhs_transposed))


def _product(lhs: NDArray[Any], rhs: NDArray[Any], *, lhs_transposed: bool) -> Arrays:
    """Return NumPy's product: the golden when given float64, the baseline when given the inputs."""
    return (np.matmul(lhs.T if lhs_transposed else lhs, rhs),)


def _kernel(name: str, lhs_transposed: bool) -> Kernel:
    return Kernel(
        name=name,
        entry=gemm_c.ENTRY,
        generators={
            "c": partial(gemm_c.source, lhs_transposed=lhs_transposed),
            "numpy": partial(gemm_numpy.source, lhs_transposed=lhs_transposed),
            "nki": partial(gemm_nki_space.source, lhs_transposed=lhs_transposed),
        },
        outputs=partial(_outputs, lhs_transposed=lhs_transposed),
        golden=partial(_product, lhs_transposed=lhs_transposed),
        baselines={"NumPy": baseline(partial(_product, lhs_transposed=lhs_transposed))},
        flops=partial(_flops, lhs_transposed=lhs_transposed),
        bytes_moved=partial(_bytes_moved, lhs_transposed=lhs_transposed),
        reduction_length=_depth,
        space=partial(space, lhs_transposed=lhs_transposed),
        spaces={
            "numpy": partial(numpy_space, lhs_transposed=lhs_transposed),
            "nki": partial(gemm_nki_space.space, lhs_transposed=lhs_transposed),
        },
    )


lhs_rhs = _kernel("gemm_lhs_rhs", lhs_transposed=False)
lhsT_rhs = _kernel("gemm_lhsT_rhs", lhs_transposed=True)
