"""RMS norm and a linear layer, in NKI: rows are scaled after the product, when they leave PSUM."""

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
COLUMNS = 512  # float32 elements in a bank of PSUM


@nki.jit
def rmsnorm_linear(x, gain, weight, epsilon=1e-6, transpose="dma", square_on="scalar", drain="vector"):
    """Return (x / rms(x) * gain) W.

    The norm is a factor of each row, and the gain one of each row of W, so that both are applied to what is
    small: the gain once to W, the norm to the product.

    Args:
        transpose: who transposes x: "dma" on the way in, or "tensor", the tensor engine.
        square_on: the engine that sums the squares: "scalar" or "vector".
        drain: the engine that scales the product as it leaves PSUM: "vector", "scalar", or "both" in turn.
    """
    rows, depth = x.shape
    size_n = weight.shape[1]
    y = nl.ndarray((rows, size_n), dtype=x.dtype, buffer=nl.shared_hbm)
    weights = _weights(gain, weight)
    turn = 0
    for start in range(0, rows, ROWS):
        high = min(ROWS, rows - start)
        row = nl.ndarray((high, depth), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=row, src=x[start : start + high, 0:depth])
        factor = _factor(row, epsilon, square_on)
        turned = _transposed(x, row, start, transpose)
        result = nl.ndarray((high, size_n), dtype=x.dtype, buffer=nl.sbuf)
        for column in range(0, size_n, COLUMNS):
            wide = min(COLUMNS, size_n - column)
            total = nl.ndarray((high, wide), dtype=nl.float32, buffer=nl.psum)
            for k in range(len(weights)):
                nisa.nc_matmul(
                    dst=total,
                    stationary=turned[k],
                    moving=weights[k][:, column : column + wide],
                    accumulate=k > 0,
                )
            into = result[:, column : column + wide]
            if drain == "scalar" or (drain == "both" and turn % 2 == 1):
                nisa.activation(dst=into, op=nl.copy, data=total, scale=factor)
            else:
                nisa.tensor_scalar(dst=into, data=total, op0=nl.multiply, operand0=factor)
            turn += 1
        nisa.dma_copy(dst=y[start : start + high, 0:size_n], src=result)
    return y


def _weights(gain, weight):
    """Load W in tiles of 128 rows, each row multiplied by its gain."""
    depth, size_n = weight.shape
    tiles = []
    for start in range(0, depth, ROWS):
        deep = min(ROWS, depth - start)
        tile = nl.ndarray((deep, size_n), dtype=weight.dtype, buffer=nl.sbuf)
        factor = nl.ndarray((deep, 1), dtype=gain.dtype, buffer=nl.sbuf)
        wide = nl.ndarray((deep, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=weight[start : start + deep, 0:size_n])
        nisa.dma_copy(dst=factor, src=gain.reshape((depth, 1))[start : start + deep, 0:1])
        nisa.tensor_copy(dst=wide, src=factor)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=wide)
        tiles.append(tile)
    return tiles


def _factor(row, epsilon, square_on):
    """Return one over the root mean square of each row."""
    high, depth = row.shape
    squares = nl.ndarray((high, depth), dtype=nl.float32, buffer=nl.sbuf)
    factor = nl.ndarray((high, 1), dtype=nl.float32, buffer=nl.sbuf)
    if square_on == "scalar":
        nisa.activation_reduce(dst=squares, op=nl.square, data=row, reduce_op=nl.add, reduce_res=factor)
    else:
        nisa.tensor_tensor(dst=squares, data1=row, data2=row, op=nl.multiply)
        nisa.tensor_reduce(dst=factor, op=nl.add, data=squares, axis=1)
    nisa.tensor_scalar(
        dst=factor, data=factor, op0=nl.multiply, operand0=1.0 / depth, op1=nl.add, operand1=epsilon
    )
    nisa.activation(dst=factor, op=nl.rsqrt, data=factor)
    return factor


def _transposed(x, row, start, transpose):
    """Return 128 rows of x in tiles of 128 rows of the transpose."""
    high, depth = row.shape
    tiles = []
    for k in range(0, depth, ROWS):
        deep = min(ROWS, depth - k)
        tile = nl.ndarray((deep, high), dtype=x.dtype, buffer=nl.sbuf)
        if transpose == "dma":
            nisa.dma_transpose(dst=tile, src=x[start : start + high, k : k + deep])
        else:
            square = nl.ndarray((deep, high), dtype=x.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=square, data=row[:, k : k + deep])
            nisa.tensor_copy(dst=tile, src=square)
        tiles.append(tile)
    return tiles
