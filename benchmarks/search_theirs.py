"""Replay a recorded space with kernel_tuner's strategies; `benchmarks/search.py` runs it where they are.

They run as their `simulation_mode` runs them: over a search space of exactly the recorded
configs, with their cost function and their budget of unique configs, failed ones included. Only the look-up
of a config's time is ours. Reads JSON on stdin, writes JSON on stdout: for each strategy and seed, the places
of the configs in the order of their first evaluation.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from kernel_tuner import util  # type: ignore[import-not-found]
from kernel_tuner.interface import Options, strategy_map  # type: ignore[import-not-found]
from kernel_tuner.searchspace import Searchspace  # type: ignore[import-not-found]


class Replay:
    """A runner that looks times up, and counts as kernel_tuner's simulation does."""

    def __init__(self, names: list[str], times: dict[tuple[Any, ...], float | None]) -> None:
        self.names, self.times = names, times
        self.order: dict[tuple[Any, ...], None] = {}

    def add_strategy_time(self, _seconds: float) -> None:
        """Take no notice."""

    def run(self, configs: Iterable[tuple[Any, ...]], tuning_options: Any) -> list[dict[str, Any] | None]:
        """Return the recorded result of each config; None for those past the budget."""
        results: list[dict[str, Any] | None] = []
        for config in map(tuple, configs):
            if tuning_options.budget.is_done():
                results.append(None)
                continue
            if config not in self.order:
                self.order[config] = None
                tuning_options.budget.add_evaluations(1)
            time = self.times[config]
            outcome = {"__error__": util.RuntimeFailedConfig()} if time is None else {"time": time}
            results.append({**dict(zip(self.names, config, strict=True)), **outcome})
        return results


def main() -> None:
    """Replay what stdin describes."""
    task = json.load(sys.stdin)
    names = list(task["parameters"])
    rows = [tuple(row) for row in task["rows"]]
    times = dict(zip(rows, task["times"], strict=True))
    places = {row: place for place, row in enumerate(rows)}

    def recorded(config: dict[str, Any]) -> bool:
        return tuple(config[name] for name in names) in times

    orders: dict[str, list[list[int]]] = {}
    with contextlib.redirect_stdout(sys.stderr):
        space = Searchspace(task["parameters"], recorded, 1_000_000_000)
        assert space.size == len(rows), f"{space.size} configs instead of {len(rows)}"
        for name in task["strategies"]:
            orders[name] = []
            for seed in range(task["seeds"]):
                random.seed(seed)
                np.random.seed(seed)
                runner = Replay(names, times)
                options = Options(
                    objective=["time"],
                    objective_higher_is_better=[False],
                    strategy_options=Options(max_fevals=task["budget"]),
                    budget=util.TuningBudget(None, min(task["budget"], space.size)),
                    tune_params=task["parameters"],
                    restrictions=recorded,
                    verbose=False,
                )
                with contextlib.suppress(util.StopCriterionReached):
                    strategy_map[name].tune(space, runner, options)
                orders[name].append([places[config] for config in runner.order])
    json.dump(orders, sys.stdout)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
