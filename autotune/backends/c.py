"""Generated C, compiled by the system's compiler into a shared object, called through a timing loop in C."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends._base import Artifact, Build, Program, digest, write_atomically
from autotune.errors import UnavailableError, UsageError
from autotune.kernel import Specs
from autotune.machine import cpu_name

FLAGS = ("-O3", "-march=native", "-fno-math-errno")
"""No -ffast-math: it lets the compiler assume that NaN and Inf never occur, and they are compared exactly."""

_COMPILERS = ("cc", "gcc", "clang")

_RUNNER = Path(__file__).with_name("runner.c")
MAX_TENSORS = 8
"""As many arguments as runner.c can pass."""


@dataclass(frozen=True)
class CBackend:
    """Compile C with the system's compiler.

    Args:
        compiler: a command or path; empty for $CC, else the first of cc, gcc and clang that is there.
        flags: what the compiler is given besides -shared, -fPIC and -lm.
    """

    compiler: str = ""
    flags: tuple[str, ...] = FLAGS
    name: str = "c"

    def fingerprint(self) -> dict[str, str]:
        """Return compiler, version, flags and CPU; -march=native makes the CPU part of the object."""
        path = self._path()
        return {
            "backend": self.name,
            "compiler": path,
            "version": _version(path),
            "flags": " ".join(self.flags),
            "cpu": cpu_name(),
        }

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Write the source and say how to compile it.

        Raises:
            UsageError: more tensors than the runner passes.
        """
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise UsageError(f"backend c: at most {MAX_TENSORS} tensors, not {len(inputs) + len(outputs)}")
        key = digest(source, entry, *self.fingerprint().values())
        objects = folder / "objects"
        objects.mkdir(parents=True, exist_ok=True)
        target, text = objects / f"{key}.so", objects / f"{key}.c"
        if not text.exists():
            write_atomically(text, source)
        produces = f"{target}.{os.getpid()}.part"
        command = (self._path(), *self.flags, "-shared", "-fPIC", "-o", produces, str(text), "-lm")
        return Build(Artifact(self.name, entry, (str(target),), inputs, outputs), command, produces)

    def runner(self, folder: Path) -> tuple[str, ...]:
        """Compile runner.c where that has not been done; return its path."""
        compiler = self._path()
        target = folder / "objects" / f"runner-{digest(_RUNNER.read_text(), compiler, _version(compiler))}"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = f"{target}.{os.getpid()}.part"
            command = [compiler, "-O2", "-o", part, str(_RUNNER), "-ldl"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise UnavailableError(f"the C compiler does not work: {' '.join(command)}\n{done.stderr}")
            Path(part).replace(target)
        return (str(target),)

    def load(self, artifact: Artifact, _addresses: Sequence[int]) -> Program:
        """Refuse: C candidates are loaded by runner.c.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{artifact.files[0]}: C is loaded by its own runner, not from Python")

    def _path(self) -> str:
        return find_compiler(self.compiler or os.environ.get("CC", ""))


@functools.lru_cache
def find_compiler(wanted: str = "") -> str:
    """Return the path of the compiler that is wanted, or of the first known one.

    Raises:
        UnavailableError: it is not there.
    """
    found = [path for name in ([wanted] if wanted else _COMPILERS) if (path := shutil.which(name))]
    if not found:
        looked = wanted or ", ".join(_COMPILERS)
        raise UnavailableError(
            f"no C compiler: looked for {looked} on PATH. Install one (Debian: apt install gcc) or set CC."
        )
    return found[0]


@functools.lru_cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.partition("\n")[0].strip()
