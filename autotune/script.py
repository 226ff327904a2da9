"""The shared half of the example scripts: their flags, and the way from cases to a printed table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune import report
from autotune.backends import NAMES
from autotune.model.budget import Budget
from autotune.model.errors import AutotuneError
from autotune.model.kernel import Inputs, Kernel
from autotune.report.terminal import say
from autotune.store.cache import METRICS
from autotune.tuner import tune


@dataclass(frozen=True)
class Case:
    """One kernel on one set of tensors.

    Args:
        kernel: what to tune.
        inputs: its tensors.
    """

    kernel: Kernel
    inputs: Inputs


def parser(description: str, *, budget: int) -> argparse.ArgumentParser:
    """Return a parser with the flags that every example has.

    Args:
        description: one line for `--help`.
        budget: the default of `--budget`: configs to try for each case.
    """
    flags = argparse.ArgumentParser(description=description)
    add = flags.add_argument
    add("--backend", default="c", help=f"kind of candidates: {', '.join(NAMES)} (default: %(default)s)")
    add(
        "--budget",
        type=_count,
        default=budget,
        metavar="N",
        help="configs to try per workload; 0: all (%(default)s)",
    )
    add("--cache-dir", type=Path, metavar="DIR", help="where results go (default: $AUTOTUNE_CACHE_DIR)")
    add(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="element type (default: %(default)s)",
    )
    return flags


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a count of configs, 0 or more, not {text!r}")
    return int(text)


def main(flags: argparse.Namespace, cases: Sequence[Case]) -> int:
    """Tune every case, print the table of the best configs, return the exit code.

    0 if every case has a best config, 1 if one has none, else the code of the printed error.
    """
    budget = Budget(trials=flags.budget or None)
    try:
        results = [
            tune(
                case.kernel,
                case.inputs,
                backend=flags.backend,
                budget=budget,
                cache_dir=flags.cache_dir,
                progress=report.Live,
            )
            for case in cases
        ]
        report.print_table([report.load(result.folder / METRICS) for result in results])
        for result in results:
            for note in result.notes:
                say(f"{result.kernel} {result.shapes}: {note}", sys.stderr)
    except AutotuneError as error:
        for line in str(error).splitlines():
            say(line, sys.stderr)
        return error.exit_code
    return 0 if all(result.best for result in results) else 1
