"""Attention of one head, in NKI: softmax(Q Kᵀ / sqrt(d)) V, 128 queries at a time.

All keys and values stay in SBUF. The scores of 128 queries with all keys are summed 512 keys at a
time, and go to SBUF; one instruction raises them and sums the powers; the powers are transposed,
since the second product contracts over the keys; the division by the sum comes last, when it is
smallest.
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

ROWS = 128  # partitions: queries in a tile, and keys in a tile of the second product
COLUMNS = 512  # float32 elements in a bank of PSUM: keys in a tile of the first product


@nki.jit
def attention(q, k, v, transpose="dma", turn="tensor", drain="vector"):
    """Return the attention of queries over keys and values; each is [tokens, d], with d up to 128.

    Args:
        transpose: who transposes q and k: "dma" on the way in, or "tensor", the tensor engine.
        turn: who transposes the powers: "tensor" or "dma".
        drain: the engine that copies scores out of PSUM: "vector", "scalar", or "both" in turn.
    """
    tokens, depth = q.shape
    keys = k.shape[0]
    out = nl.ndarray((tokens, depth), dtype=q.dtype, buffer=nl.shared_hbm)
    turned_k = _transposed(k, 0, keys, transpose)
    values = []
    for start in range(0, keys, ROWS):
        tile = nl.ndarray((min(ROWS, keys - start), depth), dtype=v.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=v[start : start + tile.shape[0], 0:depth])
        values.append(tile)
    for start in range(0, tokens, ROWS):
        high = min(ROWS, tokens - start)
        turned_q = _transposed(q, start, high, transpose)
        scores = _scores(turned_q, turned_k, drain)
        raised, factor = _raised(scores, depth, q.dtype)
        result = nl.ndarray((high, depth), dtype=q.dtype, buffer=nl.sbuf)
        total = nl.ndarray((high, depth), dtype=nl.float32, buffer=nl.psum)
        for place in range(len(values)):
            wide = values[place].shape[0]
            part = raised[:, place * ROWS : place * ROWS + wide]
            nisa.nc_matmul(
                dst=total, stationary=_turned(part, turn), moving=values[place], accumulate=place > 0
            )
        nisa.tensor_scalar(dst=result, data=total, op0=nl.multiply, operand0=factor)
        nisa.dma_copy(dst=out[start : start + high, 0:depth], src=result)
    return out


def _transposed(matrix, start, count, transpose):
    """Return rows of a matrix as columns."""
    depth = matrix.shape[1]
    turned = nl.ndarray((depth, count), dtype=matrix.dtype, buffer=nl.sbuf)
    if transpose == "dma":
        for row in range(0, count, COLUMNS):
            end = min(row + COLUMNS, count)
            nisa.dma_transpose(dst=turned[:, row:end], src=matrix[start + row : start + end, 0:depth])
        return turned
    for row in range(0, count, ROWS):
        end = min(row + ROWS, count)
        straight = nl.ndarray((end - row, depth), dtype=matrix.dtype, buffer=nl.sbuf)
        square = nl.ndarray((depth, end - row), dtype=matrix.dtype, buffer=nl.psum)
        nisa.dma_copy(dst=straight, src=matrix[start + row : start + end, 0:depth])
        nisa.nc_transpose(dst=square, data=straight)
        nisa.tensor_copy(dst=turned[:, row:end], src=square)
    return turned


def _scores(turned_q, turned_k, drain):
    """Return the products of some queries with all keys."""
    high, keys = turned_q.shape[1], turned_k.shape[1]
    scores = nl.ndarray((high, keys), dtype=nl.float32, buffer=nl.sbuf)
    for place in range(0, keys, COLUMNS):
        end = min(place + COLUMNS, keys)
        bank = nl.ndarray((high, end - place), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=bank, stationary=turned_q, moving=turned_k[:, place:end])
        scalar = drain == "scalar" or (drain == "both" and place // COLUMNS % 2 == 1)
        engine = nisa.engine.scalar if scalar else nisa.engine.vector
        nisa.tensor_copy(dst=scores[:, place:end], src=bank, engine=engine)
    return scores


def _raised(scores, depth, dtype):
    """Return e to the scaled scores less their maximum, and one over the sum of each row."""
    high, keys = scores.shape
    scale = depth**-0.5
    top = nl.ndarray((high, 1), dtype=nl.float32, buffer=nl.sbuf)
    factor = nl.ndarray((high, 1), dtype=nl.float32, buffer=nl.sbuf)
    raised = nl.ndarray((high, keys), dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=top, op=nl.maximum, data=scores, axis=1)
    nisa.tensor_scalar(dst=top, data=top, op0=nl.multiply, operand0=-scale)
    nisa.activation_reduce(
        dst=raised, op=nl.exp, data=scores, reduce_op=nl.add, reduce_res=factor, bias=top, scale=scale
    )
    nisa.reciprocal(dst=factor, data=factor)
    return raised, factor


def _turned(part, turn):
    """Return a part of the powers with keys in the partitions."""
    high, wide = part.shape
    turned = nl.ndarray((wide, high), dtype=part.dtype, buffer=nl.sbuf)
    if turn == "dma":
        nisa.dma_transpose(dst=turned, src=part)
    else:
        square = nl.ndarray((wide, high), dtype=part.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=square, data=part)
        nisa.tensor_copy(dst=turned, src=square)
    return turned
