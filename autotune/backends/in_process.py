"""Call a compiled C candidate from this process, without a tuner: what a tuned kernel is for."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autotune.backends.c import CBackend
from autotune.machine.cpu import not_private, program_folder
from autotune.model.errors import UnavailableError
from autotune.model.kernel import Specs
from autotune.model.tensors import Array, dtype_of


def loaded(
    backend: CBackend, source: str, entry: str, inputs: Specs, outputs: Specs
) -> Callable[..., Array | tuple[Array, ...]]:
    """Return a candidate as a function that takes its inputs and returns its outputs.

    It is compiled for this machine once, and kept where the tuner keeps its own programs.

    Args:
        backend: compiles it.
        source: the candidate.
        entry: its function.
        inputs: specs of the inputs; their arrays are copied if they are not in C order.
        outputs: specs of the outputs, which are made anew for each call.

    Raises:
        UnavailableError: it cannot be compiled, or kept.
    """
    function = getattr(ctypes.CDLL(_compiled(backend, source, entry, inputs, outputs)), entry)
    function.restype = None

    def call(*tensors: Array) -> Array | tuple[Array, ...]:
        made = [np.empty(spec.shape, dtype_of(spec)) for spec in outputs]
        arrays = [
            *(np.asarray(each, order="C") for each in tensors),
            *made,
        ]
        function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))
        return made[0] if len(made) == 1 else tuple(made)

    return call


def _compiled(backend: CBackend, source: str, entry: str, inputs: Specs, outputs: Specs) -> str:
    folder = program_folder() / "kernels"
    build = backend.build(source, entry, inputs, outputs, folder)
    part = Path(build.part)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := not_private(folder):
            raise UnavailableError(why)
        if not Path(build.artifact.path).is_file():
            part.mkdir(exist_ok=True)
            done = subprocess.run(
                build.command, input=build.source, text=True, capture_output=True, check=False
            )
            if done.returncode:
                raise UnavailableError(f"cannot compile {entry}: {' '.join(build.command)}\n{done.stderr}")
            part.rename(build.artifact.folder)
    except OSError as fault:
        raise UnavailableError(
            f"nowhere to keep {entry}: {fault}; make {folder} writable, or set XDG_CACHE_HOME"
        ) from fault
    return build.artifact.path
