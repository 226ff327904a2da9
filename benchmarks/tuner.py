"""Measure what the tuner itself costs, beside kernel_tuner 1.5 from PyPI: `python benchmarks/tuner.py`.

Both tune the same C source with the same compiler, flags and repeats, in turns; kernel_tuner has a virtual
environment of its own, since it brings its own NumPy:

    python -m venv .kernel_tuner && .kernel_tuner/bin/pip install kernel_tuner==1.5.0
    python benchmarks/tuner.py --kernel-tuner .kernel_tuner/bin/python

Wall times include all that each of them does: our correctness check, records on the disk, and the second,
interleaved measurement of the finalists, which kernel_tuner does not have.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune import Inputs, Kernel, Limits, SearchSpace, TensorSpec, Timing, tune, tuner
from autotune.backends.c import CBackend
from autotune.model.kernel import Specs
from autotune.model.space import Config
from autotune.model.workload import workload
from autotune.sites.local import LocalSite
from autotune.store.ledger import Ledger
from autotune.tuning import search_run

LENGTH, REPEATS, COMPILER, FLAGS = 65536, 7, "gcc", ("-O3", "-march=native", "-fno-math-errno")
TIMING = Timing(warmup_s=0.0, min_repeats=REPEATS, max_repeats=REPEATS)
BACKEND = CBackend(compiler=COMPILER, flags=FLAGS)
INPUTS = Inputs((TensorSpec("a", (LENGTH,)), TensorSpec("b", (LENGTH,))))
SOURCE = f"""
#include <time.h>
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(times) PRAGMA(GCC unroll times)
/* No extern "C" here: kernel_tuner, which would put one around C sources too, looks for these words. */
void add(const float *a, const float *b, float *out) {{
    for (int i = 0; i < {LENGTH}; i += block) {{
        UNROLL(unroll_by)
        for (int j = i; j < i + block; j++) out[j] = a[j] + b[j];
    }}
}}
float timed_add(const float *a, const float *b, float *out) {{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    add(a, b, out);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - begin.tv_sec) * 1e3f + (end.tv_nsec - begin.tv_nsec) * 1e-6f;
}}
"""


def parameters(configs: int) -> dict[str, list[int]]:
    """Return a space of so many configs, a multiple of 16."""
    return {"block": [64, 128, 256, 512], "unroll_by": [1, 2, 4, 8], "variant": list(range(configs // 16))}


def source(config: Config, _inputs: Specs, _outputs: Specs) -> str:
    """Return the source as kernel_tuner makes it: one #define for each parameter in front."""
    return "".join(f"#define {name} {value}\n" for name, value in config.items()) + SOURCE


def kernel(configs: int) -> Kernel:
    """Return the vector addition with a space of so many configs."""
    return Kernel(
        name="add",
        entry="add",
        generators={"c": source},
        outputs=lambda specs: (TensorSpec("out", specs[0].shape),),
        golden=lambda a, b: (a + b,),
        flops=lambda specs: specs[0].shape[0],
        bytes_moved=lambda specs: 12 * specs[0].shape[0],
        space=lambda _specs: SearchSpace(parameters(configs)),
    )


def ours(configs: int, folder: Path) -> float:
    """Tune with a cache in this folder; return wall seconds."""
    started = time.perf_counter()
    results = tune(kernel(configs), INPUTS, backend=BACKEND, timing=TIMING, cache_dir=folder)
    seconds = time.perf_counter() - started
    assert configs == len(results.trials) - len(results.failures), results.failures[:1]
    return seconds


def theirs(configs: int, cache: Path, python: str) -> float:
    """Tune with kernel_tuner and this cache file; return wall seconds."""
    request = {
        "length": LENGTH,
        "source": str(cache.with_name("add.c")),  # by its name kernel_tuner takes it for C, not C++
        "parameters": parameters(configs),
        "compiler": COMPILER,
        "flags": FLAGS,
        "repeats": REPEATS,
        "cache": str(cache),
    }
    cache.with_name("add.c").write_text(SOURCE)
    command = [python, str(Path(__file__).with_name("tuner_theirs.py")), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cache.parent)
    if done.returncode:
        sys.exit(f"kernel_tuner failed; see --help for how to install it\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert configs == answer["configs"], answer
    return float(answer["seconds"])


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for one run."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cold(configs: int, rounds: int, python: str) -> tuple[list[float], list[float]]:
    """Return milliseconds a config of each cold run, ours and theirs, in turns."""
    pairs: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        with scratch() as folder:
            pairs[0].append(ours(configs, folder) / configs * 1e3)
            pairs[1].append(theirs(configs, folder / "theirs.json", python) / configs * 1e3)
    return pairs


class Waits:
    """Adds up how long the tuner waits for its workers: the rest of its time is its own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, its time added up."""

        def call(*words: Any, **options: Any) -> Any:
            started = time.perf_counter()
            self._depth += 1
            try:
                return function(*words, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started

        return call


def own(configs: int) -> tuple[float, float, float]:
    """Return milliseconds a config of a cold run that are neither compiling nor measuring.

    Returns:
        Wall; how much of it is the handing over of compilations, which wakes the keeper, so that on a machine
        whose cores are all at work it starts the compiler before we go on; and the CPU time of it all,
        checks and confirmation included.
    """
    waits, handing = Waits(), Waits()
    timed = {
        (search_run, "wait"): waits,
        (search_run, "confirm"): waits,
        (LocalSite, "measure"): waits,
        (LocalSite, "__init__"): waits,
        (LocalSite, "close"): waits,
        (LocalSite, "build"): handing,
    }
    kept = [(owner, name, getattr(owner, name)) for owner, name in timed]
    for owner, name, function in kept:
        setattr(owner, name, timed[owner, name].timed(function))
    try:
        with scratch() as folder:
            busy = time.process_time()
            seconds = ours(configs, folder)
            busy = time.process_time() - busy
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
    wall, handed, busy = (each / configs * 1e3 for each in (seconds - waits.seconds, handing.seconds, busy))
    return wall, handed, busy


def fill_ours(configs: int, folder: Path) -> None:
    """Record as many trials as the space has, all but 16 of them copies, through the tuner's own ledger.

    The copies are of the slowest: among copies of the fastest each run would find new finalists to confirm.
    """
    ours(16, folder)
    decides = tuner.decides(BACKEND, TIMING)
    work = workload(kernel(configs), INPUTS, "c", decides)
    ledger = Ledger(folder, work, Limits())
    slowest = max(ledger.trials.values(), key=lambda trial: trial.metrics.median_ms if trial.metrics else 0)
    for number, config in enumerate(SearchSpace(parameters(configs))):
        job = work.job(config)
        if job.path not in ledger.trials:
            like = replace(slowest, confirmed=None, config=job.config)
            trial = replace(like, identity=job.identity, path=job.path, order=number)
            ledger.record_trial(trial, job.source, "", "")
    ledger.close()


def fill_theirs(configs: int, path: Path, python: str) -> None:
    """Write as many entries as the space has into kernel_tuner's cache file, all but 16 of them copies."""
    theirs(16, path, python)
    document = json.loads(path.read_text())
    known = list(document["cache"].values())
    document["tune_params"] = parameters(configs)
    for number, config in enumerate(SearchSpace(parameters(configs))):
        key = ",".join(map(str, config.values()))
        document["cache"].setdefault(key, {**known[number % len(known)], **config})
    path.write_text(json.dumps(document, indent=""))  # it looks for brackets on lines of their own


def cached(configs: int, rounds: int, python: str) -> tuple[list[float], list[float]]:
    """Return milliseconds a config of each run that finds everything in its cache, in turns."""
    pairs: tuple[list[float], list[float]] = ([], [])
    with scratch() as folder:
        fill_ours(configs, folder / "ours")
        fill_theirs(configs, folder / "theirs.json", python)
        ours(configs, folder / "ours")  # writes the summary of what was filled in
        for _ in range(rounds):
            pairs[0].append(ours(configs, folder / "ours") / configs * 1e3)
            pairs[1].append(theirs(configs, folder / "theirs.json", python) / configs * 1e3)
    return pairs


def spread(times: int) -> tuple[float, float]:
    """Return the median of one config's reported medians, in ms, and their range as a fraction of it."""
    one = SearchSpace({"block": [512], "unroll_by": [8], "variant": [0]})
    medians = []
    for _ in range(times):
        with scratch() as folder:
            results = tune(kernel(16), INPUTS, space=one, backend=BACKEND, cache_dir=folder)
            assert results.best is not None and results.best.confirmed is not None
            medians.append(results.best.confirmed.median_ms)
    return statistics.median(medians), (max(medians) - min(medians)) / statistics.median(medians)


def main() -> None:
    """Take every figure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel-tuner", default=".kernel_tuner/bin/python", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of cold runs (default: %(default)s)")
    options = parser.parse_args()
    python = shutil.which(options.kernel_tuner)
    if python is None:
        sys.exit(f"no {options.kernel_tuner}; install kernel_tuner first:\n{__doc__}")
    with scratch() as folder:
        ours(16, folder)  # compilers and caches warm, roofline measured
        theirs(16, folder / "theirs.json", python)
    ours_cold, theirs_cold = cold(96, options.rounds, python)
    ratio = statistics.median(mine / other for mine, other in zip(ours_cold, theirs_cold, strict=True))
    wall, handed, busy = (
        statistics.median(column) for column in zip(*(own(96) for _ in range(3)), strict=True)
    )
    ours_cached, theirs_cached = cached(4000, options.rounds, python)
    median_ms, width = spread(10)
    rows = [
        (
            "cold, 96 configs, ms a config",
            f"{statistics.median(ours_cold):.1f}",
            f"{statistics.median(theirs_cold):.1f}",
            f"{ratio:.2f} of theirs",
            "<= 0.55",
        ),
        (
            "our own time, ms a config",
            f"{wall:.2f}",
            "-",
            f"{handed:.2f} handing over",
            "<= 1.0",
        ),
        ("CPU time of the tuner, ms a config", f"{busy:.2f}", "-", "checks included", ""),
        (
            "all cached, 4,000 configs, ms a config",
            f"{statistics.median(ours_cached):.3f}",
            f"{statistics.median(theirs_cached):.3f}",
            f"from {min(ours_cached):.3f} to {max(ours_cached):.3f}",
            "<= 0.05",
        ),
        (
            "winner measured 10 times, ms",
            f"{median_ms:.4f}",
            "-",
            f"spread {width:.1%}",
            "<= 5 %",
        ),
    ]
    for row in [("", "ours", "kernel_tuner", "", "to reach"), *rows]:
        print("{:<40}{:>10}{:>15}{:>22}{:>12}".format(*row))


if __name__ == "__main__":
    main()
