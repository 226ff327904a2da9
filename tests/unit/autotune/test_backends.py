"""The backends: what decides an object, and what a build leaves."""

from __future__ import annotations

import pickle
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vector_add import GOOD, INPUTS, KERNEL

from autotune import backends
from autotune.backends import Artifact, Backend
from autotune.backends.c import CBackend
from autotune.backends.numpy import NumpyBackend
from autotune.model.errors import UnavailableError, UsageError
from autotune.model.kernel import TensorSpec

OUTPUTS = KERNEL.outputs(INPUTS.specs)


def artifact(backend: Backend, source: str, folder: Path) -> Artifact:
    """Build for real, as a worker would."""
    build = backend.build(source, "add", INPUTS.specs, OUTPUTS, folder)
    Path(build.part).mkdir()
    subprocess.run(build.command, input=build.source, text=True, check=True)
    Path(build.part).rename(build.artifact.folder)
    return build.artifact


def test_each_known_name_gives_its_backend() -> None:
    assert list(backends.NAMES) == [backends.get(name).name for name in backends.NAMES]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as refusal:
        backends.get("nump")
    assert "no backend 'nump'; did you mean 'numpy'? Known: c, numpy, neuron." == str(refusal.value)


def test_a_missing_compiler_is_said_with_what_to_install() -> None:
    with pytest.raises(UnavailableError, match=r"looked for no-such-cc on PATH. Install one"):
        CBackend(compiler="no-such-cc").fingerprint()


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "mycc"
    mine.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "mycc 7.1"\n')
    mine.chmod(0o755)
    monkeypatch.setenv("CC", str(mine))
    found = CBackend().fingerprint()
    assert (str(mine), "mycc 7.1") == (found["compiler"], found["version"])


def test_flags_are_part_of_the_fingerprint_and_of_the_object(tmp_path: Path) -> None:
    plain, unrolled = CBackend(flags=("-O2",)), CBackend(flags=("-O2", "-funroll-loops"))
    paths = {
        backend.build(GOOD, "add", INPUTS.specs, OUTPUTS, tmp_path).artifact.path
        for backend in (plain, unrolled, plain)
    }
    assert ("-O2", "-O2 -funroll-loops", 2) == (
        plain.fingerprint()["flags"],
        unrolled.fingerprint()["flags"],
        len(paths),
    )


def test_more_tensors_than_the_runner_passes_are_refused(tmp_path: Path) -> None:
    many = tuple(TensorSpec(f"t{i}", (1,)) for i in range(9))
    with pytest.raises(UsageError, match="at most 8 tensors, got 10"):
        CBackend().build(GOOD, "add", many, OUTPUTS, tmp_path)


@pytest.mark.parametrize("backend", [CBackend(), NumpyBackend()], ids=lambda backend: str(backend.name))
def test_an_artifact_is_a_folder_and_a_description(backend: Backend, tmp_path: Path) -> None:
    source = GOOD if backend.name == "c" else "def add(a, b, out):\n    out[...] = a + b\n"
    made = artifact(backend, source, tmp_path)
    assert [made.main] == [path.name for path in Path(made.folder).iterdir()]
    assert made == pickle.loads(pickle.dumps(made))


def test_numpy_runs_the_entry_on_the_tensors_given(tmp_path: Path) -> None:
    made = artifact(NumpyBackend(), "def add(a, b, out):\n    out[...] = a + b\n", tmp_path)
    a, b, out = np.arange(1000.0, dtype="f4"), np.ones(1000, "f4"), np.zeros(1000, "f4")
    nanoseconds = NumpyBackend().load(made)([array.ctypes.data for array in (a, b, out)])(3)
    assert (True, True) == (nanoseconds > 0, bool((out == a + 1).all()))


def test_a_numpy_candidate_cannot_write_its_inputs(tmp_path: Path) -> None:
    made = artifact(NumpyBackend(), "def add(a, b, out):\n    a[0] = 1\n", tmp_path)
    arrays = [np.zeros(1000, "f4") for _ in range(3)]
    with pytest.raises(ValueError, match="read-only"):
        NumpyBackend().load(made)([array.ctypes.data for array in arrays])(1)


FAULTS = """
import resource, sys
import numpy as np
from autotune.backends.numpy import keep_freed_memory
if sys.argv[1:]:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first, second = np.ones(1 << 20), np.ones(1 << 20)
    del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sorted(faults() for _ in range(5))[2])
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library keeps freed memory otherwise"
)
def test_a_candidate_pays_once_for_the_memory_of_its_arrays() -> None:
    """As a baseline does, which runs in a fork of a program that has freed large arrays before."""
    words = [sys.executable, "-c", FAULTS]
    cold, kept = (int(subprocess.check_output([*words, *more], text=True)) for more in ([], ["kept"]))
    assert kept < 20 < cold
