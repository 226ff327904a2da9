"""Write caches like those that a tuner leaves, for the tests of the report: made up, with all there is."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

PEAK, BANDWIDTH = 125.0, 21.0
START = datetime(2026, 11, 22, 9, 0, tzinfo=timezone.utc)
ENVIRONMENT = {
    "host": "trn1-dev",
    "cpu": "AMD EPYC 7R13",
    "cores": 2,
    "system": "Linux 6.1",
    "compiler": "/usr/bin/cc",
    "version": "cc (Debian) 12.2.0",
    "flags": "-O3 -march=native",
    "python": "3.11.7",
}
GCC_LOG = """candidate.c: In function 'gemm':
candidate.c:41:17: error: 'acc_6' undeclared (first use in this function); did you mean 'acc_5'?
   41 |                 acc_6 += a * b;
      |                 ^~~~~
"""
FAILURES = {
    "compile_error": ("'acc_6' undeclared", "compilation_output.log", GCC_LOG),
    "wrong_output": ("412 of 65536 elements differ", "execution_output.log", "mismatch in rows 3-9\n"),
    "crash": ("killed by SIGSEGV while measuring", "execution_output.log", "running\n"),
    "timeout": ("stopped after 30 s", "execution_output.log", ""),
}
GEMM = {
    "loop_order": ["MNK", "MKN", "NMK", "NKM", "KMN", "KNM"],
    "lhs_position": [0, 1, 2],
    "NUM_BLOCK_M": [1, 2, 4],
    "NUM_BLOCK_N": [1, 2, 4],
    "NUM_BLOCK_K": [1, 2, 4],
}
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07<script>owned = 1</script><img src=x onerror='owned = 1'>"
    "\r\n\u202egnp.\"'&$x^2$\ud800\x9b31m"
)


def write_cache(root: Path) -> Path:
    """Write three kernels and five workloads, with failures, ties and one workload where all failed."""
    for m, k, n, speedup in ((128, 512, 128, 1.31), (129, 512, 128, 1.22), (1024, 1024, 1024, 0.97)):
        work = {"flops": 2 * m * k * n, "bytes": 4 * (m * k + k * n + m * n)}
        write_workload(root / "gemm_lhs_rhs" / f"{m}x{k}_{k}x{n}", work, GEMM, speedup)
    space = {"block": [8, 16, 32, 64], "in_place": [False, True]}
    write_workload(root / "transpose" / "2048x2048", {"flops": 0, "bytes": 33554432}, space, 1.9)
    work = {"flops": 1310720, "bytes": 2097152}
    write_workload(root / "softmax" / "512x512", work, {"unroll": [1, 2, 4, 8]}, 3.4, failing=1.0)
    return root


def write_workload(
    folder: Path,
    work: Mapping[str, float],
    space: Mapping[str, list[Any]],
    speedup: float,
    failing: float = 0.01,
) -> Path:
    """Write one workload's perf_metrics.json, and a folder with a log for each config that failed.

    Args:
        folder: {root}/{kernel}/{shapes}.
        work: flops and bytes of one call.
        space: parameter -> values.
        speedup: of the best over the baseline.
        failing: the share of configs that fail for no reason.
    """
    rng = random.Random(f"{folder.parent.name} {folder.name}")
    trials = _trials(rng, work, space, failing)
    for trial in trials:
        if trial["status"] != "ok":
            _, name, log = FAILURES[trial["status"]]
            (folder / trial["path"]).mkdir(parents=True)
            (folder / trial["path"] / name).write_text(log)
    measured = [trial for trial in trials if trial["metrics"]]
    for trial in measured[:3]:
        trial["confirmed"] = metrics(trial["metrics"]["median_ms"] * 1.02, work)
    best_ms = measured[0]["confirmed"]["median_ms"] if measured else 0.1
    record = {
        "schema": 2,
        "kernel": folder.parent.name,
        "shapes": folder.name,
        "backend": "c",
        "inputs": [],
        "outputs": [],
        "work": work,
        "environment": ENVIRONMENT,
        "roofline": {"peak_gflops": PEAK, "bandwidth_gbytes_per_s": BANDWIDTH},
        "timing": {"caches": "warm", "max_repeats": 200},
        "search": {"strategy": "exhaustive", "seed": 0, "space_size": len(trials), "elapsed_s": 12.3},
        "baselines": [{"name": "numpy", "metrics": metrics(best_ms * speedup, work)}],
        "best": measured[0]["path"] if measured else None,
        "ties": [trial["path"] for trial in measured[1:2]],
        "trials": trials,
    }
    path = folder / "perf_metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1))
    return path


def _trials(
    rng: random.Random, work: Mapping[str, float], space: Mapping[str, list[Any]], failing: float
) -> list[dict[str, Any]]:
    strengths = itertools.chain((1.3, 0.5, 0.3, 0.2), itertools.repeat(0.1))
    costs = {
        (name, value): rng.uniform(0, s)
        for (name, values), s in zip(space.items(), strengths, strict=False)
        for value in values
    }
    fastest_ms = work["flops"] / (0.65 * PEAK * 1e6) or work["bytes"] / (0.65 * BANDWIDTH * 1e6)
    configs = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    rng.shuffle(configs)
    start, trials = START, []
    for order, config in enumerate(configs):
        start += timedelta(seconds=rng.uniform(0.05, 0.3))
        doomed = config.get("NUM_BLOCK_M") == 4 and config.get("lhs_position") == 2
        failed = rng.random() < max(failing, 0.4 * doomed)
        status = rng.choices(list(FAILURES), (5, 3, 2, 1))[0] if failed else "ok"
        median = fastest_ms * math.exp(sum(costs[item] for item in config.items()) + rng.gauss(0, 0.08))
        trials.append(
            {
                "config": config,
                "status": status,
                "identity": f"{order:064x}",
                "path": ",".join(f"{name}={value}" for name, value in sorted(config.items())),
                "order": order,
                "message": FAILURES[status][0] if failed else "",
                "metrics": None if failed else metrics(median, work),
                "confirmed": None,
                "compile_s": 0.21,
                "started_at": start.isoformat(),
                "samples_ms": [] if failed else [median] * 5,
            }
        )
    return sorted(trials, key=lambda trial: trial["metrics"]["median_ms"] if trial["metrics"] else math.inf)


def metrics(median_ms: float, work: Mapping[str, float]) -> dict[str, Any]:
    """Return a reading around `median_ms`."""
    flops, moved = work["flops"], work["bytes"]
    gflops, gbytes = flops / median_ms / 1e6, moved / median_ms / 1e6
    attainable = min(PEAK, BANDWIDTH * flops / moved)
    return {
        "min_ms": median_ms * 0.97,
        "median_ms": median_ms,
        "p95_ms": median_ms * 1.08,
        "ci95_low_ms": median_ms * 0.99,
        "ci95_high_ms": median_ms * 1.01,
        "repeats": 25,
        "outliers": 1,
        "gflops": gflops,
        "gbytes_per_s": gbytes,
        "arithmetic_intensity": flops / moved,
        "roofline_fraction": gflops / attainable if flops else gbytes / BANDWIDTH,
        "mfu": None,
    }


def make_hostile(path: Path) -> Path:
    """Put hostile text in every text of a perf_metrics.json that a host may choose, and in the logs."""
    record = json.loads(path.read_text())
    record |= {"kernel": HOSTILE, "shapes": HOSTILE, "backend": HOSTILE}
    record["environment"] = {HOSTILE: HOSTILE, "host": HOSTILE}
    record["search"][HOSTILE] = HOSTILE
    record["timing"][HOSTILE] = HOSTILE
    record["baselines"][0]["name"] = HOSTILE
    for trial in record["trials"]:
        trial["config"] = {
            HOSTILE: HOSTILE,
            **{name: f"{value}{HOSTILE}" for name, value in trial["config"].items()},
        }
        trial["message"] = HOSTILE
    path.write_text(json.dumps(record))
    for log in path.parent.glob("*/*.log"):
        log.write_bytes(HOSTILE.encode(errors="surrogatepass") * 9)
    return path
