"""Compile one candidate with the real compiler and call it in this process."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune import backends
from autotune.model.kernel import Kernel, Specs, TensorSpec
from autotune.model.space import Config

Array = NDArray[Any]


def spec_of(name: str, array: Array) -> TensorSpec:
    """Describe an array, strides included."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return TensorSpec(name, array.shape, array.dtype.name, strides)


def draw(specs: Specs, seed: int = 0) -> list[Array]:
    """Draw an array for each spec."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(spec.shape).astype(spec.dtype) for spec in specs]


def run(kernel: Kernel, config: Config, arrays: list[Array], folder: Path, out: Array | None = None) -> Array:
    """Return what a candidate of the `c` backend writes, NaN where it writes nothing.

    Args:
        kernel: the kernel.
        config: the config.
        arrays: the inputs, with whatever strides they have.
        folder: where objects are kept.
        out: the output; None for a new one in C order.
    """
    if out is None:
        (expected,) = kernel.outputs(_specs(arrays))
        out = np.empty(expected.shape, expected.dtype)
    out[...] = np.nan
    artifact = compiled(kernel, config, arrays, folder, out)
    call = getattr(ctypes.CDLL(artifact.path), artifact.entry)
    call(*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, out)))
    return out


def compiled(
    kernel: Kernel, config: Config, arrays: list[Array], folder: Path, out: Array | None = None
) -> backends.Artifact:
    """Compile a candidate, with every warning an error."""
    inputs = _specs(arrays)
    outputs = kernel.outputs(inputs) if out is None else (spec_of("out", out),)
    source = kernel.generators["c"](config, inputs, outputs)
    build = backends.get("c").build(source, kernel.entry, inputs, outputs, folder)
    if not Path(build.artifact.path).exists():
        Path(build.part).mkdir()
        command = [*build.command, "-Wall", "-Werror"]
        subprocess.run(command, input=build.source, text=True, check=True, timeout=60)
        Path(build.part).rename(build.artifact.folder)
    return build.artifact


def _specs(arrays: list[Array]) -> Specs:
    return tuple(spec_of(f"in{i}", array) for i, array in enumerate(arrays))


def golden(kernel: Kernel, arrays: list[Array]) -> Array:
    """Return the exact output, rounded to the inputs' type."""
    (exact,) = kernel.golden(*(array.astype(np.float64) for array in arrays))
    return exact.astype(arrays[0].dtype)
