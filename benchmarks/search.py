"""Replay recorded spaces with our strategies, beside kernel_tuner's.

    python benchmarks/search.py --spaces DIR

DIR holds files that `autotune.exchange` reads: kernel_tuner caches, T4 results, CSV; packed or not. Theirs
run in a virtual environment of their own, since kernel_tuner brings its own NumPy:

    python -m venv .kernel_tuner && .kernel_tuner/bin/pip install kernel_tuner==1.5.0
    python benchmarks/search.py --spaces DIR --kernel-tuner .kernel_tuner/bin/python

An evaluation is a config tried for the first time, failed ones included, as kernel_tuner counts. Printed are
means over seeds of optimum / best so far after 50, 100 and 200 evaluations, of the evaluations until that is
0.95 or more (the budget where it never is), and our milliseconds of CPU for each proposal; at the end all of
it over all spaces, and what is to be reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autotune import exchange, search
from autotune.model.space import Config, SearchSpace, Value
from autotune.model.trial import Status
from autotune.search import Observation
from autotune.store.results import median_ms

THEIRS = (
    "hybrid_vndx",
    "adaptive_tabu_greywolf",
    "simulated_annealing",
    "genetic_algorithm",
    "random_sample",
)
AT = (50, 100, 200)
TARGET = f"  {'target':<24}{'':8}{'>=0.930':>8}{'>=0.970':>8}{'':10}{'<=1.00':>10}"


@dataclass(frozen=True)
class Recorded:
    """A space of which every config's time is known; None where it failed."""

    name: str
    space: SearchSpace
    times: dict[tuple[Value, ...], float | None]

    @property
    def optimum(self) -> float:
        """The least time."""
        return min(time for time in self.times.values() if time is not None)


@dataclass(frozen=True)
class Score:
    """What one search came to: fractions of the optimum, evaluations to 5 % of it, CPU per proposal."""

    fractions: tuple[float, ...]
    evaluations: int
    proposal_ms: float = 0.0


def load(path: Path) -> Recorded:
    """Read a recorded space; configs that are not in the file are not in the space."""
    recording = exchange.read(path)
    times = {
        tuple(trial.config[name] for name in recording.parameters): (
            median_ms(trial) if trial.status is Status.OK else None
        )
        for trial in recording.trials
    }

    def recorded(config: Config) -> bool:
        return tuple(config[name] for name in recording.parameters) in times

    space = SearchSpace(recording.parameters, (recorded,))
    assert len(space) == len(times), f"{path}: {len(space)} configs instead of {len(times)}"
    return Recorded(path.name.split(".")[0], space, times)


def score(times: Sequence[float | None], optimum: float, proposal_ms: float = 0.0) -> Score:
    """Score the times of a search, in the order of its evaluations."""
    best, curve = float("inf"), list[float]()
    for each in times:
        best = min(best, best if each is None else each)
        curve.append(optimum / best)
    until = next((i for i, fraction in enumerate(curve, 1) if fraction >= 0.95), AT[-1])
    return Score(tuple(curve[min(at, len(curve)) - 1] for at in AT), until, proposal_ms)


def ours(name: str, recorded: Recorded, seed: int) -> Score:
    """Search with one of our strategies, one config at a time."""
    strategy, history, spent = search.get(name, seed), list[Observation](), 0.0
    for _ in range(AT[-1]):
        begun = time.process_time()
        proposed = strategy.propose(recorded.space, history, 1)
        spent += time.process_time() - begun
        history += [Observation(config, recorded.times[tuple(config.values())]) for config in proposed]
    return score([seen.cost for seen in history], recorded.optimum, spent / len(history) * 1e3)


def theirs(python: Path, recorded: Recorded, seeds: int) -> dict[str, list[Score]]:
    """Search with kernel_tuner's strategies."""
    task = {
        "parameters": {name: list(values) for name, values in recorded.space.parameters.items()},
        "rows": list(recorded.times),
        "times": list(recorded.times.values()),
        "strategies": THEIRS,
        "seeds": seeds,
        "budget": AT[-1],
    }
    script = Path(__file__).with_name("search_theirs.py")
    ran = subprocess.run([python, script], input=json.dumps(task), text=True, stdout=-1, check=True)
    times = list(recorded.times.values())
    return {
        name: [score([times[place] for place in order], recorded.optimum) for order in orders]
        for name, orders in json.loads(ran.stdout).items()
    }


def row(name: str, scores: Sequence[Score]) -> str:
    """Print a strategy's means."""
    fractions = (
        statistics.fmean(column) for column in zip(*(each.fractions for each in scores), strict=True)
    )
    cells = [f"{fraction:8.3f}" for fraction in fractions]
    cells.append(f"{statistics.fmean(each.evaluations for each in scores):10.1f}")
    cost = statistics.fmean(each.proposal_ms for each in scores)
    return f"  {name:<24}" + "".join(cells) + (f"{cost:10.2f}" if cost else "")


def main() -> None:
    """Replay every space in a folder, and print each and the mean over all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--spaces", type=Path, required=True, help="folder of recorded spaces")
    parser.add_argument(
        "--kernel-tuner", type=Path, help="a Python that has kernel_tuner; without it ours only"
    )
    parser.add_argument("--seeds", type=int, default=25, help="searches for each strategy and space")
    options = parser.parse_args()
    totals: dict[str, list[Score]] = {}
    head = f"  {'':<24}" + "".join(f"{f'@{at}':>8}" for at in AT) + f"{'to 5 %':>10}{'ms each':>10}"
    for path in sorted(path for path in options.spaces.iterdir() if not path.name.startswith(".")):
        recorded = load(path)
        failed = sum(time is None for time in recorded.times.values())
        print(f"{recorded.name}: {len(recorded.times)} configs, {failed} of them failing\n{head}")
        names = [name for name in search.STRATEGIES if name != "exhaustive"]
        scores = {name: [ours(name, recorded, seed) for seed in range(options.seeds)] for name in names}
        if options.kernel_tuner:
            scores |= theirs(options.kernel_tuner, recorded, options.seeds)
        for name, each in scores.items():
            print(row(name, each), flush=True)
            totals.setdefault(name, []).extend(each)
    print(f"mean over all spaces, {options.seeds} seeds each\n{head}")
    for name, each in totals.items():
        print(row(name, each))
    print(TARGET)


if __name__ == "__main__":
    main()
