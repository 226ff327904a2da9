"""NumPy source of C = A B: the block loops of `gemm_c` around `np.matmul`."""

from __future__ import annotations

from autotune.kernels.c_source import indent
from autotune.kernels.gemm_c import ENTRY
from autotune.kernels.narrow import is_narrow
from autotune.model.kernel import Specs
from autotune.model.space import Config


def source(config: Config, inputs: Specs, outputs: Specs, lhs_transposed: bool) -> str:
    """Return Python text that defines `gemm(lhs, rhs, out)`.

    `lhs_position` and `rhs_position` are the depths of the loops that make a part of the operand contiguous.
    Narrow floats become float32 there, and the blocks are added up in float32.
    """
    narrow = is_narrow(inputs)
    total, wide = ("total", ", np.float32") if narrow else ("out", "")
    order = str(config["loop_order"])
    extents = {"M": outputs[0].shape[0], "N": outputs[0].shape[1], "K": inputs[1].shape[0]}
    blocks = {axis: -(-extents[axis] // int(config[f"NUM_BLOCK_{axis}"])) for axis in "MNK"}

    def part(axis: str, depth: int) -> str:
        """Return the slice of an axis that the loops down to `depth` have selected."""
        low = axis.lower()
        return f"{low}:{low} + {blocks[axis]}" if order.index(axis) <= depth else ":"

    def within(axis: str, depth: int) -> str:
        """Return the slice that selects the block from the array that was made contiguous at `depth`."""
        return ":" if order.index(axis) <= depth else part(axis, 2)

    at = {operand: int(config[f"{operand}_position"]) for operand in ("lhs", "rhs")}
    copies = {
        "lhs": f"a = np.ascontiguousarray(lhs[{part('M', at['lhs'])}, {part('K', at['lhs'])}]{wide})",
        "rhs": f"b = np.ascontiguousarray(rhs[{part('K', at['rhs'])}, {part('N', at['rhs'])}]{wide})",
    }
    body = (
        f"product = np.matmul(a[{within('M', at['lhs'])}, {within('K', at['lhs'])}], "
        f"b[{within('K', at['rhs'])}, {within('N', at['rhs'])}])\n"
        f"block = {total}[{part('M', 2)}, {part('N', 2)}]\n"
        "if k == 0:\n    block[...] = product\nelse:\n    block += product"
    )
    for depth in (2, 1, 0):
        axis = order[depth]
        here = [copies[operand] for operand in ("lhs", "rhs") if at[operand] == depth]
        loop = f"for {axis.lower()} in range(0, {extents[axis]}, {blocks[axis]}):"
        body = "\n".join([loop, indent("\n".join([*here, body]), 1)])
    if narrow:
        body = f"total = np.empty(out.shape, np.float32)\n{body}\nout[...] = total"
    transposed = "    lhs = lhs.T\n" if lhs_transposed else ""
    return f"import numpy as np\n\n\ndef {ENTRY}(lhs, rhs, out):\n{transposed}{indent(body, 1)}\n"
