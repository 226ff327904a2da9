"""Parts of C that every generated kernel uses: element type, vectors, index expressions.

The vectors are GCC's extension (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html), which Clang has
too: the compiler turns the same source into AVX-512, AVX2, SSE or NEON, whichever its target has.
"""

from __future__ import annotations

import functools
import platform
import textwrap
from pathlib import Path

from autotune.model.errors import UsageError
from autotune.model.kernel import Specs

C_TYPES = {"float32": "float", "float64": "double"}
ITEM_BYTES = {"float32": 4, "float64": 8}


def require_c_types(specs: Specs) -> None:
    """Refuse dtypes that the generated C does not have.

    Raises:
        UsageError: it names those that it has, and the backend that has the others.
    """
    for spec in specs:
        if spec.dtype not in C_TYPES:
            raise UsageError(
                f"tensor {spec.name!r}: this kernel's C is of {' or '.join(C_TYPES)}, not {spec.dtype}; its "
                "candidates of the backend numpy take any float: --backend numpy"
            )


@functools.lru_cache(maxsize=1)
def host_vector_bytes() -> int:
    """Return the width of this machine's vector registers in bytes; the compiler splits a wider `vec`."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return 16
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:  # macOS: every x86 Mac that is still supported has AVX2
        return 32
    return 64 if "avx512f" in flags else 32 if "avx2" in flags else 16


def host_registers() -> int:
    """Return how many vector registers this machine has: 32 with AVX-512 or on arm64, otherwise 16."""
    return 32 if host_vector_bytes() == 64 or platform.machine() in {"arm64", "aarch64"} else 16


def lanes(dtype: str, vector_bytes: int) -> int:
    """Return how many elements of `dtype` one vector holds."""
    return vector_bytes // ITEM_BYTES[dtype]


def prelude(dtype: str, vector_bytes: int) -> str:
    """Return the includes and types: `T` an element, `vec` a vector, `uvec` a vector at any address."""
    return f"""\
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef {C_TYPES[dtype]} T;
typedef T vec __attribute__((vector_size({vector_bytes}), may_alias));
typedef T uvec __attribute__((vector_size({vector_bytes}), may_alias, aligned(sizeof(T))));
enum {{ LANES = {lanes(dtype, vector_bytes)} }};
#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
"""


def indent(text: str, levels: int) -> str:
    """Return `text` with every line indented by `levels` times four spaces."""
    return textwrap.indent(text, "    " * levels)


def offset(*terms: tuple[str, int]) -> str:
    """Return the C expression for a sum of index * stride, without the terms that are zero."""
    parts = [index if stride == 1 else f"({index}) * {stride}" for index, stride in terms if stride]
    return " + ".join(parts) or "0"


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple
