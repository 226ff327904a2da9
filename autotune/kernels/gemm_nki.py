"""Matrix products in NKI: C = AᵀB (`lhsT_rhs`) and C = AB (`lhs_rhs`), in blocks that a config chooses.

This file is NKI only, so that it compiles wherever AWS's package is; elsewhere `autotune.nki.activate()`
comes first. The space of its configs is in `gemm_nki_space`.

The tensor engine multiplies 128 rows of K at a time: a stationary tile of 128 columns of Aᵀ with a
moving tile of up to 512 columns of B. All else here keeps it fed: operands are loaded in blocks of such
tiles, into buffers that are taken in turn; sums over K stay in PSUM; and a result leaves PSUM while the
next one is summed in another bank.
"""

import nki
import nki.isa as nisa
import nki.language as nl

ROWS = 128  # partitions: rows of K in a tile, and rows of C
COLUMNS = 512  # float32 elements in a bank of PSUM: columns of C in a tile


@nki.jit
def gemm_lhsT_rhs(
    lhs,
    rhs,
    loop_order="NMK",
    tiles_m=4,
    tiles_n=1,
    tiles_k=16,
    lhs_buffers=4,
    rhs_buffers=2,
    psum_banks=8,
    sums="together",
    drain="both",
):
    """Return AᵀB, with A of shape [K, M] and B of shape [K, N].

    Args:
        loop_order: the loops over blocks, outermost first.
        tiles_m, tiles_n, tiles_k: tiles in a block, of 128 x 512 x 128 elements.
        lhs_buffers, rhs_buffers: blocks of an operand that are in SBUF at once.
        psum_banks: results that are summed or drained at once.
        sums: "together" sums all results of a block over K at once, so that each tile of an operand is used
            as soon as it is there; "apart" sums one after the other.
        drain: the engine that copies results out of PSUM: "vector", "scalar", or "both" in turn.
    """
    return _gemm(
        lhs,
        rhs,
        "none",
        loop_order,
        tiles_m,
        tiles_n,
        tiles_k,
        lhs_buffers,
        rhs_buffers,
        psum_banks,
        sums,
        drain,
    )


@nki.jit
def gemm_lhs_rhs(
    lhs,
    rhs,
    loop_order="NMK",
    tiles_m=4,
    tiles_n=1,
    tiles_k=16,
    lhs_buffers=4,
    rhs_buffers=2,
    psum_banks=8,
    sums="together",
    drain="both",
    transpose="dma",
):
    """Return AB, with A of shape [M, K] and B of shape [K, N].

    Args:
        transpose: who transposes tiles of A: "dma" on the way in, or "tensor", the tensor engine.

    The other arguments are those of `gemm_lhsT_rhs`.
    """
    return _gemm(
        lhs,
        rhs,
        transpose,
        loop_order,
        tiles_m,
        tiles_n,
        tiles_k,
        lhs_buffers,
        rhs_buffers,
        psum_banks,
        sums,
        drain,
    )


def _gemm(
    lhs,
    rhs,
    transpose,
    loop_order,
    tiles_m,
    tiles_n,
    tiles_k,
    lhs_buffers,
    rhs_buffers,
    psum_banks,
    sums,
    drain,
):
    """Run the loops over blocks; an operand's block that is still in a buffer is not loaded again."""
    rows_k, size_n = rhs.shape
    size_m = lhs.shape[1] if transpose == "none" else lhs.shape[0]
    columns = min(COLUMNS, size_n)
    blocks_m = size_m // (tiles_m * ROWS)
    blocks_n = size_n // (tiles_n * columns)
    blocks_k = rows_k // (tiles_k * ROWS)
    out = nl.ndarray((size_m, size_n), dtype=lhs.dtype, buffer=nl.shared_hbm)

    lhs_tiles = _buffers(lhs_buffers, tiles_k, tiles_m * ROWS, lhs.dtype)
    rhs_tiles = _buffers(rhs_buffers, tiles_k, tiles_n * columns, rhs.dtype)
    banks = [nl.ndarray((ROWS, columns), dtype=nl.float32, buffer=nl.psum) for _ in range(psum_banks)]
    lhs_held = [-1] * lhs_buffers
    rhs_held = [-1] * rhs_buffers
    results = [None] * (blocks_m * blocks_n)
    turn = 0  # of the next bank

    extents = [{"M": blocks_m, "N": blocks_n, "K": blocks_k}[axis] for axis in loop_order]
    for i in range(extents[0]):
        for j in range(extents[1]):
            for k in range(extents[2]):
                place = [i, j, k]
                m = place[loop_order.index("M")]
                n = place[loop_order.index("N")]
                step = place[loop_order.index("K")]

                lhs_slot = (m * blocks_k + step) % lhs_buffers
                rhs_slot = (n * blocks_k + step) % rhs_buffers
                new_lhs = lhs_held[lhs_slot] != m * blocks_k + step
                new_rhs = rhs_held[rhs_slot] != n * blocks_k + step
                lhs_held[lhs_slot] = m * blocks_k + step
                rhs_held[rhs_slot] = n * blocks_k + step
                if new_lhs and transpose == "tensor":
                    _transpose_block(lhs_tiles[lhs_slot], lhs, m, step)
                for tile in range(tiles_k):  # in turn: a matmul needs one tile of each
                    if new_lhs and transpose != "tensor":
                        _load(lhs_tiles[lhs_slot][tile], lhs, step * tiles_k + tile, m, transpose == "dma")
                    if new_rhs:
                        _load(rhs_tiles[rhs_slot][tile], rhs, step * tiles_k + tile, n, False)

                if step == 0:  # the order may come back to this block before it is complete
                    dtype = lhs.dtype if blocks_k == 1 else nl.float32
                    results[m * blocks_n + n] = [
                        nl.ndarray((ROWS, tiles_n * columns), dtype=dtype, buffer=nl.sbuf)
                        for _ in range(tiles_m)
                    ]
                result = results[m * blocks_n + n]
                turn = _multiply(
                    result,
                    lhs_tiles[lhs_slot],
                    rhs_tiles[rhs_slot],
                    banks,
                    turn,
                    columns,
                    sums,
                    drain,
                    step == 0,
                )
                if step == blocks_k - 1:
                    _store(out, result, m, n, lhs.dtype)
    return out


def _buffers(count, tiles_k, width, dtype):
    """Make buffers of an operand's blocks: a tile for each 128 rows of K."""
    return [
        [nl.ndarray((ROWS, width), dtype=dtype, buffer=nl.sbuf) for _ in range(tiles_k)] for _ in range(count)
    ]


def _load(tile, matrix, row, column, transpose):
    """Load a tile of 128 rows of K, at a row and a column of tiles; `transpose`: they are columns of K."""
    width = tile.shape[1]
    if transpose:
        part = matrix[column * width : (column + 1) * width, row * ROWS : (row + 1) * ROWS]
        nisa.dma_transpose(dst=tile, src=part)
    else:
        part = matrix[row * ROWS : (row + 1) * ROWS, column * width : (column + 1) * width]
        nisa.dma_copy(dst=tile, src=part)


def _transpose_block(tiles, lhs, m, step):
    """Load rows of A as they are, and transpose them 128 x 128 at a time on the tensor engine."""
    width = tiles[0].shape[1]
    depth = len(tiles) * ROWS
    for row in range(width // ROWS):
        start = m * width + row * ROWS
        straight = nl.ndarray((ROWS, depth), dtype=lhs.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=straight, src=lhs[start : start + ROWS, step * depth : (step + 1) * depth])
        for k in range(len(tiles)):
            turned = nl.ndarray((ROWS, ROWS), dtype=lhs.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=turned, data=straight[:, k * ROWS : (k + 1) * ROWS])
            nisa.tensor_copy(dst=tiles[k][:, row * ROWS : (row + 1) * ROWS], src=turned)


def _multiply(result, lhs_tiles, rhs_tiles, banks, turn, columns, sums, drain, first):
    """Add the product of two blocks to a result in SBUF; return whose turn it is then among the banks."""
    tiles_m = len(result)
    tiles_n = result[0].shape[1] // columns
    depth = len(lhs_tiles)
    together = tiles_m * tiles_n if sums == "together" else 1
    for group in range(0, tiles_m * tiles_n, together):
        for k in range(depth):
            for tile in range(group, group + together):
                m = tile // tiles_n
                n = tile % tiles_n
                nisa.nc_matmul(
                    dst=banks[(turn + tile) % len(banks)],
                    stationary=lhs_tiles[k][:, m * ROWS : (m + 1) * ROWS],
                    moving=rhs_tiles[k][:, n * columns : (n + 1) * columns],
                    accumulate=k > 0,
                )
        for tile in range(group, group + together):
            n = tile % tiles_n
            into = result[tile // tiles_n][:, n * columns : (n + 1) * columns]
            bank = banks[(turn + tile) % len(banks)]
            if first:
                scalar = drain == "scalar" or (drain == "both" and tile % 2 == 1)
                nisa.tensor_copy(
                    dst=into, src=bank, engine=nisa.engine.scalar if scalar else nisa.engine.vector
                )
            else:
                nisa.tensor_tensor(dst=into, data1=into, data2=bank, op=nl.add)
    return (turn + tiles_m * tiles_n) % len(banks)


def _store(out, result, m, n, dtype):
    """Store a block of the result, rounded to its dtype."""
    for row in range(len(result)):
        width = result[row].shape[1]
        start = (m * len(result) + row) * ROWS
        part = out[start : start + ROWS, n * width : (n + 1) * width]
        if result[row].dtype != dtype:
            rounded = nl.ndarray((ROWS, width), dtype=dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=rounded, src=result[row])
            nisa.dma_copy(dst=part, src=rounded)
        else:
            nisa.dma_copy(dst=part, src=result[row])
