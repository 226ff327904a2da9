"""Measure configs for shapes that were never tuned: `python benchmarks/predict.py --cache-dir DIR`.

Twenty gemm shapes are tuned (the cache keeps them, so a second run searches on). Each in turn is then held
out: its config is predicted from the nineteen others, and measured in turns with the best that tuning found.
Printed are the fastest of these, the predicted one, and predicted / fastest, each a median over the turns.
From nothing it takes eight minutes at the most: --seconds is for all twenty together.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune import Budget, Inputs, Results, Timing, backends, tune
from autotune.backends import Artifact
from autotune.kernels import gemm
from autotune.model.space import Config
from autotune.model.workload import workload
from autotune.sites.local import LocalSite
from autotune.tuning.predict import Choice, best_config

SHAPES = (
    *((128, 128, 512), (129, 128, 512), (256, 256, 256), (192, 320, 256), (384, 384, 128)),
    *((512, 512, 512), (500, 300, 400), (640, 128, 256), (64, 768, 256), (768, 96, 192)),
    *((1024, 64, 256), (96, 96, 1024), (320, 320, 320), (257, 509, 127), (700, 200, 300)),
    *((448, 512, 384), (160, 640, 160), (1000, 100, 100), (100, 1000, 200), (224, 224, 896)),
)
KERNEL = gemm.lhs_rhs
TIMING = Timing(max_s=0.1)
TURNS = 5
RIVALS = 3  # the best that tuning found, of which the fastest counts
COMPARED = 0.25  # of the time, for holding out
SEARCHED = 0.6  # of a shape's time, the rest being for confirming the finalists


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


def measured(inputs: Inputs, configs: Sequence[Config]) -> list[list[float]]:
    """Measure configs in turns; return each one's milliseconds, turn by turn."""
    maker = backends.get("c")
    decides = {"fingerprint": maker.fingerprint(), "timing": TIMING.to_dict()}
    work = workload(KERNEL, inputs, maker.name, decides)
    with LocalSite(KERNEL, inputs, maker, TIMING) as workers:
        futures = [workers.build(work.job(config).source) for config in configs]
        artifacts = [artifact for future in futures if (artifact := future.result().artifact)]
        turns = [[median(workers, artifact) for artifact in artifacts] for _ in range(TURNS)]
    return [list(column) for column in zip(*turns, strict=True)]


def median(workers: LocalSite, artifact: Artifact) -> float:
    """Measure once; return the median in milliseconds."""
    return float(statistics.median(workers.measure(artifact).samples_ms))


def compare(shape: tuple[int, int, int], results: Results, cache_dir: Path) -> float:
    """Hold one shape out, print its line, and return the slowdown."""
    inputs = gemm.inputs(*shape)
    choice = held_out(inputs, cache_dir)
    found = [trial.config for trial in results.trials[:RIVALS]]
    predicted, *rivals = measured(inputs, [choice.config, *found])
    fastest = min(rivals, key=statistics.median)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(predicted, fastest, strict=True))
    times = "".join(f"{statistics.median(each):10.4f}" for each in (fastest, predicted))
    name = "x".join(map(str, shape))
    print(f"{name:<16}{len(results.trials):7}{times}  {choice.origin:<9}{ratio:8.3f}", flush=True)
    return ratio


def main() -> None:
    """Tune every shape, then hold each out in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, required=True, help="where the tuned shapes are kept")
    parser.add_argument("--seconds", type=float, default=480, help="for everything")
    options = parser.parse_args()
    begun, ratios = time.monotonic(), list[float]()
    tuned: dict[tuple[int, int, int], Results] = {}
    for done, shape in enumerate(SHAPES):
        left = options.seconds * (1 - COMPARED) - (time.monotonic() - begun)
        seconds = max(1.0, SEARCHED * left / (len(SHAPES) - done))
        tuned[shape] = tune(
            KERNEL, gemm.inputs(*shape), budget=Budget(seconds=seconds), cache_dir=options.cache_dir
        )
    print(f"{'':<16}{'trials':>7}{'tuned ms':>10}{'predicted':>10}  {'by':<9}{'slowdown':>8}")
    for shape, results in tuned.items():
        ratios.append(compare(shape, results, options.cache_dir))
    print(f"mean slowdown {statistics.fmean(ratios):.3f}, worst {max(ratios):.3f}; to reach: mean <= 1.15")
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
