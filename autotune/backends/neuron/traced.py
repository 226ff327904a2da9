"""One traced run of a candidate outside of any search: its NEFF, its trace, and the profiler's summary."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.backends._base import Backend
from autotune.backends.artifact import Artifact, Build
from autotune.backends.device import HostTensor
from autotune.backends.neuron import profile
from autotune.backends.neuron.device import NeuronDevice
from autotune.model.errors import UnavailableError
from autotune.model.kernel import Specs, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEFF, NTFF, SUMMARY = "kernel.neff", "profile.ntff", "neuron_profile.json"
_LINE = 64
OpenCore = Callable[[str, Sequence[HostTensor], Sequence[HostTensor]], NeuronDevice]


def record(
    backend: Backend,
    open_core: OpenCore,
    source: str,
    entry: str,
    inputs: Sequence[tuple[TensorSpec, NDArray[Any]]],
    outputs: Specs,
    folder: Path,
) -> profile.Profile:
    """Compile a source, call it once on the first free core with its trace, and summarize that.

    Args:
        backend: with its settings.
        open_core: its `open`.
        source: the candidate.
        entry: its function.
        inputs: specs and values.
        outputs: specs.
        folder: gets `kernel.neff`, `profile.ntff` and `neuron_profile.json`.

    Raises:
        UnavailableError: it does not compile, no core is free, or the profiler fails; the trace is kept then.
        DataError: the profiler's summary is not as documented.
        Fault, DeviceFault: the call failed.
    """
    limits = backend.limits()
    with tempfile.TemporaryDirectory(prefix="autotune-") as place, _shared(inputs, outputs) as tensors:
        specs = tuple(spec for spec, _ in inputs)
        artifact = _built(backend.build(source, entry, specs, outputs, Path(place)), limits.compile_s)
        count = len(inputs)
        (core, *_) = backend.devices()
        device = open_core(core, tensors[:count], tensors[count:])
        with contextlib.closing(device), device.limited(limits.run_s):
            loaded = device.load(artifact)
            loaded.poison()
            device.ask("trace", ntff=f"{place}/{NTFF}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.path, folder / NEFF)
        shutil.copyfile(f"{place}/{NTFF}", folder / NTFF)
    found = profile.view(folder / NEFF, folder / NTFF)
    (folder / SUMMARY).write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    return found


def _built(build: Build, limit_s: float) -> Artifact:
    """Run a build's command here; the candidate has compiled before."""
    Path(build.part).mkdir()
    try:
        done = subprocess.run(
            build.command, input=build.source, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"the compiler took more than {limit_s:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UnavailableError(f"the compiler failed: {last}")
    return replace(build.artifact, folder=build.part)


@contextlib.contextmanager
def _shared(
    inputs: Sequence[tuple[TensorSpec, NDArray[Any]]], outputs: Specs
) -> Iterator[Sequence[HostTensor]]:
    """Put the tensors into a memory file, as the tuner's own segment does; the outputs are zero."""
    import mmap

    from autotune.model.tensors import dtype_of, extent_bytes, view_of

    specs = [*(spec for spec, _ in inputs), *outputs]
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end + spec.reach[0] * dtype_of(spec).itemsize)
        end += -(-extent_bytes(spec) // _LINE) * _LINE + _LINE
    file = os.memfd_create("tensors")
    try:
        os.ftruncate(file, end)
        memory = mmap.mmap(file, end)
        for (spec, values), offset in zip(inputs, offsets, strict=False):
            view_of(memory, spec, offset)[...] = values
        yield [
            HostTensor(spec, offset, offset, offset, file, offset)
            for spec, offset in zip(specs, offsets, strict=True)
        ]
    finally:
        os.close(file)
