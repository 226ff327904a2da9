"""The transpose of a matrix, in NKI: by the DMA engines, or 128 x 128 at a time on the tensor engine."""

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
def transpose(x, method="dma", block=512, drain="vector"):
    """Return the transpose, row by row.

    Args:
        method: "dma" transposes on the way in, "tensor" on the tensor engine.
        block: rows of x that become one part of a row of the result.
        drain: the engine that copies out of PSUM: "vector", "scalar", or "both" in turn.
    """
    rows, columns = x.shape
    y = nl.ndarray((columns, rows), dtype=x.dtype, buffer=nl.shared_hbm)
    for row in range(0, rows, block):
        wide = min(block, rows - row)
        if method == "dma":
            for column in range(0, columns, ROWS):
                high = min(ROWS, columns - column)
                turned = nl.ndarray((high, wide), dtype=x.dtype, buffer=nl.sbuf)
                nisa.dma_transpose(dst=turned, src=x[row : row + wide, column : column + high])
                nisa.dma_copy(dst=y[column : column + high, row : row + wide], src=turned)
        else:
            _on_tensor_engine(y, x, row, wide, drain)
    return y


def _on_tensor_engine(y, x, row, wide, drain):
    """Transpose some rows: they are loaded whole, and each 128 columns of them stored at once."""
    columns = x.shape[1]
    straight = []
    for start in range(0, wide, ROWS):
        high = min(ROWS, wide - start)
        tile = nl.ndarray((high, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[row + start : row + start + high, 0:columns])
        straight.append(tile)
    turn = 0
    for column in range(0, columns, ROWS):
        high = min(ROWS, columns - column)
        turned = nl.ndarray((high, wide), dtype=x.dtype, buffer=nl.sbuf)
        for place in range(len(straight)):
            count = straight[place].shape[0]
            square = nl.ndarray((high, count), dtype=x.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=square, data=straight[place][:, column : column + high])
            scalar = drain == "scalar" or (drain == "both" and turn % 2 == 1)
            nisa.tensor_copy(
                dst=turned[:, place * ROWS : place * ROWS + count],
                src=square,
                engine=nisa.engine.scalar if scalar else nisa.engine.vector,
            )
            turn += 1
        nisa.dma_copy(dst=y[column : column + high, row : row + wide], src=turned)
