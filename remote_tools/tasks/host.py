"""A host made ready: init, provision, doctor."""

from __future__ import annotations

import sys

from invoke import Context
from invoke.tasks import task

from remote_tools.tasks._context import HOST, display, end, root, settings_for


@task(
    help={
        "host": "ssh's name for the host; asked for where it is not given",
        "code-path": "the folder there that the workspace is pushed to",
        "venv-path": "the virtual environment there",
        "force": "replace a .remote_config that is there; the old one is kept beside",
    }
)
def init(
    _c: Context,
    host: str | None = None,
    code_path: str | None = None,
    venv_path: str | None = None,
    force: bool = False,
) -> None:
    """Write .remote_config: asks for host and paths, and offers the aliases of ~/.ssh/config."""
    from pathlib import Path

    from remote_tools import setup_config
    from remote_tools.errors import UsageError

    path = root() / ".remote_config"
    if path.exists() and not force:
        raise UsageError(
            "init", f"{path} is there already", "inv config shows it; inv init --force replaces it"
        )
    given = {"host": host, "code_path": code_path, "venv_path": venv_path}
    known = setup_config.aliases(Path.home() / ".ssh" / "config")
    ask = input if sys.stdin.isatty() else None
    print(setup_config.write(path, setup_config.ask_for(given, known, root().name, ask)))
    print("next: inv doctor")


@task(help={"host": HOST})
def provision(c: Context, host: str | None = None) -> None:
    """Make the host ready: code path, virtual environment, the project with its extras."""
    from remote_tools.provision import provision as provision_

    end(provision_(settings_for(c, host=host), display()))
