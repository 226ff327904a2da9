"""Matrix products in NKI: C = AᵀB (`lhsT_rhs`) and C = AB (`lhs_rhs`), in blocks that a config chooses.

The kernels are NKI only, so that they compile wherever AWS's package is. The space of their configs is in
`gemm_nki_space`.

The tensor engine multiplies 128 rows of K at a time: a stationary tile of 128 columns of Aᵀ with a
moving tile of up to 512 columns of B. All else here keeps it fed: operands are loaded in blocks of such
tiles, into buffers that are taken in turn; sums over K stay in PSUM; and a result leaves PSUM while the
next one is summed in another bank.
"""

try:
    import nki
    import nki.isa as nisa
    import nki.language as nl
except ImportError:  # AWS's package is not installed: interpret
    from autotune.nki import activate

    activate()
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
    size_k, size_n = rhs.shape
    size_m = lhs.shape[1] if transpose == "none" else lhs.shape[0]
    width_m = tiles_m * ROWS
    width_n = tiles_n * min(COLUMNS, size_n)
    depth = tiles_k * ROWS
    extents = {"M": _parts(size_m, width_m), "N": _parts(size_n, width_n), "K": _parts(size_k, depth)}
    out = nl.ndarray((size_m, size_n), dtype=lhs.dtype, buffer=nl.shared_hbm)

    lhs_tiles = _buffers(lhs_buffers, tiles_k, width_m, lhs.dtype)
    rhs_tiles = _buffers(rhs_buffers, tiles_k, width_n, rhs.dtype)
    banks = [nl.ndarray((ROWS, COLUMNS), dtype=nl.float32, buffer=nl.psum) for _ in range(psum_banks)]
    lhs_held = [-1] * lhs_buffers
    rhs_held = [-1] * rhs_buffers
    results = [None] * (extents["M"] * extents["N"])
    turn = 0  # of the next bank

    for i in range(extents[loop_order[0]]):
        for j in range(extents[loop_order[1]]):
            for k in range(extents[loop_order[2]]):
                place = [i, j, k]
                m = place[loop_order.index("M")]
                n = place[loop_order.index("N")]
                step = place[loop_order.index("K")]
                rows = min(depth, size_k - step * depth)

                lhs_block = m * extents["K"] + step
                rhs_block = n * extents["K"] + step
                left = lhs_tiles[lhs_block % lhs_buffers]
                right = rhs_tiles[rhs_block % rhs_buffers]
                new_lhs = lhs_held[lhs_block % lhs_buffers] != lhs_block
                new_rhs = rhs_held[rhs_block % rhs_buffers] != rhs_block
                lhs_held[lhs_block % lhs_buffers] = lhs_block
                rhs_held[rhs_block % rhs_buffers] = rhs_block
                _fill(left, right, lhs, rhs, (m, n, step), rows, new_lhs, new_rhs, transpose)

                if step == 0:  # the order may come back to this block before it is complete
                    dtype = lhs.dtype if extents["K"] == 1 else nl.float32
                    results[m * extents["N"] + n] = _result(size_m, size_n, m, n, width_m, width_n, dtype)
                result = results[m * extents["N"] + n]
                turn = _multiply(result, left, right, rows, banks, turn, sums, drain, step == 0)
                if step == extents["K"] - 1:
                    _store(out, result, m * width_m, n * width_n, lhs.dtype)
    return out


def _parts(size, part):
    """Return how many parts a size has; the last one may be smaller."""
    return (size + part - 1) // part


def _buffers(count, tiles_k, width, dtype):
    """Make buffers of an operand's blocks: a tile for each 128 rows of K."""
    return [
        [nl.ndarray((ROWS, width), dtype=dtype, buffer=nl.sbuf) for _ in range(tiles_k)] for _ in range(count)
    ]


def _result(size_m, size_n, m, n, width_m, width_n, dtype):
    """Make the tiles of a block of the result: 128 rows each, fewer at the edge."""
    rows = min(width_m, size_m - m * width_m)
    columns = min(width_n, size_n - n * width_n)
    return [
        nl.ndarray((min(ROWS, rows - start), columns), dtype=dtype, buffer=nl.sbuf)
        for start in range(0, rows, ROWS)
    ]


def _fill(left, right, lhs, rhs, place, rows, new_lhs, new_rhs, transpose):
    """Load the blocks of both operands that are not in their buffers, tile by tile in turn."""
    m, n, step = place
    if new_lhs and transpose == "tensor":
        _transpose_block(left, lhs, m, step)
    for tile in range(_parts(rows, ROWS)):  # in turn: a matmul needs one tile of each
        row = step * len(left) + tile
        if new_lhs and transpose != "tensor":
            _load(left[tile], lhs, row, m, transpose == "dma")
        if new_rhs:
            _load(right[tile], rhs, row, n, False)


def _part(matrix, row, rows, column, columns):
    """Return rows and columns of a matrix, fewer at its edges."""
    return matrix[row : min(row + rows, matrix.shape[0]), column : min(column + columns, matrix.shape[1])]


def _load(tile, matrix, row, column, transpose):
    """Load a tile of 128 rows of K, at a row and a column of tiles; `transpose`: they are columns of K."""
    width = tile.shape[1]
    if transpose:
        part = _part(matrix, column * width, width, row * ROWS, ROWS)
        nisa.dma_transpose(dst=tile[0 : part.shape[1], 0 : part.shape[0]], src=part)
    else:
        part = _part(matrix, row * ROWS, ROWS, column * width, width)
        nisa.dma_copy(dst=tile[0 : part.shape[0], 0 : part.shape[1]], src=part)


def _transpose_block(tiles, lhs, m, step):
    """Load rows of A as they are, and transpose them 128 x 128 at a time on the tensor engine."""
    width = tiles[0].shape[1]
    depth = len(tiles) * ROWS
    for row in range(0, min(width, lhs.shape[0] - m * width), ROWS):
        part = _part(lhs, m * width + row, ROWS, step * depth, depth)
        straight = nl.ndarray(part.shape, dtype=lhs.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=straight, src=part)
        for k in range(_parts(part.shape[1], ROWS)):
            square = straight[:, k * ROWS : min((k + 1) * ROWS, part.shape[1])]
            turned = nl.ndarray((square.shape[1], square.shape[0]), dtype=lhs.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=turned, data=square)
            nisa.tensor_copy(dst=tiles[k][0 : square.shape[1], row : row + square.shape[0]], src=turned)


def _multiply(result, lhs_tiles, rhs_tiles, rows, banks, turn, sums, drain, first):
    """Add the product of two blocks to a result in SBUF; return whose turn it is then among the banks."""
    columns = result[0].shape[1]
    tiles_n = _parts(columns, COLUMNS)
    count = len(result) * tiles_n
    together = count if sums == "together" else 1
    for group in range(0, count, together):
        for k in range(_parts(rows, ROWS)):
            deep = min(ROWS, rows - k * ROWS)
            for tile in range(group, group + together):
                m = tile // tiles_n
                start = tile % tiles_n * COLUMNS
                high = result[m].shape[0]
                wide = min(COLUMNS, columns - start)
                nisa.nc_matmul(
                    dst=banks[(turn + tile) % len(banks)][0:high, 0:wide],
                    stationary=lhs_tiles[k][0:deep, m * ROWS : m * ROWS + high],
                    moving=rhs_tiles[k][0:deep, start : start + wide],
                    accumulate=k > 0,
                )
        for tile in range(group, group + together):
            start = tile % tiles_n * COLUMNS
            into = result[tile // tiles_n][:, start : min(start + COLUMNS, columns)]
            bank = banks[(turn + tile) % len(banks)][0 : into.shape[0], 0 : into.shape[1]]
            if first:
                scalar = drain == "scalar" or (drain == "both" and tile % 2 == 1)
                engine = nisa.engine.scalar if scalar else nisa.engine.vector
                nisa.tensor_copy(dst=into, src=bank, engine=engine)
            else:
                nisa.tensor_tensor(dst=into, data1=into, data2=bank, op=nl.add)
    return (turn + count) % len(banks)


def _store(out, result, row, column, dtype):
    """Store a block of the result, rounded to its dtype."""
    for tile in result:
        part = out[row : row + tile.shape[0], column : column + tile.shape[1]]
        row += tile.shape[0]
        if tile.dtype != dtype:
            rounded = nl.ndarray(tile.shape, dtype=dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=rounded, src=tile)
            nisa.dma_copy(dst=part, src=rounded)
        else:
            nisa.dma_copy(dst=part, src=tile)
