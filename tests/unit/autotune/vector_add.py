"""A kernel small enough that a test can write its candidates by hand: out = a + b."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import SearchSpace

LENGTH = 1000
SIGNATURE = "void add(const float *a, const float *b, float *out)"
LOOP = f"for (int i = 0; i < {LENGTH}; i++)"
GOOD = f"{SIGNATURE} {{ {LOOP} out[i] = a[i] + b[i]; }}\n"


def body(text: str, *headers: str) -> str:
    """Return a candidate with this body."""
    return "".join(f"#include <{header}.h>\n" for header in headers) + f"{SIGNATURE} {{ {text} }}\n"


def _outputs(specs: Specs) -> Specs:
    return (TensorSpec("out", specs[0].shape, specs[0].dtype),)


def _add(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any]]:
    return (a + b,)


KERNEL = Kernel(
    name="add",
    entry="add",
    generators={"c": lambda _config, _inputs, _outputs: GOOD},
    outputs=_outputs,
    golden=_add,
    baselines={"NumPy": _add},
    flops=lambda specs: int(np.prod(specs[0].shape)),
    bytes_moved=lambda specs: 12 * int(np.prod(specs[0].shape)),
    space=lambda _specs: SearchSpace({"x": (1,)}),
)
INPUTS = Inputs((TensorSpec("a", (LENGTH,)), TensorSpec("b", (LENGTH,))))
