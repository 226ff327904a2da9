"""Generated C, compiled by the system's compiler into a shared object, called through a timing loop in C."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends._base import Artifact, Build, Program, object_name
from autotune.machine.cpu import accepts, built_program, compiler_version, cpu_name, find_compiler
from autotune.model.errors import UsageError
from autotune.model.kernel import Specs

FLAGS = ("-O3", "-march=native", "-fno-math-errno")
"""Without -ffast-math, which lets the compiler assume that no value is NaN or Inf: outputs may have both."""

_NO_LIBC = "-nolibc"
"""The runner has loaded libc already, and linking it takes a fifth of the time of a small compilation."""
_VERSIONED = (
    "affinity", "fmemopen", "glob", "lio_listio", "nftw", "posix_spawn", "pthread_cond_", "pthread_kill",
    "quick_exit", "realpath", "regexec", "timer_",
)  # fmt: skip
"""Parts of the names of functions that glibc keeps in an older version too, with other behaviour (`nm -D
libc.so.6`). The loader may bind an object that was not linked with libc to the older one. memcpy is not
listed: its older version is memmove."""
_RUNNER = Path(__file__).with_name("runner.c")
MAX_TENSORS = 8
"""The most arguments that runner.c can pass."""


@dataclass(frozen=True)
class CBackend:
    """Compile C with the system's compiler.

    Args:
        compiler: a command or path; empty for $CC or, if that is unset, the first of cc, gcc and clang found.
        flags: for the compiler, besides -shared, -fPIC and the libraries.
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
            "version": compiler_version(path),
            "flags": " ".join(self.flags),
            "cpu": cpu_name(),
        }

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how to compile a source.

        Raises:
            UsageError: the kernel has more tensors than the runner can pass.
        """
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise UsageError(f"backend c: at most {MAX_TENSORS} tensors, got {len(inputs) + len(outputs)}")
        key = object_name(source, entry, *self.fingerprint().values())
        target = str(folder / f"{key}.so")
        produces = f"{target}.{os.getpid()}.part"
        compiler = self._path()
        without = accepts(compiler, _NO_LIBC) and not any(name in source for name in _VERSIONED)
        shared = ("-shared", "-fPIC", *([_NO_LIBC] if without else []))
        command = (compiler, *self.flags, *shared, "-o", produces, "-x", "c", "-", "-lm", "-lpthread")
        return Build(Artifact(self.name, entry, (target,), inputs, outputs), source, command, produces)

    def runner(self) -> tuple[str, ...]:
        """Return the path of the program built from runner.c."""
        return (str(built_program(_RUNNER, self._path(), ("-O2",))),)

    def load(self, artifact: Artifact, _addresses: Sequence[int]) -> Program:
        """Fail: runner.c loads C candidates.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{artifact.files[0]}: runner.c loads C candidates, Python cannot")

    def _path(self) -> str:
        return find_compiler(self.compiler or os.environ.get("CC", ""))
