"""Measure configs for shapes that were never tuned: `python benchmarks/predict.py --cache-dir DIR`.

Twenty gemm shapes are tuned (the cache keeps them, so a second run is quick). Each in turn is then held out:
its config is predicted from the nineteen others, and measured beside the one that tuning found, in turns.
Printed is the slowdown: predicted / tuned, the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import functools
import math
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune import Budget, Inputs, Results, Timing, backends, tune
from autotune.backends import Artifact
from autotune.job import workload
from autotune.kernels import gemm
from autotune.predict import Choice, best_config
from autotune.search import Bayesian
from autotune.space import Config
from autotune.workers import Limits, Workers

SHAPES = (
    *((128, 128, 512), (129, 128, 512), (256, 256, 256), (192, 320, 256), (384, 384, 128)),
    *((512, 512, 512), (500, 300, 400), (640, 128, 256), (64, 768, 256), (768, 96, 192)),
    *((1024, 64, 256), (96, 96, 1024), (320, 320, 320), (257, 509, 127), (700, 200, 300)),
    *((448, 512, 384), (160, 640, 160), (1000, 100, 100), (100, 1000, 200), (224, 224, 896)),
)
KERNEL = gemm.lhs_rhs
TURNS = 5


def held_out(inputs: Inputs, cache_dir: Path) -> Choice:
    """Predict from a cache that lacks these inputs."""
    with tempfile.TemporaryDirectory() as other:
        kept = Path(other) / KERNEL.name
        for summary in (cache_dir / KERNEL.name).glob("*/perf_metrics.json"):
            if summary.parent.name != inputs.shapes:
                (kept / summary.parent.name).mkdir(parents=True)
                shutil.copy(summary, kept / summary.parent.name)
        prediction = best_config(KERNEL, inputs, other)
    assert prediction is not None
    return prediction


def slowdown(inputs: Inputs, predicted: Config, tuned: Config) -> float:
    """Measure two configs in turns; return how many times slower the predicted one is."""
    if predicted == tuned:
        return 1.0
    maker = backends.get("c")
    decides = {"fingerprint": maker.fingerprint(), "timing": Timing().to_dict()}
    work = workload(KERNEL, inputs, maker.name, decides)
    with (
        tempfile.TemporaryDirectory() as objects,
        Workers(KERNEL, inputs, maker, Timing(), Limits(), Path(objects)) as workers,
    ):
        futures = [workers.compile(work.job(config).source) for config in (predicted, tuned)]
        first, second = [artifact for future in futures if (artifact := future.result().artifact)]
        return statistics.median(median(workers, first) / median(workers, second) for _ in range(TURNS))


def median(workers: Workers, artifact: Artifact) -> float:
    """Measure once; return the median in milliseconds."""
    return float(statistics.median(workers.measure(artifact).samples_ms))


def main() -> None:
    """Tune what is not tuned, then hold each shape out in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where the tuned shapes are kept")
    parser.add_argument("--trials", type=int, default=60, help="configs tried for each shape")
    parser.add_argument("--seconds", type=float, default=22, help="and seconds")
    options = parser.parse_args()
    budget = Budget(trials=options.trials, seconds=options.seconds)
    run = functools.partial(tune, KERNEL, budget=budget, cache_dir=options.cache_dir)
    tuned: dict[tuple[int, int, int], Results] = {}
    for shape in SHAPES:
        tuned[shape] = run(gemm.inputs(*shape), strategy=Bayesian())
    ratios = []
    for shape, results in tuned.items():
        assert results.best is not None
        prediction = held_out(gemm.inputs(*shape), options.cache_dir)
        ratios.append(slowdown(gemm.inputs(*shape), prediction.config, results.best.config))
        name = "x".join(map(str, shape))
        print(f"{name:<16}{prediction.origin:<9}{ratios[-1]:6.3f}", flush=True)
    geometric = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"mean slowdown {statistics.fmean(ratios):.3f}, geometric {geometric:.3f}, worst {max(ratios):.3f}")


if __name__ == "__main__":
    main()
