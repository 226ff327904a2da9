"""Run a task on the host of `--host`, or on all of `--hosts` at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, Task

from remote_tools.tasks._context import end, new_display, print_table, settings_for

if TYPE_CHECKING:
    from remote_tools.loop.fleet import HostOutcome, Work
    from remote_tools.settings.settings import Settings

HOSTS = "several hosts at once: names separated by commas, or a group of the settings"


class HostsTask(Task[Any]):
    """A task with the flag `--hosts`; `fab -H` with several names passes all of them to that flag."""


def on_hosts(
    c: Context,
    work: Work,
    *,
    host: str | None,
    hosts: str | None,
    local_dir: str | None = None,
    alone: str = "",
) -> None:
    """Do the work on one host, or on several at once, and exit with the exit code.

    There are several hosts if `--hosts` is given, or if the host is the name of a group. Each host's results
    go to `<local_dir>/<host>`. The exit code is that of the first host in the list that failed, else 0.

    Args:
        c: the task's context.
        work: called with the settings of a host and a display.
        host, hosts, local_dir: the flags; None if not given.
        alone: a flag that was given and is valid for one host only; else empty.

    Raises:
        UsageError: both `--host` and `--hosts`, or `alone` with several hosts.
        ConfigError: a setting of a host is invalid or missing; nothing was started.
    """
    from remote_tools.errors import UsageError
    from remote_tools.loop.fleet import run_all
    from remote_tools.settings.settings import at_host, expand, require

    if host is not None and hosts is not None:
        raise UsageError("hosts", "--host and --hosts cannot be used together", f"--hosts {host},{hosts}")
    settings = settings_for(c, required=(), host=host, local_dir=local_dir)
    if hosts is None and settings.hosts.get(settings.host, (settings.host,)) == (settings.host,):
        require(settings, ("host", "code_path"))
        return end(work(settings, new_display()))
    each = [
        replace(found, local_dir=found.local_dir / found.host)
        for found in (at_host(settings, name) for name in expand(settings, [hosts or settings.host]))
    ]
    if not each:
        raise UsageError("hosts", f"--hosts {hosts!r} contains no host", "--hosts trn1,trn2")
    if alone:
        raise UsageError("hosts", f"{alone} takes one host", f"leave out {alone}, or name one with --host")
    for one in each:
        require(one, ("host", "code_path"))
    ended = run_all(each, work, new_display())
    show(ended)
    code = next((one.code for one in ended if one.code), 0)
    if code:
        raise Exit(code=code)
    return None


def show(ended: Sequence[HostOutcome]) -> None:
    """Print a table of the results of all hosts."""
    rows = [
        (
            one.settings.host,
            one.stage,
            str(one.code),
            best_of(one.settings, one.fetched),
            f"{one.took_s:.1f} s",
        )
        for one in ended
    ]
    print_table("host", "stage", "exit", "best", "took", rows=rows)


def best_of(settings: Settings, fetched: Sequence[str]) -> str:
    """Return a line for each kernel of the fetched results: the best rate, and its shapes."""
    from remote_tools.runs import summaries

    paths = [settings.local_dir / name for name in fetched if name.endswith(f"/{summaries.SUMMARY}")]
    found, faults = summaries.read_all(paths)
    best: dict[str, summaries.Best] = {}
    for one in found.values():
        rival = best.get(one.kernel)
        if rival is None or (one.gflops or 0) > (rival.gflops or 0):
            best[one.kernel] = one
    lines = [
        f"{one.kernel} {one.gflops:.4g} GFLOP/s at {one.shapes}"
        if one.gflops
        else f"{one.kernel} {summaries.duration(one.median_ms)} at {one.shapes}"
        for one in best.values()
    ]
    return "\n".join([*lines, *faults])
