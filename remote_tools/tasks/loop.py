"""Tasks of the loop: dev, sync, exec, fetch, config."""

from __future__ import annotations

from invoke import Context
from invoke.tasks import task

from remote_tools.tasks._context import (
    HOST,
    JSON,
    LOCAL_DIR,
    RUN_HELP,
    new_display,
    print_json,
    print_table,
    settings_for,
    words,
)
from remote_tools.tasks._fleet import HOSTS, HostsTask, on_hosts


@task(
    klass=HostsTask,
    help={
        **RUN_HELP,
        "hosts": HOSTS,
        "auto-fetch": "fetch the files that the run wrote below the cache root, also after a failure",
        "local-dir": LOCAL_DIR,
        "verify": "compare the trees in full even if nothing has changed since the last push",
        "watch": "run again after every save, until Ctrl-C while nothing runs",
        "restart": "with --watch: stop the run after a save, instead of waiting for its end",
    },
)
def dev(
    c: Context,
    auto_fetch: bool = False,
    local_dir: str | None = None,
    host: str | None = None,
    detach: bool = False,
    pty: bool = False,
    verify: bool = False,
    watch: bool = False,
    restart: bool = False,
    on_disconnect: str = "keep",
    lease_s: int = 0,
    hosts: str | None = None,
) -> None:
    """Push changes, run TARGET on the host, fetch its results: inv dev --auto-fetch -- x.py ARGS."""
    from remote_tools.errors import UsageError
    from remote_tools.loop import steps

    how = steps.How(
        auto_fetch=auto_fetch,
        detach=detach,
        pty=pty,
        verify=verify,
        on_disconnect=on_disconnect,
        lease_s=lease_s,
    )
    target = words()
    if watch and detach:
        raise UsageError("watch", "--watch follows each run to its end", "leave out --detach")
    if watch and hosts is None:
        from remote_tools.loop.watch import watch as watch_

        watch_(settings_for(c, host=host, local_dir=local_dir), target, how, new_display(), restart=restart)
    on_hosts(
        c,
        lambda settings, display: steps.dev(settings, target, how, display),
        host=host,
        hosts=hosts,
        local_dir=local_dir,
        alone="--watch" if watch else "--pty" if pty else "",
    )


@task(
    help={
        "host": HOST,
        "dry-run": "list what would be done, and change nothing",
        "force": "delete files on the host even if they are many",
        "no-delete": "keep files on the host that were deleted here",
        "json": "print the plan as JSON",
    }
)
def sync(
    c: Context,
    host: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    no_delete: bool = False,
    json: bool = False,
) -> None:
    """Push the workspace to the host, comparing both sides in full."""
    from remote_tools.loop import steps
    from remote_tools.sync.plan import PushMode

    settings = settings_for(c, host=host, delete=False if no_delete else None)
    result = steps.sync(settings, PushMode(force=force, dry_run=dry_run), new_display())
    if json:
        print_json(result.plan.to_json())
    elif dry_run:
        for line in result.plan.lines():
            print(line)


@task(
    name="exec",
    klass=HostsTask,
    help={
        **RUN_HELP,
        "hosts": HOSTS,
        "command": "a line for the login shell on the host, instead of words after --",
    },
)
def exec_(
    c: Context,
    command: str | None = None,
    host: str | None = None,
    detach: bool = False,
    pty: bool = False,
    on_disconnect: str = "keep",
    lease_s: int = 0,
    hosts: str | None = None,
) -> None:
    """Run a command on the host, in the code path, with the venv active: inv exec -- WORDS."""
    from remote_tools.errors import UsageError
    from remote_tools.loop import steps

    typed = words()
    if bool(typed) == (command is not None):
        raise UsageError(
            "exec", "type either words after --, or --command 'STRING'", "inv exec -- python --version"
        )
    how = steps.How(detach=detach, pty=pty, on_disconnect=on_disconnect, lease_s=lease_s)
    on_hosts(
        c,
        lambda settings, display: steps.execute(settings, typed or None, how, display, shell=command),
        host=host,
        hosts=hosts,
        alone="--pty" if pty else "",
    )


@task(
    help={
        "kernel": "fetch this kernel's folder of the host's cache",
        "all": "fetch the host's whole cache",
        "local-dir": LOCAL_DIR,
        "host": HOST,
    }
)
def fetch(
    c: Context,
    kernel: str | None = None,
    all: bool = False,
    local_dir: str | None = None,
    host: str | None = None,
) -> None:
    """Fetch results from the host: those of the last run, of one kernel, or all."""
    from remote_tools.loop import steps
    from remote_tools.runs.records import Records
    from remote_tools.sync.open_host import open_host

    settings = settings_for(c, host=host, local_dir=local_dir)
    last = None if kernel or all else Records(settings.root).last(settings.host)
    with open_host(settings, new_display()) as opened:
        if last is None:
            steps.fetch_cache(opened, kernel)
        else:
            steps.fetch_run(opened, last)


@task(help={"host": HOST, "json": JSON})
def config(c: Context, host: str | None = None, json: bool = False) -> None:
    """Show every setting, its value, and the file, variable or flag that set it."""
    from remote_tools.settings.settings import rows

    settings = settings_for(c, required=(), host=host)
    if json:
        print_json(
            [{"setting": name, "value": value, "source": source} for name, value, source in rows(settings)]
        )
        return
    print_table("setting", "value", "from", rows=rows(settings), dim="default")
    for note in settings.layers.notes:
        new_display().say(note)
