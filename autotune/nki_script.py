"""What scripts do with NKI kernels: measure them in the order of their estimates, or estimate only."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.backends.neuron import NeuronBackend
from autotune.estimating import Ranking, prefilter, rank
from autotune.estimating.candidate import estimate_text
from autotune.model.errors import AutotuneError
from autotune.model.kernel import Inputs, Kernel
from autotune.nki.timing.estimates import DISCLAIMER
from autotune.report.lanes import lanes_page
from autotune.report.ranking_table import TOP, print_ranking
from autotune.report.terminal import say
from autotune.report.units import config_text
from autotune.store.cache import write_file
from autotune.store.results import Results
from autotune.tuner import tune

LANES = "lanes.html"
"""The lanes of the config that is fastest by estimate, beside `estimates.json`."""
JSON_SCHEMA = 1
"""Of what `--json` prints; docs/tuner.md describes it."""


def why_not_measured() -> str:
    """Return why this machine cannot measure NKI kernels; empty if it can."""
    return NeuronBackend().why_not()


def tune_in_order(kernel: Kernel, inputs: Inputs, **options: Any) -> Results:
    """Measure the configs that the model lets pass, in the order of their estimates; say its error."""
    backend = NeuronBackend()
    if "nki" not in kernel.generators:
        return tune(kernel, inputs, **options)
    target, where = backend.fingerprint()["target"], options["cache_dir"]
    ranking = rank(kernel, inputs, target=target, cache_dir=where)
    kernel, order = prefilter.filtered(kernel, ranking, backend.name)
    result = tune(kernel, inputs, **{**options, "strategy": options["strategy"] or order})
    found = prefilter.compared(ranking.estimates, result.trials)
    for each in found[:TOP]:
        say(f"{each.in_words}: {config_text(each.config)}", sys.stderr)
    return replace(result, notes=(*result.notes, *filter(None, [prefilter.summary(found)])))


def main(
    cases: Sequence[tuple[Kernel, Inputs]], options: Mapping[str, Any], *, as_json: bool, why_not: str
) -> int:
    """Rank the configs of every case by estimates, print tables or JSON, return the exit code.

    Args:
        cases: kernels and their inputs.
        options: the arguments of `tune` that the flags stand for.
        as_json: print one JSON object on stdout, and all else on stderr.
        why_not: why nothing is measured.
    """
    told = sys.stderr if as_json else sys.stdout
    say(f"{DISCLAIMER}; these are no measurements: {why_not}", told)
    rankings: list[Ranking] = []
    try:
        for kernel, inputs in cases:
            chosen = {name: options[name] for name in ("strategy", "budget", "cache_dir")}
            rankings.append(rank(kernel, inputs, **chosen))
            print_ranking(rankings[-1], told)
            if page := _lanes(rankings[-1], inputs):
                say(f"lanes: {page}", told)
    except AutotuneError as error:
        for line in str(error).splitlines():
            say(line, sys.stderr)
        return error.exit_code
    if as_json:
        plain = [*map(_plain, rankings)]
        print(json.dumps({"schema": JSON_SCHEMA, "estimated": True, "workloads": plain}, allow_nan=False))
    return 0 if all(ranking.best for ranking in rankings) else 1


def _lanes(ranking: Ranking, inputs: Inputs) -> Path | None:
    """Draw the lanes of the winner beside the estimates; return the path, or None if there is no winner."""
    if not ranking.best:
        return None
    found = estimate_text(ranking.source, inputs.specs, ranking.target)
    title = f"{ranking.kernel} {ranking.shapes} {config_text(ranking.best.config)}"
    write_file(ranking.folder / LANES, lanes_page(found, title).encode())
    return ranking.folder / LANES


def _plain(ranking: Ranking) -> dict[str, Any]:
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
