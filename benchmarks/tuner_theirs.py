"""kernel_tuner's side of `benchmarks/tuner.py`; runs in kernel_tuner's own virtual environment.

Reads one request from the command line (JSON), prints one answer (JSON).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from typing import Any

import kernel_tuner  # type: ignore[import-not-found]
import numpy as np


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Tune the configs of the request; answer with wall seconds, import and start-up left out."""
    length = request["length"]
    a, b = np.random.default_rng(0).standard_normal((2, length)).astype(np.float32)
    out = np.zeros_like(a)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        results, _environment = kernel_tuner.tune_kernel(
            "timed_add",
            request["source"],
            length,
            [a, b, out],
            request["parameters"],
            answer=[None, None, a + b],
            lang="C",
            compiler=request["compiler"],
            compiler_options=request["flags"],
            iterations=request["repeats"],
            cache=request["cache"],
        )
    return {"seconds": time.perf_counter() - started, "configs": len(results)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
