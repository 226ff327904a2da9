"""Cheats: candidates that are wrong, or seem faster than they are, and that no tuner may believe.

    from autotune.testing import CHEATS, believed
    assert not believed()

Each is a kernel with one config. They are for people who change this tuner, write a backend, or want to know
what another tuner lets pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.space import SearchSpace
from autotune.model.timing import Timing
from autotune.model.trial import Status, Trial
from autotune.tuner import tune

_LENGTH = 1000
_VECTORS = Inputs((TensorSpec("a", (_LENGTH,)), TensorSpec("b", (_LENGTH,))))
_HEAD = "void add(const float *a, const float *b, float *out)"
_ADD = f"for (int i = 0; i < {_LENGTH}; i++) out[i] = a[i] + b[i];"


@dataclass(frozen=True)
class Cheat:
    """A candidate that must not end ok.

    Attributes:
        name: for messages.
        what: what it does, in one line.
        kernel: a kernel whose only config is this candidate.
        inputs: its inputs.
        backend: of the candidate.
    """

    name: str
    what: str
    kernel: Kernel
    inputs: Inputs
    backend: str = "c"


def believed(cheats: Sequence[Cheat] | None = None, timing: Timing | None = None) -> dict[str, Trial]:
    """Tune each cheat; return name -> trial of those that ended ok.

    Args:
        cheats: all of them by default.
        timing: how they are timed; the tuner's default if None.
    """
    found = {}
    for cheat in CHEATS if cheats is None else cheats:
        with tempfile.TemporaryDirectory(prefix="autotune-cheat-") as cache:
            result = tune(cheat.kernel, cheat.inputs, backend=cheat.backend, cache_dir=cache, timing=timing)
        for trial in result.trials:
            if trial.status is Status.OK:
                found[cheat.name] = trial
    return found


def _cheat(
    name: str,
    what: str,
    source: str,
    *,
    inputs: Inputs = _VECTORS,
    output: TensorSpec | None = None,
    golden: Callable[..., Any] = lambda a, b: (a + b,),
    backend: str = "c",
) -> Cheat:
    out = output or TensorSpec("out", (_LENGTH,))
    kernel = Kernel(
        name=f"cheat_{name}",
        entry="add",
        generators={backend: lambda *_: source},
        outputs=lambda _specs: (out,),
        golden=golden,
        flops=lambda _specs: _LENGTH,
        bytes_moved=lambda _specs: 12 * _LENGTH,
        space=lambda _specs: SearchSpace({"only": (0,)}),
    )
    return Cheat(name, what, kernel, inputs, backend)


_THREAD = f"""
#include <pthread.h>
#include <stdatomic.h>
static const float *A, *B;
static float *OUT;
static atomic_int wanted;
static void *work(void *unused) {{
    for (int done = 0;;) {{
        int now = atomic_load(&wanted);
        if (now == done) continue;
        for (int i = 0; i < {_LENGTH}; i++) OUT[i] = A[i] + B[i];
        done = now;
    }}
}}
{_HEAD} {{
    static pthread_t id;
    A = a, B = b, OUT = out;
    if (!id) pthread_create(&id, 0, work, 0);
    atomic_fetch_add(&wanted, 1);
}}
"""
_CLOCK = """
import ctypes, time
import numpy
import autotune.backends.numpy as timer
timer.timed.__defaults__ = (lambda: time.perf_counter_ns() // 100,)

def add(a, b, out):
    for _ in range(200):
        numpy.add(a, b, out=out)
"""
_HUGE = np.where(np.arange(_LENGTH) < 10, 1e9, 1.0).astype(np.float32)
_INTEGERS = Inputs((TensorSpec("a", (_LENGTH,), "int64", range=(2**60, 2**61)),))
_ALIGNED = f"""
typedef float vector __attribute__((vector_size(64)));
{_HEAD} {{
    for (int i = 0; i < 62; i++) ((vector *)out)[i] = ((const vector *)a)[i] + ((const vector *)b)[i];
    for (int i = 992; i < {_LENGTH}; i++) out[i] = a[i] + b[i];
}}
"""

CHEATS: tuple[Cheat, ...] = (
    _cheat("first_call", "works in the first call only", f"{_HEAD} {{ static int n; if (!n++) {_ADD} }}"),
    _cheat(
        "sixteenth", "works in every sixteenth call", f"{_HEAD} {{ static int n; if (n++ % 16 == 0) {_ADD} }}"
    ),
    _cheat(
        "tail",
        "leaves out the tail after two hundred calls",
        f"{_HEAD} {{ static int n; int all = n++ < 200 ? {_LENGTH} : {_LENGTH} - 8; "
        "for (int i = 0; i < all; i++) out[i] = a[i] + b[i]; }",
    ),
    _cheat(
        "fiftieth",
        "is wrong in every fiftieth call",
        f"{_HEAD} {{ static int n; {_ADD} if (++n % 50 == 0) out[7] += 1; }}",
    ),
    _cheat("thread", "leaves the work to a thread, and does not wait for it", _THREAD),
    _cheat("clock", "slows the clock down", _CLOCK, backend="numpy"),
    _cheat(
        "huge",
        "writes the ten huge outputs, and zero for the others",
        f"{_HEAD} {{ for (int i = 0; i < {_LENGTH}; i++) out[i] = a[i] > 100 ? a[i] + b[i] : 0; }}",
        inputs=Inputs(_VECTORS.specs, arrays=(_HUGE, np.ones(_LENGTH, np.float32))),
    ),
    _cheat(
        "bool",
        "never writes true",
        f"void add(const float *a, const float *b, unsigned char *out) "
        f"{{ for (int i = 0; i < {_LENGTH}; i++) if (!(a[i] > b[i])) out[i] = 0; }}",
        output=TensorSpec("out", (_LENGTH,), "bool"),
        golden=lambda a, b: (a > b,),
    ),
    _cheat(
        "past_the_end",
        "adds up eight elements behind the input",
        f"void add(const float *a, const float *b, float *out) "
        f"{{ float sum = 0; for (int i = 0; i < {_LENGTH} + 8; i++) sum += a[i]; *out = sum; }}",
        output=TensorSpec("out", ()),
        golden=lambda a, _b: (a.sum(),),
    ),
    _cheat(
        "integer",
        "is one off where a float64 does not show it",
        f"#include <stdint.h>\nvoid add(const int64_t *a, int64_t *out) "
        f"{{ for (int i = 0; i < {_LENGTH}; i++) out[i] = a[i] + 1; }}",
        inputs=_INTEGERS,
        output=TensorSpec("out", (_LENGTH,), "int64"),
        golden=lambda a: (a,),
    ),
    _cheat("aligned", "needs tensors that begin at a multiple of 64 bytes", _ALIGNED),
)
"""All of them."""
