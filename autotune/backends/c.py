"""Generated C, compiled by the system's compiler into a shared object, called through a timing loop in C."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from autotune.backends._base import Backend
from autotune.backends.artifact import Artifact, Build, object_name
from autotune.machine.cpu import (
    accepts,
    built_program,
    compiler_version,
    find_compiler,
    machine_facts,
    roofline,
)
from autotune.model.errors import UsageError
from autotune.model.kernel import Specs
from autotune.model.roofline import Roofline

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
_INCLUDES = re.compile(r"^[ \t]*#[ \t]*(?:include\s*(?:[^<\s]|<[./])|embed)|\.incbin", re.M)
"""Finds what may include a file that is not a system header: a quoted name, a macro, a path."""
_BINARY = re.compile(r'\.incbin\s*\\?"([^"\\]+)')
_INCLUDING = ("-I", "-i", "--include", "-B")
_RUNNER = Path(__file__).with_name("runner.c")
MAX_TENSORS = 8
"""The most arguments that runner.c can pass."""


@dataclass(frozen=True)
class CBackend(Backend):
    """Compile C with the system's compiler.

    Args:
        compiler: a command, with arguments if need be (`ccache gcc`); empty for $CC or, if that is unset, the
            first of cc, gcc and clang found.
        flags: for the compiler, besides -shared, -fPIC and the libraries; a string is split as a shell does.
    """

    compiler: str = ""
    flags: tuple[str, ...] = FLAGS
    name: str = "c"

    def __post_init__(self) -> None:
        """Split flags that are given as one string, as a shell does."""
        flags = shlex.split(self.flags) if isinstance(self.flags, str) else tuple(self.flags)
        object.__setattr__(self, "flags", tuple(flags))

    def fingerprint(self) -> dict[str, str]:
        """Return compiler, version, flags and CPU; -march=native makes the CPU part of the object."""
        command = self._command()
        return {
            "backend": self.name,
            "compiler": shlex.join(command),
            "version": compiler_version(command),
            "flags": shlex.join(self.flags),
            **machine_facts(),
        }

    def includes(self, source: str) -> dict[str, str]:
        """Return the files that a source includes, without system headers: they change with the compiler.

        Only sources that name such a file are preprocessed, which takes milliseconds.
        """
        if not _INCLUDES.search(source) and not any(flag.startswith(_INCLUDING) for flag in self.flags):
            return {}
        return dict(_included(self._command(), self.flags, source))

    def build(self, source: str, entry: str, inputs: Specs, outputs: Specs, folder: Path) -> Build:
        """Return how to compile a source.

        Raises:
            UsageError: the kernel has more tensors than the runner can pass.
        """
        if len(inputs) + len(outputs) > MAX_TENSORS:
            raise UsageError(f"backend c: at most {MAX_TENSORS} tensors, got {len(inputs) + len(outputs)}")
        key = object_name(source, entry, *self.fingerprint().values())
        artifact = Artifact(self.name, entry, str(folder / key), "kernel.so", inputs, outputs)
        part = f"{artifact.folder}.{os.getpid()}.part"
        compiler = self._command()
        without = accepts(compiler, _NO_LIBC) and not any(name in source for name in _VERSIONED)
        shared = ("-shared", "-fPIC", *([_NO_LIBC] if without else []))
        target = f"{part}/{artifact.main}"
        command = (*compiler, *self.flags, *shared, "-o", target, "-x", "c", "-", "-lm", "-lpthread")
        return Build(artifact, source, command, part)

    def runner(self) -> tuple[str, ...]:
        """Return the path of the program built from runner.c."""
        return (str(built_program(_RUNNER, self._command(), ("-O2",))),)

    def roofline(self, dtype: str, *, again: bool = False) -> Roofline | None:
        """Return the measured limits of the cores that may be used."""
        return roofline(dtype, again=again)

    def _command(self) -> tuple[str, ...]:
        return find_compiler(self.compiler or os.environ.get("CC", ""))


def _included(compiler: tuple[str, ...], flags: tuple[str, ...], source: str) -> dict[str, str]:
    done = subprocess.run(
        [*compiler, *flags, "-MM", "-MG", "-x", "c", "-"],
        input=source.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    _target, _, rest = done.stdout.decode(errors="surrogateescape").replace("\\\n", " ").partition(":")
    names = [*shlex.split(rest), *_BINARY.findall(source)]
    return {name: _file_digest(Path(name)) for name in names if name != "-"}


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    except OSError:
        return "missing"
