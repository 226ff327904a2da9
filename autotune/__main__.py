"""`python -m autotune`: tune a kernel of a file; read, check and tidy any cache, of any machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from autotune import exchange, report, script, tune_file
from autotune.model.errors import AutotuneError, DataError, UnavailableError, UsageError
from autotune.model.space import nearest
from autotune.model.trial import Trial
from autotune.report.comparison import comparison_page
from autotune.report.records import log_tail, texts
from autotune.report.terminal import say
from autotune.report.units import config_text, duration, interval, rate_text
from autotune.store import cache, catalog
from autotune.store.clean import clean
from autotune.store.summary import Summary
from autotune.verify import verify

_SHOWN = 20
_WORKLOAD = "KERNEL or KERNEL/SHAPES"
_NKI = "Run NKI kernels where there is no Trainium."
_TUNE = "Tune a kernel that a file declares, for the given shapes."
_REPORT = "Print the best configs; write report.html and the plots."


class _Parser(argparse.ArgumentParser):
    code = UsageError.exit_code

    def error(self, message: str) -> NoReturn:
        """End with EX_USAGE, as every fault of usage here does; `tune` ends with 2, as scripts do."""
        self.print_usage(sys.stderr)
        self.exit(self.code, f"{self.prog}: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(prog="autotune", description="Tune a kernel; read, check and tidy a cache of results.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    where = "the cache (default: $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune)"

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.add_argument("--cache-dir", type=Path, metavar="DIR", help=where)
        return added

    tuned = commands.add_parser("tune", help=_TUNE, description=_TUNE)
    tuned.code = 2
    tune_file.add_flags(tuned)
    tuned.set_defaults(error=tuned.error)
    command("list", "Print the best config of every workload.")
    made = command("report", _REPORT)
    made.add_argument("cache", type=Path, nargs="?", metavar="CACHE", help=where)
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="where the files go (default: plots/ in the cache)"
    )
    made.add_argument("--no-html", action="store_true", help="print the table only; write nothing")
    made.add_argument(
        "--no-table", action="store_true", help="write the files only, and print where they are"
    )
    show = command("show", "Print a workload's trials, or one trial with its logs.")
    show.add_argument("workload", help=_WORKLOAD)
    show.add_argument("config", nargs="?", help="a config's folder name, or the start of it")
    best = command("best", "Print best configs as JSON, one workload a line.")
    best.add_argument("workload", nargs="?", help=f"{_WORKLOAD}; default: all")
    command(
        "verify",
        "Check the cache for damage, and list the results that are stale on this machine, with the reason.",
    )
    export = command("export", "Write a workload's trials to a file that other tuners read.")
    export.add_argument("workload", help=_WORKLOAD)
    export.add_argument(
        "file", type=Path, help="*.csv, *.t4.json, or kernel_tuner's cache; *.gz is compressed"
    )
    fetched = command("import", "Read a CSV, T4 results or a cache of kernel_tuner into this cache.")
    fetched.add_argument("file", type=Path)
    drawn = "Read a comparison, as `inv bench.compare` sends it, from stdin; print its page."
    commands.add_parser("comparison", help=drawn, description=drawn)
    command("clean", "Remove what killed tuners left, and merge journals.")
    _add_nki(commands.add_parser("nki", help=_NKI, description=_NKI))
    return parser


def _add_nki(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="nki_command", required=True, metavar="COMMAND")
    text = "Run a script whose kernels are interpreted on this CPU, checked against a target's limits."
    run = commands.add_parser("run", help=text, description=text)
    run.add_argument("--target", metavar="NAME", help="trn1, trn2 (default) or trn3")
    run.add_argument(
        "--unwritten",
        choices=["error", "nan"],
        help="what reading memory that nobody wrote does (default: error)",
    )
    run.add_argument("--memory", action="store_true", help="print what SBUF and PSUM hold at their peaks")
    run.add_argument("--force", action="store_true", help="replace AWS's own nki if it is installed")
    run.add_argument("file", type=Path, metavar="FILE.py")
    run.add_argument("words", nargs=argparse.REMAINDER, help="the script's own arguments")
    text = "Estimate how long a kernel takes on a NeuronCore, and why; nothing is run."
    guess = commands.add_parser("estimate", help=text, description=text)
    guess.add_argument("--target", metavar="NAME", help="trn1, trn2 (default) or trn3")
    guess.add_argument("--lanes", type=Path, metavar="FILE.html", help="draw the engines' lanes over time")
    guess.add_argument(
        "--renames",
        action="store_true",
        help="the kernel is compiled with enable-linear-scan-allocation=false",
    )
    guess.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a keyword of the kernel's"
    )
    guess.add_argument("kernel", metavar="FILE.py:NAME")
    guess.add_argument("operands", nargs="*", metavar="2048x2048:bfloat16")


def main(argv: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(argv)
    if options.command == "tune":
        try:
            case = tune_file.case(options)
        except UsageError as fault:
            options.error(str(fault))
        return script.main(options, [case])
    if options.command == "comparison":
        sys.stdout.buffer.write(comparison_page(sys.stdin.read()).encode())
        return 0
    if options.command == "nki" and options.nki_command == "estimate":
        return _estimate(options)
    if options.command == "nki":
        return _run(options)
    root = cache.root(getattr(options, "cache", None) or options.cache_dir)
    if options.command == "list":
        return _report(root)
    if options.command == "report":
        out = None if options.no_html else options.out or root / "plots"
        return _report(root, out, table=not options.no_table)
    if options.command == "show":
        return _show(root, options.workload, options.config)
    if options.command == "best":
        return _best(root, options.workload)
    if options.command == "verify":
        return _verify(root)
    if options.command == "export":
        return _export(root, options.workload, options.file)
    if options.command == "import":
        _say(str(exchange.import_file(options.file, root)))
        return 0
    for line in clean(root):
        _say(line)
    return 0


def _run(options: argparse.Namespace) -> int:
    """Run a script with its kernels interpreted."""
    from autotune.nki.errors import NkiError  # here: a fifth of a second that other commands need not wait
    from autotune.nki.script import run_script

    how = (options.target, options.unwritten, options.memory, options.force)
    try:
        return run_script(options.file, options.words, *how)
    except NkiError as refused:
        return _refused(refused)


def _refused(error: AutotuneError) -> int:
    """Print why a kernel is refused and who holds what, a tensor a line; return the exit code."""
    for line in f"autotune: {error}".splitlines():
        say(line, sys.stderr)
    return error.exit_code


def _estimate(options: argparse.Namespace) -> int:
    """Print an estimate, and draw its lanes if that is asked for."""
    from autotune.nki.errors import NkiError  # as `_run`
    from autotune.nki.kernel_file import find_kernel, keyword, operand
    from autotune.nki.timing.estimates import estimate
    from autotune.report.estimate_text import estimate_lines
    from autotune.report.lanes import lanes_page

    kernel = find_kernel(options.kernel)
    operands = [operand(each) for each in options.operands]
    keywords = dict(keyword(each) for each in options.set)
    try:
        found = estimate(kernel, *operands, target=options.target, renames=options.renames, **keywords)
    except NkiError as refused:
        return _refused(refused)
    for line in estimate_lines(found):
        _say(line)
    if options.lanes:
        title = f"{kernel.__name__} {' '.join([*options.operands, *options.set])}"
        cache.write_file(options.lanes, lanes_page(found, title).encode())
        _say(f"lanes: {options.lanes}")
    return 0


def _report(root: Path, out: Path | None = None, *, table: bool = True) -> int:
    """Print the table and write the files; report what cannot be read, and show the rest."""
    workloads, faults = report.load_all(root)
    if workloads and table:
        report.print_table(workloads)
    estimated = report.print_estimates(root) if table else 0
    code = _told(faults)  # before the files, which may not be writable
    if (workloads or estimated) and out:
        _say("")
        _say(f"report: {report.write_page(workloads, root, out)}")
        try:
            plots = report.write_plots(workloads, out)
            _say(f"plots:  {out} ({len(plots)} PNG)")
        except UnavailableError as missing:
            _complain(missing)
    return code


def _told(faults: Sequence[AutotuneError]) -> int:
    """Print faults, and return the exit code for them."""
    for fault in faults:
        _complain(fault)
    return faults[0].exit_code if faults else 0


def _summaries(root: Path, name: str | None) -> list[Path]:
    """Return the summaries of the workloads of a name: KERNEL, KERNEL/SHAPES, or all.

    Raises:
        UsageError: no workload has this name.
    """
    paths = {f"{path.parent.parent.name}/{path.parent.name}": path for path in catalog.workloads(root)}
    chosen = [path for key, path in paths.items() if name is None or name in {key, key.split("/")[0]}]
    if not chosen:
        what = "nothing was tuned there" if not paths else f"no workload {name!r}{nearest(name, paths)}"
        raise UsageError(f"cache {root}: {what}")
    return chosen


def _export(root: Path, name: str, file: Path) -> int:
    chosen = _summaries(root, name)
    if len(chosen) > 1:
        known = ", ".join(f"{name}/{path.parent.name}" for path in chosen)
        raise UsageError(f"{name} has {len(chosen)} workloads and a file holds one: name one of {known}")
    exchange.export_file(chosen[0], file)
    _say(str(file))
    return 0


def _show(root: Path, name: str, config: str | None) -> int:
    workloads, faults = report.load_each(_summaries(root, name))
    for workload in workloads:
        if config is None:
            _show_workload(workload)
            continue
        found = [trial for trial in workload.trials if trial.path.startswith(config)]
        if not found:
            paths = (trial.path for trial in workload.trials)
            raise UsageError(f"{workload.folder}: no config {config!r}{nearest(config, paths)}")
        _show_trial(workload, found[0])
    return _told(faults)


def _show_workload(workload: Summary) -> None:
    _say(f"{workload.kernel} {workload.shapes}")
    for title, facts in (
        ("environment", texts(workload.environment)),
        ("timing", texts(workload.timing)),
        ("search", texts(vars(workload.search))),
    ):
        _say(f"  {title}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    for baseline in workload.baselines:
        _say(f"  baseline {baseline.name}: {duration(baseline.metrics.median_ms)}")
    ties = {trial.path for trial in workload.ties}
    for trial in workload.trials[:_SHOWN]:
        mark = "*" if trial == workload.best else "=" if trial.path in ties else " "
        _say(f"{mark} {_line(trial)}")
    if len(workload.trials) > _SHOWN:
        _say(f"  ... and {len(workload.trials) - _SHOWN} more")
    statuses = Counter(trial.status.value for trial in workload.trials)
    _say("  " + ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))


def _line(trial: Trial) -> str:
    reading = trial.best_reading
    if reading is None:
        return f"{trial.status.value:>24}  {trial.path}: {trial.message}"
    times = f"{duration(reading.median_ms)} ({interval(reading.ci95_low_ms, reading.ci95_high_ms)})"
    confirmed = "confirmed" if trial.confirmed else ""
    return f"{times:>32}  {rate_text(reading):>16}  {confirmed:9}  {trial.path}"


def _show_trial(workload: Summary, trial: Trial) -> None:
    _say(f"{workload.kernel} {workload.shapes}: {config_text(trial.config)}")
    _say(_line(trial))
    for name, value in trial.to_dict().items():
        if name not in {"config", "samples_ms"}:
            _say(f"  {name}: {json.dumps(value)}")
    for line in log_tail(workload, trial).splitlines():
        _say(f"  | {line}")


def _best(root: Path, name: str | None) -> int:
    workloads, faults = report.load_each(_summaries(root, name))
    for workload in workloads:
        if workload.best and workload.best_reading:
            record = {
                "kernel": workload.kernel,
                "shapes": workload.shapes,
                "config": dict(workload.best.config),
                "median_ms": workload.best_reading.median_ms,
                "confirmed": workload.best.confirmed is not None,
                "ties": [trial.path for trial in workload.ties],
            }
            print(json.dumps(record))
    return _told(faults) or (0 if all(workload.best for workload in workloads) else 1)


def _verify(root: Path) -> int:
    count, findings = verify(root)
    for finding in findings:
        _say(f"{finding.kind}: {finding.where}: {finding.message}")
    kinds = Counter(finding.kind for finding in findings)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "no problems found"
    _say(f"{count} trials read: {told}")
    return DataError.exit_code if kinds["damaged"] else 0


def _say(line: str) -> None:
    say(line, sys.stdout)


def _complain(fault: AutotuneError) -> None:
    say(f"autotune: {fault}", sys.stderr)


def program() -> NoReturn:
    """Run as a program: `autotune`, or `python -m autotune`."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()  # here, so that a reader that is gone is handled below
        sys.exit(code)
    except AutotuneError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    program()
