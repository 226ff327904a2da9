"""The shared half of scripts that tune: their flags, and the way from cases to a printed table or JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune import backends, report, search
from autotune.backends import NAMES
from autotune.model.budget import Budget
from autotune.model.errors import AutotuneError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.trial import Trial
from autotune.report.terminal import say
from autotune.report.units import config_text
from autotune.search import STRATEGIES
from autotune.store.cache import METRICS, write_file
from autotune.store.results import Results
from autotune.tuner import tune

if TYPE_CHECKING:
    from autotune.estimating import Ranking

BACKEND = "nki"
"""The backend whose configs are estimated, not run, where there is no NeuronCore."""
LANES = "lanes.html"
"""The lanes of the config that is fastest by estimate, beside `estimates.json`."""
MEASURED = "neuron"
"""What `--backend nki` is on a machine with NeuronCores and the SDK; elsewhere it is an estimate."""
_BACKEND = (
    f"kind of candidates: {', '.join(NAMES)}; {BACKEND}: measured by neuron if it is there, else estimated "
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
    if getattr(flags, "backend", "") == BACKEND:
        from autotune.backends.neuron import NeuronBackend

        if why_not := NeuronBackend().why_not():
            return _ranked(flags, cases, why_not)
        flags.backend = MEASURED
    try:
        named = isinstance(flags.backend, str)
        if caution := (backends.get(flags.backend) if named else flags.backend).caution():
            say(caution, sys.stderr)
        results = [_tuned(flags, case) for case in cases]
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


def _tuned(flags: argparse.Namespace, case: Case) -> Results:
    """Tune one case; a kernel for NeuronCores in the order of its estimates, unless that is not wanted."""
    options = {**_options(flags)}
    wanted = getattr(flags, "prefilter", False) and flags.backend == MEASURED
    if not wanted or BACKEND not in case.kernel.generators:
        return tune(case.kernel, case.inputs, **options)
    from autotune.backends.neuron import NeuronBackend  # half a second that other backends need not wait
    from autotune.estimating import prefilter, rank
    from autotune.report.ranking_table import TOP

    target = NeuronBackend().fingerprint()["target"]
    ranking = rank(case.kernel, case.inputs, target=target, cache_dir=flags.cache_dir)
    kernel, order = prefilter.filtered(case.kernel, ranking, MEASURED)
    result = tune(kernel, case.inputs, **{**options, "strategy": options["strategy"] or order})
    found = prefilter.compared(ranking, result.trials)
    for each in found[:TOP]:
        numbers = f"{each.estimated_us:.1f} us estimated, {each.measured_us:.1f} us measured"
        say(f"{numbers} ({each.error:+.1%}): {config_text(each.config)}", sys.stderr)
    return replace(result, notes=(*result.notes, *filter(None, [prefilter.summary(found)])))


def _ranked(flags: argparse.Namespace, cases: Sequence[Case], why_not: str) -> int:
    """Rank the configs of every case by estimates, print tables or JSON, return the exit code as `main`."""
    from autotune.estimating import rank  # as above
    from autotune.estimating.candidate import estimate_text
    from autotune.nki.timing.estimates import DISCLAIMER
    from autotune.report.lanes import lanes_page
    from autotune.report.ranking_table import print_ranking

    told = sys.stderr if flags.json else sys.stdout
    say(f"{DISCLAIMER}; these are no measurements: {why_not}", told)
    rankings: list[Ranking] = []
    try:
        for case in cases:
            options = _options(flags)
            names = ("strategy", "budget", "cache_dir")
            ranking = rank(case.kernel, case.inputs, **{name: options[name] for name in names})
            rankings.append(ranking)
            print_ranking(ranking, told)
            if ranking.best:
                found = estimate_text(ranking.source, case.inputs.specs, ranking.target)
                page = lanes_page(
                    found, f"{ranking.kernel} {ranking.shapes} {config_text(ranking.best.config)}"
                )
                write_file(ranking.folder / LANES, page.encode())
                say(f"lanes: {ranking.folder / LANES}", told)
    except AutotuneError as error:
        for line in str(error).splitlines():
            say(line, sys.stderr)
        return error.exit_code
    if flags.json:
        plain = [*map(_plain_ranking, rankings)]
        print(json.dumps({"schema": JSON_SCHEMA, "estimated": True, "workloads": plain}, allow_nan=False))
    return 0 if all(ranking.best for ranking in rankings) else 1


def _plain_ranking(ranking: Ranking) -> dict[str, Any]:
    """Return what `--json` prints of one ranking by estimates."""
    return {
        "kernel": ranking.kernel,
        "shapes": ranking.shapes,
        "target": ranking.target,
        "model": ranking.model,
        "folder": str(ranking.folder),
        "best": ranking.best and ranking.best.to_dict(),
        "ties": [each.to_dict() for each in ranking.ties],
        "statuses": Counter(each.status.value for each in ranking.estimates),
        "new": ranking.new,
        "elapsed_s": round(ranking.elapsed_s, 3),
        "notes": list(ranking.notes),
    }


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
