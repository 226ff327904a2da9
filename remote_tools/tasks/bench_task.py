"""Make bench tasks: one line gives a script its own task, with its flags, auto-fetch and a report.

    gemm = bench_task("gemm", "examples/gemm.py", ["--mode", "both"])

is `inv bench.gemm`, `inv bench.gemm --mode lhs_rhs --hosts trn1,trn2`, `fab -H trn1 bench.gemm -- --seed 5`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from invoke import Collection, Context, Exit

from remote_tools.errors import UsageError
from remote_tools.tasks._context import HOST, LOCAL_DIR, display, words
from remote_tools.tasks._fleet import HOSTS, HostsTask, on_hosts

OWN_FLAGS = {"host": HOST, "hosts": HOSTS, "local_dir": LOCAL_DIR}


def bench_task(name: str, script: str, args: Sequence[str] = ()) -> HostsTask:
    """Make a task that runs a script on the host as `dev --auto-fetch` does.

    Args:
        name: the task's name.
        script: the target, as after `inv dev --`.
        args: its usual arguments, `--flag value` pairs; each becomes a flag of the task with that default.

    Returns:
        An Invoke task; words after `--` go to the script behind the flags.

    Raises:
        UsageError: args are not pairs, or one has the name of a flag that every bench task has.
    """
    defaults = _pairs(name, args)

    def body(c: Context, **given: Any) -> None:
        from remote_tools.loop import steps

        own = {flag: given.pop(flag, None) for flag in OWN_FLAGS}
        typed = [
            word
            for flag, value in {**defaults, **given}.items()
            for word in (f"--{flag.replace('_', '-')}", value)
        ]
        target, how = [script, *typed, *words()], steps.How(auto_fetch=True)
        on_hosts(c, lambda settings, shown: steps.dev(settings, target, how, shown), **own)

    parameters = {**dict.fromkeys(OWN_FLAGS), **defaults}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    body.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("c", kind)]
        + [inspect.Parameter(flag, kind, default=value) for flag, value in parameters.items()]
    )
    body.__doc__ = f"Run {script} on the host, bring its results, write the report."
    help_texts = dict.fromkeys(defaults, f"passed on to {script}")
    named = {flag.replace("_", "-"): text for flag, text in {**OWN_FLAGS, **help_texts}.items()}
    return HostsTask(body, name=name, help=named)


def bench_collection(*tasks: HostsTask) -> Collection:
    """Make the collection `bench` of bench tasks, with `bench.all` and `bench.compare` beside them."""
    from remote_tools.tasks.compare import compare

    return Collection("bench", *tasks, _all_of(tasks), compare)


def _all_of(tasks: Sequence[HostsTask]) -> HostsTask:
    """Make the task that runs the others, one after the other."""

    def all_(
        c: Context, host: str | None = None, hosts: str | None = None, local_dir: str | None = None
    ) -> None:
        failed = []
        for task in tasks:
            display().say(f"bench.{task.name}")
            try:
                task.body(c, host=host, hosts=hosts, local_dir=local_dir)
            except Exit as ended:
                if ended.message:
                    display().say(ended.message)
                failed.append((task.name, ended.code))
        if failed:
            display().say("failed: " + ", ".join(f"bench.{name} ({code})" for name, code in failed))
            raise Exit(code=failed[0][1])

    all_.__doc__ = "Run every benchmark, one after the other; one that fails does not stop the others."
    named = {flag.replace("_", "-"): text for flag, text in OWN_FLAGS.items()}
    return HostsTask(all_, name="all", help=named)


def _pairs(name: str, args: Sequence[str]) -> dict[str, str]:
    """Read `--flag value` pairs."""
    flags, values = args[::2], args[1::2]
    if len(flags) != len(values) or any(not flag.startswith("--") for flag in flags):
        raise UsageError("bench", f"bench_task({name!r}): args are not --flag value pairs: {list(args)}")
    found = {flag[2:].replace("-", "_"): value for flag, value in zip(flags, values, strict=True)}
    taken = sorted(set(found) & set(OWN_FLAGS))
    if taken:
        raise UsageError("bench", f"bench_task({name!r}): {taken[0]} is a flag of every bench task")
    return found
