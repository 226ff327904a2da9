"""From `--host`, `--hosts` and `--local-dir` to one host's run, or to those of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, Task

from remote_tools.tasks._context import end, new_display, print_table, settings_for

if TYPE_CHECKING:
    from remote_tools.loop.fleet import HostOutcome, Work
    from remote_tools.settings.settings import Settings

HOSTS = "several hosts at once: names with commas between them, or a group of the settings"


class HostsTask(Task[Any]):
    """A task that has the flag `--hosts`; `fab -H` with several names gives it all of them at once."""


def on_hosts(
    c: Context,
    work: Work,
    *,
    host: str | None,
    hosts: str | None,
    local_dir: str | None = None,
    alone: str = "",
) -> None:
    """Do some work on the host, or on several at once, and end the command with its exit code.

    Several are those of `--hosts`, or of a group in the place of the host. What each brings goes to
    `<local_dir>/<host>`. The exit code is 0 where all ended so, else that of the first named that did not.

    Args:
        c: the task's context.
        work: what is done with the settings of a host.
        host, hosts, local_dir: the flags; None where not given.
        alone: a flag that was given and that only one host can have.

    Raises:
        UsageError: `--host` beside `--hosts`, or several hosts beside `alone`.
        ConfigError: a setting of one of the hosts is wrong or missing; nothing was started.
    """
    from remote_tools.errors import UsageError
    from remote_tools.loop.fleet import run_all
    from remote_tools.settings.settings import at_host, expand, require

    if host is not None and hosts is not None:
        raise UsageError("hosts", "--host names one host, --hosts several", f"--hosts {host},{hosts}")
    settings = settings_for(c, required=(), host=host, local_dir=local_dir)
    if hosts is None and settings.hosts.get(settings.host, (settings.host,)) == (settings.host,):
        require(settings, ("host", "code_path"))
        return end(work(settings, new_display()))
    each = [
        replace(found, local_dir=found.local_dir / found.host)
        for found in (at_host(settings, name) for name in expand(settings, [hosts or settings.host]))
    ]
    if not each:
        raise UsageError("hosts", f"--hosts {hosts!r} names none", "--hosts trn1,trn2")
    if alone:
        raise UsageError("hosts", f"{alone} takes one host", f"leave {alone} away, or name one with --host")
    for one in each:
        require(one, ("host", "code_path"))
    ended = run_all(each, work, new_display())
    show(ended)
    code = next((one.code for one in ended if one.code), 0)
    if code:
        raise Exit(code=code)
    return None


def show(ended: Sequence[HostOutcome]) -> None:
    """Print the closing table."""
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
    """Return a line for each kernel of what was fetched: the best rate, and at which shapes."""
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
        else f"{one.kernel} {one.median_ms:.4g} ms at {one.shapes}"
        for one in best.values()
    ]
    return "\n".join([*lines, *faults])
