"""Measure the kernels against NumPy, OpenBLAS and memcpy, interleaved, on one thread and on two.

Each workload is tuned first, as a user would, with a budget of a few dozen configs of its default space;
then the config found takes turns with what it is held against, and the figure is the median of the ratios
of neighbouring turns. On one thread the clock is the thread's own CPU time, so that other programs on the
machine do not count; on two it is the wall's, and a turn begins when the threads of the last are asleep.

Run: python benchmarks/kernels.py [--threads 1 2] [--seconds 2] [--configs 40]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune import Budget, backends, tune
from autotune.kernels import gemm, rmsnorm_linear, softmax, transpose
from autotune.machine.cpu import roofline
from autotune.model.kernel import Inputs, Kernel, Specs
from autotune.model.space import Config, SearchSpace

Array = NDArray[Any]
Call = Callable[[], object]

BATCH_S = 3e-3
"""Seconds of one turn: long enough for the clock, short enough that neighbours see the same machine."""

ODD_SHAPES = (
    (128, 512, 128),
    (129, 512, 128),
    (251, 509, 127),
    (17, 31, 67),
    (8, 1000, 1000),
    (1000, 8, 1000),
    (997, 13, 101),
)


@dataclass(frozen=True)
class Case:
    """One workload, and what its candidates are held against.

    Args:
        kernel: the kernel.
        inputs: its tensors.
        rival: the name of what it is held against.
        target: the ratio to reach; 0 where only the geometric mean of a group counts.
        group: cases whose geometric mean has a target of its own.
    """

    kernel: Kernel
    inputs: Inputs
    rival: str
    target: float
    group: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; times in microseconds."""

    kernel: str
    shapes: str
    threads: int
    ours_us: float
    rival: str
    rival_us: float
    ratio: float
    target: float
    group: str
    rate: str
    roofline: float | None
    config: dict[str, Any]


def cases() -> list[Case]:
    """Return every workload of the figures."""
    odd = [
        Case(gemm.lhs_rhs, gemm.inputs(*shape), "OpenBLAS", 0, "gemm, small, odd and skinny")
        for shape in ODD_SHAPES
    ]
    return [
        Case(gemm.lhs_rhs, gemm.inputs(1024, 1024, 1024), "OpenBLAS", 1.0),
        Case(gemm.lhsT_rhs, gemm.inputs(1024, 1024, 1024, lhs_transposed=True), "OpenBLAS", 1.0),
        *odd,
        Case(softmax.kernel, softmax.inputs(1024, 1024), "NumPy", 3.0),
        Case(softmax.kernel, softmax.inputs(128, 4096), "NumPy", 3.0),
        Case(rmsnorm_linear.kernel, rmsnorm_linear.inputs(4096, 512, 8), "NumPy", 3.0),
        Case(rmsnorm_linear.kernel, rmsnorm_linear.inputs(1024, 1024, 64), "NumPy", 3.0),
        Case(transpose.kernel, transpose.inputs(1024, 1024), "memcpy", 0.8),
        Case(transpose.kernel, transpose.inputs(4096, 4096), "memcpy", 0.8),
    ]


def on_pages(shape: Sequence[int], dtype: str) -> Array:
    """Return an empty array that begins on a page, as the tuner's do: no vector of it straddles two lines."""
    size = max(1, math.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype, math.prod(shape)).reshape(shape)


def arrays(specs: Specs) -> list[Array]:
    """Return drawn arrays for the inputs."""
    made = []
    for seed, spec in enumerate(specs):
        array = on_pages(spec.shape, spec.dtype)
        array[...] = np.random.default_rng(seed).standard_normal(spec.shape)
        made.append(array)
    return made


def tuned(case: Case, threads: int, count: int, cache: Path) -> Config:
    """Return what a search of the default space finds, among the configs of 1 and of `threads` threads."""
    whole = case.kernel.space(case.inputs.specs)
    counts = tuple(number for number in whole.parameters["threads"] if number in {1, threads})
    space = SearchSpace({**whole.parameters, "threads": counts}, whole.constraints)
    best = tune(case.kernel, case.inputs, space=space, budget=Budget(trials=count), cache_dir=cache).best
    assert best is not None, f"{case.kernel.name} {case.inputs.shapes}: every config failed"
    return best.config


def candidate_call(case: Case, config: Config, tensors: Sequence[Array], folder: Path) -> Call:
    """Compile a config and return the call of it."""
    inputs, outputs = case.inputs.specs, case.kernel.outputs(case.inputs.specs)
    source = case.kernel.generators["c"](config, inputs, outputs)
    build = backends.get("c").build(source, case.kernel.entry, inputs, outputs, folder)
    Path(build.part).mkdir()
    subprocess.run(
        build.command, input=build.source.encode(), check=True, timeout=120, stderr=subprocess.DEVNULL
    )
    Path(build.part).rename(build.artifact.folder)
    entry = getattr(ctypes.CDLL(build.artifact.path), case.kernel.entry)
    addresses = [ctypes.c_void_p(tensor.ctypes.data) for tensor in tensors]
    return lambda: entry(*addresses)


def rival_call(case: Case, tensors: Sequence[Array], out: Array) -> Call:
    """Return the call that ours is held against."""
    if case.rival == "memcpy":
        copy = ctypes.CDLL(None).memcpy
        copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        to, source, size = out.ctypes.data, tensors[0].ctypes.data, out.nbytes
        return lambda: copy(to, source, size)
    if case.rival == "OpenBLAS":
        lhs = tensors[0].T if case.kernel is gemm.lhsT_rhs else tensors[0]
        return lambda: np.matmul(lhs, tensors[1], out=out)
    baseline = case.kernel.baselines["NumPy"]
    return lambda: baseline(*tensors)


def settle() -> None:
    """Wait until this process's other threads are asleep.

    OpenBLAS's spin for a tenth of a second after a product: the next in turn would have half of their core.
    """
    busy_s = 1.0
    while busy_s > 1e-3:
        begin = time.process_time()
        time.sleep(5e-3)
        busy_s = time.process_time() - begin


def turns(calls: Sequence[Call], threads: int, seconds: float) -> list[list[float]]:
    """Let the calls take turns for so many seconds of wall time; return microseconds a call, turn by turn."""
    clock = time.thread_time if threads == 1 else time.perf_counter

    def timed(call: Call, batch: int) -> float:
        begin = clock()
        for _ in range(batch):
            call()
        return clock() - begin

    for call in calls:
        call()
    batches = [max(1, round(BATCH_S / max(timed(call, 1), 1e-7))) for call in calls]
    samples: list[list[float]] = [[] for _ in calls]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(samples[0]) < 3:
        for call, batch, kept in zip(calls, batches, samples, strict=True):
            if threads > 1:
                settle()
                timed(call, batch)
            kept.append(timed(call, batch) / batch * 1e6)
    return samples


def measure(case: Case, threads: int, seconds: float, count: int, folder: Path) -> Row:
    """Tune a workload, and hold the config found against its rival."""
    specs = case.inputs.specs
    (output,) = case.kernel.outputs(specs)
    tensors, out, other = (
        arrays(specs),
        on_pages(output.shape, output.dtype),
        on_pages(output.shape, output.dtype),
    )
    config = tuned(case, threads, count, folder / "cache")
    calls = [rival_call(case, tensors, other), candidate_call(case, config, [*tensors, out], folder)]
    rival_us, ours_us = turns(calls, threads, seconds)
    ratio = statistics.median(theirs / ours for theirs, ours in zip(rival_us, ours_us, strict=True))
    ours = statistics.median(ours_us)
    assert case.kernel.flops and case.kernel.bytes_moved, "the kernels of this package know their work"
    flops, moved = case.kernel.flops(specs), case.kernel.bytes_moved(specs)
    rate = f"{flops / ours / 1e3:.1f} GFLOP/s" if flops else f"{moved / ours / 1e3:.1f} GB/s"
    shapes, theirs = case.inputs.shapes, statistics.median(rival_us)
    fraction = of_roofline(flops, moved, ours * 1e-6, threads)
    return Row(
        case.kernel.name, shapes, threads, ours, case.rival, theirs, ratio, case.target, case.group, rate,
        fraction, dict(config),
    )  # fmt: skip


def of_roofline(flops: int, moved: int, seconds: float, threads: int) -> float | None:
    """Return the least time that the measured roofline of so many cores allows over the time taken."""
    limits = roofline(cores=threads)
    if limits is None:
        return None
    least = max(flops / (limits.peak_gflops * 1e9), moved / (limits.bandwidth_gbytes_per_s * 1e9))
    return least / seconds


def print_table(rows: Sequence[Row]) -> None:
    """Print a line for each workload, then the geometric means."""
    head = f"{'kernel':15}{'shapes':22}{'threads':>8}{'ours µs':>11}  {'rival':9}{'rival µs':>11}"
    print(f"{head}{'ratio':>8}{'target':>8}  {'rate':15}{'of roofline':>12}")
    for row in rows:
        target = f"{row.target:.2f}" if row.target else "-"
        fraction = "-" if row.roofline is None else f"{row.roofline:.2f}"
        print(
            f"{row.kernel:15}{row.shapes:22}{row.threads:8}{row.ours_us:11.1f}  {row.rival:9}"
            f"{row.rival_us:11.1f}{row.ratio:8.2f}{target:>8}  {row.rate:15}{fraction:>12}"
        )
    for group, threads in dict.fromkeys((row.group, row.threads) for row in rows if row.group):
        ratios = [row.ratio for row in rows if (row.group, row.threads) == (group, threads)]
        mean = statistics.geometric_mean(ratios)
        print(f"{group}, {threads} thread(s): geometric mean {mean:.2f}, target 1.20")


def main() -> None:
    """Measure in one process for each number of threads, since OpenBLAS reads it once, at its start."""
    os.environ.pop("OPENBLAS_CORETYPE", None)  # the best that the library can do on this CPU is the baseline
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    flags.add_argument("--seconds", type=float, default=2.0, help="of each comparison (default: %(default)s)")
    flags.add_argument(
        "--configs", type=int, default=40, help="tried for each workload (default: %(default)s)"
    )
    flags.add_argument("--kernel", default="", help="only kernels whose name contains this")
    flags.add_argument("--configs-shown", action="store_true", help="print the config of each row too")
    flags.add_argument("--json", action="store_true", help="print rows as JSON; for one number of threads")
    options = flags.parse_args()
    if options.json:
        chosen = [case for case in cases() if options.kernel in case.kernel.name]
        with tempfile.TemporaryDirectory() as folder:
            for case in chosen:
                row = measure(case, options.threads[0], options.seconds, options.configs, Path(folder))
                print(json.dumps(asdict(row)), flush=True)
        return
    rows = []
    for threads in options.threads:
        count = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        again = [sys.executable, __file__, "--json", "--threads", str(threads), "--kernel", options.kernel]
        again += ["--seconds", str(options.seconds), "--configs", str(options.configs)]
        done = subprocess.run(
            again, env={**os.environ, **count}, stdout=subprocess.PIPE, text=True, check=True
        )
        rows += [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    print_table(rows)
    if options.configs_shown:
        for row in rows:
            print(row.kernel, row.shapes, row.threads, row.config)


if __name__ == "__main__":
    main()
