"""Tune how many elements at a time x^3 + x + 1 is computed, so that they stay in the cache."""

from __future__ import annotations

import sys
from typing import Any

from numpy.typing import NDArray

from autotune import Inputs, Kernel, SearchSpace, TensorSpec, script
from autotune.model.kernel import Specs
from autotune.model.space import Config


def source(config: Config, inputs: Specs, outputs: Specs) -> str:  # noqa: ARG001
    """Return the Python text of one candidate."""
    return f"""\
import numpy as np


def cubic(x, y):
    for low in range(0, {inputs[0].shape[0]}, {config["block"]}):
        part, out = x[low : low + {config["block"]}], y[low : low + {config["block"]}]
        np.multiply(part, part, out=out)
        out += 1
        out *= part
        out += 1
"""


def golden(x: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Return what is right, given float64, and the row to beat, given the inputs."""
    return (x * x * x + x + 1,)


def space(specs: Specs) -> SearchSpace:
    """Return the sizes of block that a workload has."""
    elements = specs[0].shape[0]
    return SearchSpace({"block": tuple(sorted({min(block, elements) for block in (256, 4096, 65536)}))})


KERNEL = Kernel(
    name="cubic",
    entry="cubic",
    generators={"numpy": source},
    outputs=lambda specs: (TensorSpec("y", specs[0].shape, specs[0].dtype),),
    golden=golden,
    flops=lambda specs: 4 * specs[0].shape[0],
    bytes_moved=lambda specs: 2 * 4 * specs[0].shape[0],
    space=space,
    baselines={"NumPy": golden},
)


def main() -> int:
    """Read the flags and tune."""
    parser = script.parser("Tune x^3 + x + 1.", budget=3)
    parser.set_defaults(backend="numpy")
    parser.add_argument("--elements", type=int, default=65536, help="the length of x (%(default)s)")
    flags = parser.parse_args()
    inputs = Inputs((TensorSpec("x", (flags.elements,), flags.dtype),))
    return script.main(flags, [script.Case(KERNEL, inputs)])


if __name__ == "__main__":
    sys.exit(main())
