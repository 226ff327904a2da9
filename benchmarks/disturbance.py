"""Show that compiling does not disturb measuring: the same kernel timed with compilers at work and without.

`python benchmarks/disturbance.py`, a minute. The three ways take turns, so that what else the machine does
falls on all of them:

- alone: nothing is compiled;
- tuner: the tuner's queue is full, as in a search: its compilers stand still during each measurement;
- careless: as many compilers run all the time, as they would if nobody held them.

Both the median and the 95th percentile are told: a compiler that takes the core for a time slice leaves the
median of short samples alone, and moves the percentile.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from autotune.backends import Artifact
from autotune.backends.c import CBackend
from autotune.model.kernel import Inputs, Kernel, Specs, TensorSpec
from autotune.model.space import SearchSpace
from autotune.model.statistics import quantile
from autotune.model.timing import Timing
from autotune.sites.local import LocalSite

ROUNDS = 12
LENGTH = 1 << 20
ADD = (
    "void add(const float *a, const float *b, float *out)"
    f" {{ for (int i = 0; i < {LENGTH}; i++) out[i] = a[i] + b[i]; }}\n"
)
LONG = "".join(f"int f{i}(int x) {{ return x * {i} + (x >> {i % 31}); }}\n" for i in range(800))
JOBS = os.cpu_count() or 1


def _outputs(specs: Specs) -> Specs:
    return (TensorSpec("out", specs[0].shape),)


KERNEL = Kernel(
    name="add",
    entry="add",
    generators={"c": lambda _config, _inputs, _outputs: ADD},
    outputs=_outputs,
    golden=lambda a, b: (np.add(a, b),),
    flops=lambda _specs: LENGTH,
    bytes_moved=lambda _specs: 12 * LENGTH,
    space=lambda _specs: SearchSpace({"x": (1,)}),
)


Reading = tuple[float, ...]
"""Median and 95th percentile, in milliseconds."""


def reading(workers: LocalSite, artifact: Artifact) -> Reading:
    """Measure once."""
    ordered = sorted(workers.measure(artifact).samples_ms)
    return tuple(quantile(ordered, fraction) for fraction in (0.5, 0.95))


def beside_compilers(workers: LocalSite, artifact: Artifact, numbers: itertools.count[int]) -> Reading:
    """Measure while the tuner's own compilers have more to do than they can."""
    queue = [workers.build(f"/* {next(numbers)} */ {LONG}") for _ in range(2 * JOBS)]
    try:
        return reading(workers, artifact)
    finally:
        for future in queue:
            future.result()


def beside_careless(workers: LocalSite, artifact: Artifact, source: Path) -> Reading:
    """Measure while compilers run that nobody holds."""
    command = f"while :; do cc -O3 -c -o /dev/null {source}; done"
    others = [subprocess.Popen(["sh", "-c", command], start_new_session=True) for _ in range(JOBS)]
    try:
        return reading(workers, artifact)
    finally:
        for each in others:
            os.killpg(each.pid, 9)
            each.wait()


def main() -> None:
    """Print each way's readings over the rounds, and their ratios to measuring alone, round by round."""
    inputs = Inputs(tuple(TensorSpec(name, (LENGTH,)) for name in "ab"))
    timing = Timing(min_repeats=100, max_repeats=100)
    numbers = itertools.count()
    times: dict[str, list[Reading]] = {"alone": [], "tuner": [], "careless": []}
    with tempfile.TemporaryDirectory() as folder, LocalSite(KERNEL, inputs, CBackend(), timing) as workers:
        artifact = workers.build(ADD).result().artifact
        if artifact is None:
            raise SystemExit("the kernel does not compile")
        source = Path(folder) / "long.c"
        source.write_text(LONG, encoding="utf-8")
        for _ in range(ROUNDS):
            times["alone"].append(reading(workers, artifact))
            times["tuner"].append(beside_compilers(workers, artifact, numbers))
            times["careless"].append(beside_careless(workers, artifact, source))
    print(f"add, {LENGTH} floats, {ROUNDS} rounds, {JOBS} compilers; ratio to alone, median (quartiles)")
    for place, what in enumerate(("median", "95th percentile")):
        alone = [each[place] for each in times["alone"]]
        for name, taken in times.items():
            column = [each[place] for each in taken]
            ratios = sorted(one / other for one, other in zip(column, alone, strict=True))
            low, middle, high = (quantile(ratios, fraction) for fraction in (0.25, 0.5, 0.75))
            typical = quantile(sorted(column), 0.5)
            print(f"{what:16} {name:9} {typical:.4f} ms   {middle:.3f} ({low:.3f}-{high:.3f})")


if __name__ == "__main__":
    main()
