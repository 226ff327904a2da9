"""Generated C, compiled by the system's compiler into a shared object, called through a timing loop in C."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends._base import Artifact, Build, Program, digest, write_atomically
from autotune.errors import UnavailableError
from autotune.kernel import Specs
from autotune.machine import cpu_name

FLAGS = ("-O3", "-march=native", "-fno-math-errno")
"""No -ffast-math: it lets the compiler assume that NaN and Inf never occur, and they are compared exactly."""

_COMPILERS = ("cc", "gcc", "clang")

# The loop is an object of its own, so that the compiler can neither inline the candidate nor hoist it out of
# the loop. A fatal signal leaves errno behind on its way out: ENOMEM tells a failed malloc from a plain wild
# pointer.
_LOOP = """\
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

static volatile int *errno_at_death;
static char signal_stack[65536];

static void note_errno(int number) {{
    *errno_at_death = errno;
    raise(number);
}}

void autotune_watch(int *where) {{
    static const int fatal[] = {{SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}};
    stack_t stack = {{.ss_sp = signal_stack, .ss_size = sizeof signal_stack}};
    struct sigaction action = {{.sa_handler = note_errno, .sa_flags = SA_RESETHAND | SA_NODEFER |
    SA_ONSTACK}}; errno_at_death = where;
    sigaltstack(&stack, 0);
    for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++) sigaction(fatal[i], &action, 0);
}}

int64_t autotune_time(void (*entry)({types}), void **tensor, int64_t calls) {{
    struct timespec begin, end;
    errno = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int64_t i = 0; i < calls; i++) entry({arguments});
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (int64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
}}
"""


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
        """Write the source, and the timing loop for this many tensors where it is not there yet."""
        arity = len(inputs) + len(outputs)
        key = digest(source, entry, *self.fingerprint().values())
        objects = folder / "objects"
        objects.mkdir(parents=True, exist_ok=True)
        files = (str(objects / f"{key}.so"), self._loop(arity, objects))
        text = objects / f"{key}.c"
        if not text.exists():
            write_atomically(text, source)
        produces = f"{files[0]}.{os.getpid()}.part"
        command = (self._path(), *self.flags, "-shared", "-fPIC", "-o", produces, str(text), "-lm")
        return Build(Artifact(self.name, entry, files, inputs, outputs), command, produces)

    def load(self, artifact: Artifact, addresses: Sequence[int]) -> Program:
        """Load the object and bind it to its tensors.

        Raises:
            OSError: the object cannot be loaded (an undefined symbol).
            AttributeError: the object does not define the entry.
        """
        candidate = ctypes.CDLL(artifact.files[0], mode=os.RTLD_NOW | os.RTLD_LOCAL)
        entry = ctypes.cast(getattr(candidate, artifact.entry), ctypes.c_void_p)
        tensors = (ctypes.c_void_p * len(addresses))(*addresses)
        time_calls = ctypes.CDLL(artifact.files[1]).autotune_time
        time_calls.restype = ctypes.c_int64
        time_calls.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        return lambda calls: int(time_calls(entry, tensors, calls))

    def _path(self) -> str:
        return find_compiler(self.compiler or os.environ.get("CC", ""))

    def _loop(self, arity: int, objects: Path) -> str:
        source = _LOOP.format(
            types=", ".join(["void *"] * arity), arguments=", ".join(f"tensor[{i}]" for i in range(arity))
        )
        target = objects / f"loop{arity}-{digest(source, _version(self._path()))}.so"
        if not target.exists():
            text = target.with_suffix(".c")
            write_atomically(text, source)
            part = f"{target}.{os.getpid()}.part"
            command = [self._path(), "-O2", "-shared", "-fPIC", "-o", part, str(text)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise UnavailableError(f"the C compiler does not work: {' '.join(command)}\n{done.stderr}")
            Path(part).replace(target)
        return str(target)


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
