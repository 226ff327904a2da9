"""Generated C, compiled by the system's compiler into a shared object, called through a timing loop in C."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends._base import Artifact, Build, Program, digest
from autotune.machine.cpu import accepts, built_program, compiler_version, cpu_name, find_compiler
from autotune.model.errors import UsageError
from autotune.model.kernel import Specs

FLAGS = ("-O3", "-march=native", "-fno-math-errno")
"""No -ffast-math: it lets the compiler assume that NaN and Inf never occur, and they are compared exactly."""

_NO_LIBC = "-nolibc"
"""The runner has loaded libc: looking its names up takes the linker a fifth of a small compilation."""
_VERSIONED = (
    "affinity", "fmemopen", "glob", "lio_listio", "nftw", "posix_spawn", "pthread_cond_", "pthread_kill",
    "quick_exit", "realpath", "regexec", "timer_",
)  # fmt: skip
"""Parts of names of which glibc keeps an older function too (`nm -D libc.so.6`), which behaves otherwise:
the loader may bind an object that was not linked with libc to that. memcpy's is memmove, and as good."""
_RUNNER = Path(__file__).with_name("runner.c")
MAX_TENSORS = 8
"""As many arguments as runner.c can pass."""


@dataclass(frozen=True)
class CBackend:
    """Compile C with the system's compiler.

    Args:
        compiler: a command or path; empty for $CC, else the first of cc, gcc and clang that is there.
        flags: what the compiler is given besides -shared, -fPIC and what is linked.
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
        """Say how to compile a source.

        Raises:
            UsageError: more tensors than the runner passes.
        """
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise UsageError(f"backend c: at most {MAX_TENSORS} tensors, not {len(inputs) + len(outputs)}")
        key = digest(source, entry, *self.fingerprint().values())
        target = str(folder / f"{key}.so")
        produces = f"{target}.{os.getpid()}.part"
        compiler = self._path()
        without = accepts(compiler, _NO_LIBC) and not any(name in source for name in _VERSIONED)
        shared = ("-shared", "-fPIC", *([_NO_LIBC] if without else []))
        command = (compiler, *self.flags, *shared, "-o", produces, "-x", "c", "-", "-lm", "-lpthread")
        return Build(Artifact(self.name, entry, (target,), inputs, outputs), source, command, produces)

    def runner(self) -> tuple[str, ...]:
        """Return the path of runner.c's program."""
        return (str(built_program(_RUNNER, self._path(), ("-O2",))),)

    def load(self, artifact: Artifact, _addresses: Sequence[int]) -> Program:
        """Refuse: C candidates are loaded by runner.c.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{artifact.files[0]}: C is loaded by its own runner, not from Python")

    def _path(self) -> str:
        return find_compiler(self.compiler or os.environ.get("CC", ""))
