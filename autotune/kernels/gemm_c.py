"""C source of C = A B: three loops over cache blocks, packing in their bodies, a register tile inside."""

from __future__ import annotations

from autotune.kernels.c_source import indent, offset, prelude
from autotune.kernels.c_threads import entry_point
from autotune.kernels.dot_tile import TOTAL, DotTile
from autotune.kernels.gemm_packing import Operand
from autotune.kernels.gemm_schedule import Blocking, Product, Schedule
from autotune.kernels.register_tile import RegisterTile, with_edges
from autotune.model.kernel import Specs
from autotune.model.space import Config

ENTRY = "gemm"


def source(config: Config, inputs: Specs, outputs: Specs, lhs_transposed: bool) -> str:
    """Return the C source of one candidate."""
    product = Product.of(inputs, outputs, lhs_transposed)
    blocking = Blocking(product, Schedule.of(config))
    schedule = blocking.schedule
    lhs, rhs = Operand("lhs", blocking), Operand("rhs", blocking)
    tiles, dispatch = _tiles(blocking, lhs, rhs)
    packed = [operand for operand in (lhs, rhs) if operand.packed]
    return "\n".join(
        [
            prelude(product.dtype, schedule.vector_bytes),
            TOTAL if schedule.vector_axis == "K" else "",
            tiles,
            *(operand.pack_function() for operand in packed),
            *(operand.buffer_declaration() for operand in packed),
            "",
            _share(blocking, lhs, rhs, dispatch),
            entry_point(ENTRY, ["lhs", "rhs"], ["out"], schedule.threads),
        ]
    )


def _tiles(blocking: Blocking, lhs: Operand, rhs: Operand) -> tuple[str, str]:
    """Return the register tiles that this product needs, and the statement that calls the right one."""
    product, schedule = blocking.product, blocking.schedule
    tile: RegisterTile | DotTile
    if schedule.vector_axis == "K":
        tile = DotTile(blocking.tile_m, blocking.tile_n, lhs.strides[0], rhs.strides[0], product.out)
    else:
        tile = RegisterTile(
            rows=blocking.tile_m,
            columns=blocking.tile_n,
            lhs_strides=lhs.strides,
            rhs_stride=rhs.strides[1],
            out_strides=product.out,
            lanes=blocking.lanes,
            unroll_k=schedule.unroll_k,
            padded=rhs.packed,
        )
    fits = (f"i + {blocking.tile_m} <= {product.m}", f"j + {blocking.tile_n} <= {product.n}")
    depth = f"MIN({blocking.block('K')}, {product.k} - k)"
    return with_edges(tile, (product.m, product.n), fits, f"a, b, c, {depth}, k > 0")


def _share(blocking: Blocking, lhs: Operand, rhs: Operand, dispatch: str) -> str:
    """Return the function that computes one thread's share: the three block loops."""
    product, schedule = blocking.product, blocking.schedule
    bounds = {"M": ("m_low", "m_high"), "N": ("n_low", "n_high"), "K": ("0", str(product.k))}
    shared = "M" if blocking.shares_rows else "N"
    low = f"thread * {blocking.share(shared)}"
    limits = {"M": ("0", str(product.m)), "N": ("0", str(product.n))}
    limits[shared] = (low, f"MIN({low} + {blocking.share(shared)}, {limits[shared][1]})")
    body = (
        f"for (ptrdiff_t j = n; j < MIN(n + {blocking.block('N')}, n_high); j += {blocking.tile_n})\n"
        f"    for (ptrdiff_t i = m; i < MIN(m + {blocking.block('M')}, m_high); i += {blocking.tile_m}) {{\n"
        f"        const T *a = {lhs.pointer('i')}, *b = {rhs.pointer('j')};\n"
        f"        T *c = out + {offset(('i', product.out[0]), ('j', product.out[1]))};\n"
        f"{indent(dispatch, 2)}\n"
        "    }"
    )
    for depth in (2, 1, 0):
        axis = schedule.loop_order[depth]
        packs = [
            operand.pack_call() for operand in (lhs, rhs) if operand.packed and operand.position == depth
        ]
        index, (first, last) = axis.lower(), bounds[axis]
        loop = f"for (ptrdiff_t {index} = {first}; {index} < {last}; {index} += {blocking.block(axis)}) {{"
        body = "\n".join([loop, indent("\n".join([*packs, body]), 1), "}"])
    packs = [f"    T *{o.name}_pack = {o.name}_packs[thread];" for o in (lhs, rhs) if o.packed]
    lines = [
        "static void share(ptrdiff_t thread, const T *lhs, const T *rhs, T *out) {",
        f"    const ptrdiff_t m_low = {limits['M'][0]}, m_high = {limits['M'][1]};",
        f"    const ptrdiff_t n_low = {limits['N'][0]}, n_high = {limits['N'][1]};",
        *packs,
        indent(body, 1),
        "}",
        "",
    ]
    return "\n".join(lines)
