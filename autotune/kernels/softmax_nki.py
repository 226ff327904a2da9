"""Softmax of each row of a matrix, in NKI: the exponentials and their sum come from one instruction."""

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

ROWS = 128  # partitions


@nki.jit
def softmax(x, pieces=1, scale_on="vector"):
    """Return the softmax of each row.

    Args:
        pieces: parts that a row is loaded, raised and stored in, so that these overlap.
        scale_on: the engine that divides by the sum: "vector" or "scalar".
    """
    rows, columns = x.shape
    width = (columns + pieces - 1) // pieces
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for start in range(0, rows, ROWS):
        high = min(ROWS, rows - start)
        row = nl.ndarray((high, columns), dtype=x.dtype, buffer=nl.sbuf)
        raised = nl.ndarray((high, columns), dtype=nl.float32, buffer=nl.sbuf)
        result = nl.ndarray((high, columns), dtype=x.dtype, buffer=nl.sbuf)
        tops = nl.ndarray((high, pieces), dtype=nl.float32, buffer=nl.sbuf)
        sums = nl.ndarray((high, pieces), dtype=nl.float32, buffer=nl.sbuf)
        top = nl.ndarray((high, 1), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((high, 1), dtype=nl.float32, buffer=nl.sbuf)
        for piece in range(pieces):
            low, end = piece * width, min((piece + 1) * width, columns)
            nisa.dma_copy(dst=row[:, low:end], src=x[start : start + high, low:end])
            nisa.tensor_reduce(dst=tops[:, piece : piece + 1], op=nl.maximum, data=row[:, low:end], axis=1)
        nisa.tensor_reduce(dst=top, op=nl.maximum, data=tops, axis=1, negate=True)
        for piece in range(pieces):
            low, end = piece * width, min((piece + 1) * width, columns)
            nisa.activation_reduce(
                dst=raised[:, low:end],
                op=nl.exp,
                data=row[:, low:end],
                reduce_op=nl.add,
                reduce_res=sums[:, piece : piece + 1],
                bias=top,
            )
        nisa.tensor_reduce(dst=total, op=nl.add, data=sums, axis=1)
        nisa.reciprocal(dst=total, data=total)
        for piece in range(pieces):
            low, end = piece * width, min((piece + 1) * width, columns)
            if scale_on == "scalar":
                nisa.activation(dst=result[:, low:end], op=nl.copy, data=raised[:, low:end], scale=total)
            else:
                nisa.tensor_scalar(
                    dst=result[:, low:end], data=raised[:, low:end], op0=nl.multiply, operand0=total
                )
            nisa.dma_copy(dst=y[start : start + high, low:end], src=result[:, low:end])
    return y
