"""How many threads NumPy's BLAS uses: a reference is to be measured with one and with all."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBRARIES = re.compile(r"blas|mkl_rt|blis|omp")
_OPENBLAS = [f"{prefix}openblas_{{}}_num_threads{end}" for prefix in ("", "scipy_") for end in ("", "64_")]
_NAMES = (*_OPENBLAS, "MKL_{}_Num_Threads", "bli_thread_{}_num_threads", "omp_{}_num_threads")
"""OpenBLAS, as distributions and as NumPy's own wheels name it; MKL; BLIS; and what OpenMP builds ask."""


def thread_counts() -> tuple[int, ...]:
    """Return the counts that are worth measuring: one and all; none where they cannot be set."""
    cores = len(os.sched_getaffinity(0))
    return (1, cores) if cores > 1 and any(functions("set")) else ()


def use_threads(count: int) -> None:
    """Have the BLAS of this process use so many threads."""
    for setter in functions("set"):
        setter(ctypes.c_int(count))


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the OpenBLAS of this process to one thread inside a `with`.

    Its other threads spin for a while after their work is done, beside what is measured next, and for small
    matrices they cost more than they bring.
    """
    before = [(setter, getter()) for getter, setter in _openblas()]
    for setter, _ in before:
        setter(1)
    try:
        yield
    finally:
        for setter, count in before:
            setter(count)


@functools.cache
def _openblas() -> list[tuple[Callable[..., int], Callable[..., int]]]:
    """Return what gets and what sets the count of each OpenBLAS that is loaded when first asked."""
    found = ([each for each in functions(verb) if "openblas" in each.__name__] for verb in ("get", "set"))
    return list(zip(*found, strict=True))


def functions(verb: str) -> Iterator[Callable[..., int]]:
    """Find what sets ("set") or returns ("get") the count, in each library that has it and is loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    paths = {line[line.index("/") :] for line in maps.splitlines() if "/" in line}
    for path in sorted(path for path in paths if _LIBRARIES.search(path.rpartition("/")[2])):
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:  # another file of that name, mapped but not a library
            continue
        names = (name.format(verb) for name in _NAMES)
        yield from (getattr(library, name) for name in names if hasattr(library, name))
