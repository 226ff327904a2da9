"""Make bench tasks: tasks for one script, with the script's flags, auto-fetch and a report.

    gemm = bench_task("gemm", "examples/gemm.py", ["--mode", "both"])

makes `inv bench.gemm`, `inv bench.gemm --mode lhs_rhs --hosts trn1,trn2` and
`fab -H trn1 bench.gemm -- --seed 5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invoke import Collection, Context, Exit

from remote_tools.errors import UsageError
from remote_tools.tasks._context import HOST, LOCAL_DIR, new_display, words
from remote_tools.tasks._fleet import HOSTS, HostsTask, on_hosts
from remote_tools.tasks.made_task import Flag, MadeTask

OWN_FLAGS = (Flag("host", HOST), Flag("hosts", HOSTS), Flag("local_dir", LOCAL_DIR))


class BenchTask(MadeTask, HostsTask):
    """A `MadeTask` that runs on one host or on several."""


def bench_task(name: str, script: str, args: Sequence[str] = ()) -> BenchTask:
    """Make a task that runs a script on the host as `dev --auto-fetch` does.

    Args:
        name: the task's name.
        script: the target, as after `inv dev --`.
        args: its default arguments, as `--flag value` pairs; each becomes a flag of the task.

    Returns:
        An Invoke task; words after `--` are passed to the script after the flags.

    Raises:
        UsageError: args are not pairs, or contain a flag that every bench task has.
    """
    defaults = _pairs(name, args)

    def body(c: Context, **given: Any) -> None:
        from remote_tools.loop import steps

        own = {flag.name: given.pop(flag.name, None) for flag in OWN_FLAGS}
        typed = [
            word
            for flag, value in {**defaults, **given}.items()
            for word in (f"--{flag.replace('_', '-')}", value)
        ]
        target, how = [script, *typed, *words()], steps.How(auto_fetch=True)
        on_hosts(c, lambda settings, display: steps.dev(settings, target, how, display), **own)

    about = f"Run {script} on the host, fetch its results, write the report."
    flags = [*OWN_FLAGS, *(Flag(flag, f"passed on to {script}", value) for flag, value in defaults.items())]
    return BenchTask(body, name, about, lambda: flags)


def bench_collection(*tasks: BenchTask) -> Collection:
    """Make the collection `bench` of bench tasks, with `bench.all` and `bench.compare`."""
    from remote_tools.tasks.compare import compare

    return Collection("bench", *tasks, _all_of(tasks), compare)


def _all_of(tasks: Sequence[BenchTask]) -> BenchTask:
    """Make the task that runs all others in turn."""

    def all_(c: Context, **own: str | None) -> None:
        failed = []
        for task in tasks:
            new_display().say(f"bench.{task.name}")
            try:
                task.body(c, **own)
            except Exit as ended:
                if ended.message:
                    new_display().say(ended.message)
                failed.append((task.name, ended.code))
        if failed:
            new_display().say("failed: " + ", ".join(f"bench.{name} ({code})" for name, code in failed))
            raise Exit(code=failed[0][1])

    about = "Run all benchmarks in turn; a failure does not stop the others."
    return BenchTask(all_, "all", about, lambda: OWN_FLAGS)


def _pairs(name: str, args: Sequence[str]) -> dict[str, str]:
    """Parse `--flag value` pairs."""
    flags, values = args[::2], args[1::2]
    if len(flags) != len(values) or any(not flag.startswith("--") for flag in flags):
        raise UsageError("bench", f"bench_task({name!r}): args are not --flag value pairs: {list(args)}")
    found = {flag[2:].replace("-", "_"): value for flag, value in zip(flags, values, strict=True)}
    taken = sorted(set(found) & {flag.name for flag in OWN_FLAGS})
    if taken:
        raise UsageError("bench", f"bench_task({name!r}): {taken[0]} is a flag of every bench task")
    return found
