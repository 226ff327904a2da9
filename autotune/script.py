"""The shared half of scripts that tune: their flags, and the way from cases to a printed table or JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune import backends, report, search
from autotune.backends import NAMES
from autotune.model.budget import Budget
from autotune.model.errors import AutotuneError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.trial import Trial
from autotune.report.terminal import say
from autotune.search import STRATEGIES
from autotune.store.cache import METRICS
from autotune.store.results import Results
from autotune.tuner import tune

NKI, NEURON = "nki", "neuron"
"""The first is the second on a machine with NeuronCores and the SDK; elsewhere configs are estimated."""
_BACKEND = (
    f"kind of candidates: {', '.join(NAMES)}; {NKI}: measured by {NEURON} if it is there, else estimated "
    "(%(default)s)"
)
_PREFILTER = "on NeuronCores: do not leave out and order configs by their estimates"
JSON_SCHEMA = 1
"""Of what `--json` prints; docs/tuner.md describes it."""


@dataclass(frozen=True)
class Case:
    """One kernel on one set of tensors.

    Args:
        kernel: what to tune.
        inputs: its tensors.
    """

    kernel: Kernel
    inputs: Inputs


def parser(
    description: str, *, budget: int, dtypes: Sequence[str] = ("float32", "float64")
) -> argparse.ArgumentParser:
    """Return a parser with the flags that every example has.

    Args:
        description: one line for `--help`.
        budget: the default of `--budget`: configs to try for each case.
        dtypes: what `--dtype` offers; names such as bf16 are taken for these.
    """
    flags = argparse.ArgumentParser(description=description)
    add_flags(flags, budget=budget)
    flags.add_argument("--backend", default="c", help=_BACKEND)
    flags.add_argument(
        "--dtype",
        type=lambda text: TensorSpec("", (), text).dtype,
        choices=dtypes,
        metavar="DTYPE",
        default="float32",
        help=f"element type: {', '.join(dtypes)} (default: %(default)s)",
    )
    return flags


def add_flags(flags: argparse.ArgumentParser, *, budget: int) -> None:
    """Add the flags that say how to search, and where and how results are told.

    Args:
        flags: where they are added.
        budget: the default of `--budget`, unless `--seconds` is given.
    """
    add = flags.add_argument
    add(
        "--budget",
        type=_count,
        metavar="N",
        help=f"configs to try per workload; 0: all ({budget}, or all if --seconds is given)",
    )
    add("--seconds", type=_seconds, metavar="S", help="seconds that each search may take (no end)")
    add("--strategy", choices=sorted(STRATEGIES), help="what proposes configs (all in turn, else bayesian)")
    add("--retune", action="store_true", help="measure everything again; earlier results are kept")
    add("--devices", type=_devices, metavar="0,1|all", help="the devices that search together (the first)")
    add("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")
    add("--cache-dir", type=Path, metavar="DIR", help="where results go (default: $AUTOTUNE_CACHE_DIR)")
    add("--no-prefilter", dest="prefilter", action="store_false", help=_PREFILTER)
    flags.set_defaults(default_budget=budget)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a count of configs, 0 or more, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds, more than 0, not {text!r}")
    return seconds


def _devices(text: str) -> str | tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"names of devices with commas between them, or all, not {text!r}")
    return "all" if names == ("all",) else names


def main(flags: argparse.Namespace, cases: Sequence[Case]) -> int:
    """Tune every case, print the table of the best configs or JSON, return the exit code.

    0 if every case has a best config, 1 if one has none, else the code of the printed error.
    """
    tuned: Callable[..., Results] = tune
    if getattr(flags, "backend", "") in {NKI, NEURON}:
        from autotune import nki_script  # half a second that other backends need not wait

        if flags.backend == NKI and (why_not := nki_script.why_not_measured()):
            asked = [(case.kernel, case.inputs) for case in cases]
            return nki_script.main(asked, _options(flags), as_json=flags.json, why_not=why_not)
        flags.backend = NEURON
        tuned = nki_script.tune_in_order if getattr(flags, "prefilter", False) else tune
    try:
        named = isinstance(flags.backend, str)
        if caution := (backends.get(flags.backend) if named else flags.backend).caution():
            say(caution, sys.stderr)
        results = [tuned(case.kernel, case.inputs, **_options(flags)) for case in cases]
        told = sys.stderr if flags.json else sys.stdout
        report.print_table([report.load(result.folder / METRICS) for result in results], told)
        for result in results:
            for note in result.notes:
                if note != caution:
                    say(f"{result.kernel} {result.shapes}: {note}", sys.stderr)
    except AutotuneError as error:
        for line in str(error).splitlines():
            say(line, sys.stderr)
        return error.exit_code
    if flags.json:
        print(json.dumps({"schema": JSON_SCHEMA, "workloads": [*map(_plain, results)]}, allow_nan=False))
    return 0 if all(result.best for result in results) else 1


def _options(flags: argparse.Namespace) -> Mapping[str, Any]:
    """Return the arguments of `tune` that the flags stand for."""
    trials = flags.budget
    if trials is None and flags.seconds is None:
        trials = flags.default_budget
    return {
        "backend": flags.backend,
        "strategy": search.get(flags.strategy) if flags.strategy else None,
        "budget": Budget(trials or None, flags.seconds),
        "cache_dir": flags.cache_dir,
        "retune": flags.retune,
        "progress": report.Live,
        "devices": flags.devices,
    }


def _plain(result: Results) -> dict[str, Any]:
    """Return what `--json` prints of one workload."""
    return {
        "kernel": result.kernel,
        "shapes": result.shapes,
        "backend": result.backend,
        "folder": str(result.folder),
        "best": result.best and _trial(result.best),
        "ties": [*map(_trial, result.ties)],
        "baselines": [each.to_dict() for each in result.baselines],
        "speedup": result.speedup,
        "statuses": Counter(trial.status.value for trial in result.trials),
        "measured": result.measured,
        "elapsed_s": round(result.elapsed_s, 3),
        "notes": list(result.notes),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    reading = trial.best_reading
    return {
        "config": dict(trial.config),
        "path": trial.path,
        "confirmed": trial.confirmed is not None,
        "metrics": reading and dict(vars(reading)),
    }
