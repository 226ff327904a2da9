"""Kernels that others measured on hardware, in our own words: the same instructions in the same order.

Source of the kernels and of the times, unless a line says otherwise: github.com/awslabs/nki-autotune (commit
d57bcc3 and its history), one core of trn2, 2048 x 2048 x 2048 in bfloat16. A time that is published as MFU is
2 * 2048^3 operations at that part of 78.64 TFLOP/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.nki.trace import HBM, PSUM, SBUF, Trace
from tests.unit.autotune.nki_traces import Kernel, Part, Tile, tiles

SIZE = 2048


@dataclass(frozen=True)
class Published:
    """Hold a published time beside what the model says of the kernel.

    Args:
        name: what it is called where it was published.
        build: returns its trace.
        us: the published time.
        mfu: the published MFU, None for a kernel without matmuls.
        used: a figure or a rule of the model rests on this time; the others' errors were seen when rules were
            chosen, but for Mamba's.
        estimated_us: what the model says, frozen: whoever changes it must mean to.
        renames: compiled with `enable-linear-scan-allocation=false`.
        task: kernels with one task are compared with each other.
    """

    name: str
    build: Callable[[], Trace]
    us: float
    mfu: float | None
    used: bool
    estimated_us: float
    renames: bool = False
    task: str = "product"


def at_mfu(percent: float, products: int = 1) -> float:
    """Return the us of a number of 2048^3 products at a published MFU."""
    return products * 2 * SIZE**3 / (percent / 100 * 78.6432e6)


def slots(kernel: Kernel, count: int, columns: int, memory: str = SBUF) -> list[Tile]:
    """Return a number of tiles of 128 partitions."""
    return [
        kernel.tile(memory, 128, columns, "float32" if memory == PSUM else "bfloat16") for _ in range(count)
    ]


def square(kernel: Kernel) -> Tile:
    """Return a matrix in HBM."""
    return kernel.tile(HBM, SIZE, SIZE)


def load(
    kernel: Kernel, into: list[Tile], source: Tile, row: int, column: int, transpose: bool = False
) -> None:
    """Fill tiles that lie below each other in a matrix, from a row and a column on; or beside each other."""
    for each, tile in enumerate(into):
        if transpose:
            part = source.part((column, column + tile.columns), (row + each * 128, row + each * 128 + 128))
        else:
            part = source.part((row + each * 128, row + each * 128 + 128), (column, column + tile.columns))
        kernel.dma(tile.whole, part, transpose)


def add_products(
    kernel: Kernel, out: list[Part], lhs: list[Tile], rhs: list[Tile], columns: tuple[int, int], fresh: bool
) -> None:
    """Add a block product to tiles in SBUF; `fresh`: each result has a PSUM tile of its own."""
    psum, sbuf = slots(kernel, 1, 512, PSUM)[0], slots(kernel, 1, 512)[0]
    for (_, begin, end), part in zip(tiles(len(out)), out, strict=True):
        if fresh and begin:
            psum, sbuf = slots(kernel, 1, 512, PSUM)[0], slots(kernel, 1, 512)[0]
        kernel.zero(psum.whole)
        for left, right in zip(lhs, rhs, strict=True):
            kernel.do(
                "nc_matmul", psum.whole, left.part((0, 128), (begin, end)), right.part((0, 128), columns)
            )
        kernel.do("tensor_copy", sbuf.whole, psum.whole)
        kernel.do("tensor_tensor", part, part, sbuf.whole, op="add")


def blocked(rotated: bool, fresh: bool, packed: bool) -> Trace:
    """Blocks of 512 columns, then 1024 of K, then 512 rows, added up in SBUF.

    Args:
        rotated: the kernel makes two and eight sets of tiles and takes them in turn; else a set each time.
        fresh: see `add_products`.
        packed: a block of the result is copied once more before it is stored.
    """
    kernel = Kernel()
    lhs, rhs, out = square(kernel), square(kernel), square(kernel)
    sums = [slots(kernel, 16, 512) for _ in range(4)] if rotated else []
    for n in range(4):
        lefts = [slots(kernel, 8, 512) for _ in range(8)] if rotated else []
        rights = [slots(kernel, 8, 512) for _ in range(2)] if rotated else []
        result = sums[n] if rotated else slots(kernel, 16, 512)
        for tile in result:
            kernel.zero(tile.whole)
        for k in range(2):
            right = rights[k] if rotated else slots(kernel, 8, 512)
            load(kernel, right, rhs, k * 1024, n * 512)
            for m in range(4):
                left = lefts[k * 4 + m] if rotated else slots(kernel, 8, 512)
                load(kernel, left, lhs, k * 1024, m * 512)
                part = [tile.whole for tile in result[m * 4 : m * 4 + 4]]
                add_products(kernel, part, left, right, (0, 512), fresh)
        for row, tile in enumerate(result):
            if packed:
                once, tile = tile, slots(kernel, 1, 512)[0]
                kernel.do("tensor_copy", tile.whole, once.whole)
            kernel.dma(out.part((row * 128, row * 128 + 128), (n * 512, n * 512 + 512)), tile.whole)
    return kernel.trace


def transposed_blocks() -> Trace:
    """Compute lhs @ rhs in blocks of 1024 x 512 x 1024; DMAs transpose lhs anew for each column block."""
    kernel = Kernel()
    lhs, rhs, out = square(kernel), square(kernel), square(kernel)
    lefts = [[slots(kernel, 8, 1024) for _ in range(4)] for _ in range(4)]
    for m in range(2):
        result = slots(kernel, 8, SIZE)
        for tile in result:
            kernel.zero(tile.whole)
        for n in range(4):
            rights = [slots(kernel, 8, 512) for _ in range(8)]
            for k in range(2):
                load(kernel, lefts[k][m], lhs, k * 1024, m * 1024, transpose=True)
                load(kernel, rights[k], rhs, k * 1024, n * 512)
                part = [tile.part((0, 128), (n * 512, n * 512 + 512)) for tile in result]
                add_products(kernel, part, lefts[k][m], rights[k], (0, 512), fresh=True)
            for row, tile in enumerate(result):
                rows = (m * 1024 + row * 128, m * 1024 + row * 128 + 128)
                columns = (n * 512, n * 512 + 512)
                kernel.dma(out.part(rows, columns), tile.part((0, 128), columns))
    return kernel.trace


def resident(lhs_transposed: bool = False, rhs_transposed: bool = False, lhs_by: int = 16) -> Trace:
    """Load both matrices whole, in tiles, and drain one PSUM tile after each 16 matmuls.

    Args:
        lhs_transposed: lhs comes as [M, K] and is transposed by DMA; the same of rhs.
        lhs_by: tiles of 128 rows of the result whose lhs is loaded at a time.
    """
    kernel = Kernel()
    lhs, rhs, out = square(kernel), square(kernel), square(kernel)
    right = [slots(kernel, 4, 512) for _ in range(16)]
    left = [slots(kernel, lhs_by, 128) for _ in range(16)]

    def load_rhs() -> None:
        for k, row in enumerate(right):
            for n, tile in enumerate(row):
                load(kernel, [tile], rhs, k * 128, n * 512, rhs_transposed)

    def load_lhs(block: int) -> None:
        for k, row in enumerate(left):
            for m, tile in enumerate(row):
                load(kernel, [tile], lhs, k * 128, (block * lhs_by + m) * 128, lhs_transposed)

    first_lhs = lhs_by == 16 and not (rhs_transposed and not lhs_transposed)
    if first_lhs:
        load_lhs(0)
    load_rhs()
    result = [slots(kernel, 4, 512) for _ in range(16)]
    psum = slots(kernel, 1, 512, PSUM)[0]
    for m in range(16):
        if m % lhs_by == 0 and not first_lhs:
            load_lhs(m // lhs_by)
        for n in range(4):
            kernel.zero(psum.whole)
            for k in range(16):
                kernel.do("nc_matmul", psum.whole, left[k][m % lhs_by].whole, right[k][n].whole)
            kernel.do("tensor_copy", result[m][n].whole, psum.whole)
    for m, row in enumerate(result):
        for n, tile in enumerate(row):
            kernel.dma(out.part((m * 128, m * 128 + 128), (n * 512, n * 512 + 512)), tile.whole)
    return kernel.trace


def whole_rows(accumulators: int) -> Trace:
    """Load both matrices in whole rows, and drain four PSUM banks after each 64 matmuls."""
    kernel = Kernel()
    lhs, rhs, out = square(kernel), square(kernel), square(kernel)
    left, right, result = (kernel.tile(SBUF, 128, 16 * SIZE) for _ in range(3))
    for tile, source in ((left, lhs), (right, rhs)):
        for k, begin, end in tiles(16):
            kernel.dma(tile.part((0, 128), (k * SIZE, k * SIZE + SIZE)), source.part((begin, end), (0, SIZE)))
    psum = kernel.tile(PSUM, 128, accumulators * SIZE, "float32")
    for m, begin, end in tiles(16):
        first = m % accumulators * SIZE
        kernel.zero(psum.part((0, 128), (first, first + SIZE)))
        for n in range(4):
            for k in range(16):
                kernel.do(
                    "nc_matmul",
                    psum.part((0, 128), (first + n * 512, first + n * 512 + 512)),
                    left.part((0, 128), (k * SIZE + begin, k * SIZE + end)),
                    right.part((0, 128), (k * SIZE + n * 512, k * SIZE + n * 512 + 512)),
                )
        row = result.part((0, 128), (m * SIZE, m * SIZE + SIZE))
        kernel.do("tensor_copy", row, psum.part((0, 128), (first, first + SIZE)))
    for m, begin, end in tiles(16):
        kernel.dma(out.part((begin, end), (0, SIZE)), result.part((0, 128), (m * SIZE, m * SIZE + SIZE)))
    return kernel.trace


def loads_inside() -> Trace:
    """Load both operands of every matmul just before it, into one buffer each."""
    kernel = Kernel()
    lhs, rhs, out = square(kernel), square(kernel), square(kernel)
    left, right, result = (slots(kernel, 1, columns)[0] for columns in (128, 512, 512))
    psum = slots(kernel, 1, 512, PSUM)[0]
    for m in range(16):
        for n in range(4):
            kernel.zero(psum.whole)
            for k in range(16):
                load(kernel, [left], lhs, k * 128, m * 128)
                load(kernel, [right], rhs, k * 128, n * 512)
                kernel.do("nc_matmul", psum.whole, left.whole, right.whole)
            kernel.do("tensor_copy", result.whole, psum.whole)
            kernel.dma(out.part((m * 128, m * 128 + 128), (n * 512, n * 512 + 512)), result.whole)
    return kernel.trace


def two_products() -> Trace:
    """Compute (Q @ K.T) @ V, with Q and K transposed by DMA and the first product by the tensor engine."""
    kernel = Kernel()
    q, k, v, out = (square(kernel) for _ in range(4))
    turned = [slots(kernel, 16, 128) for _ in range(16)]
    left, right, row = slots(kernel, 8, 128), slots(kernel, 16, 512), slots(kernel, 1, 512)[0]
    psum, small = slots(kernel, 1, 512, PSUM)[0], kernel.tile(PSUM, 128, 128)
    for n in range(4):
        load(kernel, right, k, 0, n * 512, transpose=True)
        for m in range(16):
            kernel.zero(psum.whole)
            for half in range(2):
                load(kernel, left, q, half * 1024, m * 128, transpose=True)
                for each, tile in enumerate(left):
                    kernel.do("nc_matmul", psum.whole, tile.whole, right[half * 8 + each].whole)
            kernel.do("tensor_copy", row.whole, psum.whole)
            for each, begin, end in tiles(4):
                kernel.do("nc_transpose", small.whole, row.part((0, 128), (begin, end)))
                kernel.do("tensor_copy", turned[n * 4 + each][m].whole, small.whole)
    result = [slots(kernel, 4, 512) for _ in range(16)]
    values = [slots(kernel, 2, 512) for _ in range(16)]
    psum = slots(kernel, 1, 512, PSUM)[0]
    for block in range(2):
        for each, pair in enumerate(values):
            for side, tile in enumerate(pair):
                load(kernel, [tile], v, each * 128, block * 1024 + side * 512)
        for side in range(2):
            for m in range(16):
                kernel.zero(psum.whole)
                for each in range(16):
                    kernel.do("nc_matmul", psum.whole, turned[each][m].whole, values[each][side].whole)
                kernel.do("tensor_copy", result[m][block * 2 + side].whole, psum.whole)
    for m, tiles_of_row in enumerate(result):
        for n, tile in enumerate(tiles_of_row):
            kernel.dma(out.part((m * 128, m * 128 + 128), (n * 512, n * 512 + 512)), tile.whole)
    return kernel.trace


def normed_product() -> Trace:
    """Compute rmsnorm(A) @ B in blocks of 512 rows: norm, transpose in SBUF by DMA, multiply."""
    kernel = Kernel()
    a, b, out = (square(kernel) for _ in range(3))
    sums = [slots(kernel, 4, 512) for _ in range(4)]
    for m in range(4):
        rows, normed, turned = slots(kernel, 4, SIZE), slots(kernel, 4, SIZE), slots(kernel, 16, 512)
        blocks = [[slots(kernel, 8, 512) for _ in range(2)] for _ in range(4)]
        load(kernel, rows, a, m * 512, 0)
        squares, scales = ([kernel.tile(SBUF, 128, 1, "float32") for _ in range(4)] for _ in range(2))
        scratch = slots(kernel, 1, SIZE)[0]
        for tile in squares:
            kernel.zero(tile.whole)
        for row, total in zip(rows, squares, strict=True):
            kernel.do("activation_reduce", scratch.whole, row.whole, op="square", also=total.whole)
        for total, scale in zip(squares, scales, strict=True):
            kernel.do("tensor_scalar", scale.whole, total.whole, op="multiply add")
        for scale in scales:
            kernel.do("activation", scale.whole, scale.whole, op="rsqrt")
        for row, scale, result in zip(rows, scales, normed, strict=True):
            kernel.do("tensor_scalar", result.whole, row.whole, scale.whole, op="multiply")
        for tile, (_, begin, end) in zip(turned, tiles(16), strict=True):
            for each, first, last in tiles(4):
                kernel.dma(
                    tile.part((0, 128), (first, last)), normed[each].part((0, 128), (begin, end)), True
                )
        for n in range(4):
            for tile in sums[n]:
                kernel.zero(tile.whole)
            for k in range(2):
                load(kernel, blocks[k][n % 2], b, k * 1024, n * 512)
                part = [tile.whole for tile in sums[n]]
                add_products(kernel, part, turned[k * 8 : k * 8 + 8], blocks[k][n % 2], (0, 512), fresh=True)
            for each, tile in enumerate(sums[n]):
                first = m * 512 + each * 128
                kernel.dma(out.part((first, first + 128), (n * 512, n * 512 + 512)), tile.whole)
    return kernel.trace


def scan_of_states(channels: int = 256, steps: int = 512, states: int = 16) -> Trace:
    """Scan states in float32, each operand loaded for each state: SDK 2.26, tutorials/fused_mamba.rst."""
    kernel = Kernel("trn1")
    word = "float32"
    delta, u, out = (kernel.tile(HBM, channels, steps, word) for _ in range(3))
    a = kernel.tile(HBM, channels, states, word)
    b, c = (kernel.tile(HBM, states, steps, word) for _ in range(2))
    for begin in range(0, channels, 128):
        rows = (begin, begin + 128)
        total = kernel.tile(SBUF, 128, steps, word)
        kernel.zero(total.whole)
        for state in range(states):
            names = "delta decay u product input scan weighted"
            tile = {name: kernel.tile(SBUF, 128, steps, word) for name in names.split()}
            rate = kernel.tile(SBUF, 128, 1, word)
            b_row, c_row = (kernel.tile(SBUF, 1, steps, word) for _ in range(2))
            kernel.dma(tile["delta"].whole, delta.part(rows, (0, steps)))
            kernel.dma(rate.whole, a.part(rows, (state, state + 1)))
            kernel.do("activation", tile["decay"].whole, tile["delta"].whole, rate.whole, op="exp")
            kernel.dma(tile["u"].whole, u.part(rows, (0, steps)))
            kernel.dma(b_row.whole, b.part((state, state + 1), (0, steps)))
            pairs = [("product", tile["delta"], tile["u"]), ("input", tile["product"], b_row)]
            for name, one, other in pairs:
                kernel.do("tensor_tensor", tile[name].whole, one.whole, other.whole, op="multiply")
            kernel.do("tensor_tensor_scan", tile["scan"].whole, tile["decay"].whole, tile["input"].whole)
            kernel.dma(c_row.whole, c.part((state, state + 1), (0, steps)))
            kernel.do("tensor_tensor", tile["weighted"].whole, tile["scan"].whole, c_row.whole, op="multiply")
            kernel.do("tensor_tensor", total.whole, total.whole, tile["weighted"].whole, op="add")
        kernel.dma(out.part(rows, (0, steps)), total.whole)
    return kernel.trace


PUBLISHED = (
    Published("hand lhsT_rhs", lambda: blocked(True, True, False), 240.3, 90.92, True, 238.7, True),
    Published("hand lhs_rhs", transposed_blocks, 244.7, 89.26, True, 242.2, True),
    Published("kernel_15, two accumulators", lambda: whole_rows(2), 263.5, 82.9, False, 280.2),
    Published("one accumulator", lambda: whole_rows(1), 366.6, 59.6, True, 343.8),
    Published("kernel_14, loads inside", loads_inside, 1365, 16.0, True, 1543.9),
    Published("manual", lambda: blocked(False, False, True), at_mfu(79.05), 79.05, True, 245.4, True),
    Published(
        "from_manual_ir", lambda: blocked(False, False, False), at_mfu(80.45), 80.45, True, 238.7, True
    ),
    Published("kernel_31, lhsT_rhs", resident, at_mfu(58.60), 58.60, False, 384.9),
    Published("kernel_30, lhs_rhs", lambda: resident(True, lhs_by=2), at_mfu(60.21), 60.21, False, 348.5),
    Published("kernel_83, lhs_rhsT", lambda: resident(True, True), at_mfu(61.73), 61.73, False, 389.9),
    Published("kernel_53, lhsT_rhsT", lambda: resident(False, True), at_mfu(60.57), 60.57, False, 386.2),
    Published("double_matmul, kernel_4", two_products, at_mfu(54.73, 2), 54.73, False, 694.5, task="two"),
    Published("rmsnorm_matmul", normed_product, at_mfu(73.02), 73.02, True, 306.9, True, task="normed"),
    Published("mamba_v1, 256 channels", scan_of_states, 172.93, None, False, 159.5, task="mamba"),
)
"""Every published time whose kernel is small enough for a test; docs/nki-model.md has the others, too."""
