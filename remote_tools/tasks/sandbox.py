"""Tasks of the sandbox, and the demo that runs the whole loop against it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from invoke import Context, Exit
from invoke.tasks import task

from remote_tools.tasks._context import end, new_display, root, settings_for


def _folder(c: Context) -> Path:
    """Return the sandbox's folder; create it if it is missing.

    Raises:
        PermissionDenied: it is not this account's own, or came with the repository.
    """
    from remote_tools.errors import PermissionDenied
    from remote_tools.settings.state_folder import make_private, state_folder

    try:
        state = state_folder(root(c))
        make_private(state / "sandbox", state)
    except OSError as error:
        raise PermissionDenied("sandbox", f"{error.filename}: {error.strerror}") from error
    return state / "sandbox"


@task
def up(c: Context) -> None:
    """Start the sandbox: an sshd on 127.0.0.1 with its own keys and files."""
    from remote_tools.setup import sandbox

    found = sandbox.up(_folder(c))
    print(f"sandbox: sshd on 127.0.0.1:{found.port}, pid {found.pid}")
    print(f"         {shlex.join(['ssh', '-F', str(found.ssh_config), found.host_alias])}")


@task
def down(c: Context) -> None:
    """Stop the sandbox and all processes in it."""
    from remote_tools.setup import sandbox

    print("sandbox: stopped" if sandbox.down(_folder(c)) else "sandbox: was not running")


@task
def status(c: Context) -> None:
    """Show whether the sandbox runs; exit code 1 if it does not."""
    from remote_tools.setup import sandbox

    found = sandbox.status(_folder(c))
    print(f"sandbox: sshd on 127.0.0.1:{found.port}, pid {found.pid}" if found else "sandbox: not running")
    if found is None:
        raise Exit(code=1)


@task(
    help={
        "budget": "number of configs to try for each shape",
        "backend": "kind of candidates: c (default), numpy, or nki, which is estimated, not run",
    }
)
def demo(c: Context, budget: int | None = None, backend: str | None = None) -> None:
    """Run the whole loop against the sandbox: push, tune the matrix product, fetch the results."""
    from remote_tools.loop import steps
    from remote_tools.setup import sandbox

    found = sandbox.up(_folder(c))
    settings = settings_for(
        c,
        host=found.host_alias,
        ssh_options=("-F", str(found.ssh_config)),
        rsync_options=(),
        code_path="~/workspace",
        venv_path=sys.prefix,
        cache_dir="~/.cache/autotune",
    )
    words = ["examples/gemm.py", "--mode", "both"]
    words += ["--backend", backend] if backend else []
    words += ["--budget", str(budget)] if budget else []
    display = new_display()
    display.say(f"inv dev --auto-fetch -- {shlex.join(words)}    (host: sshd on 127.0.0.1:{found.port})")
    outcome = steps.dev(settings, words, steps.How(auto_fetch=True), display)
    display.say("The sandbox still runs; inv sandbox.down stops it")
    end(outcome)
