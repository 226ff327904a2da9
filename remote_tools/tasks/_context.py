"""What tasks share: from a task's context and flags to settings, and from an outcome to an exit code.

What a task needs beyond this is imported when it runs: `inv --list` and completion stay quick, and Fabric is
loaded behind the network or not at all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit

if TYPE_CHECKING:
    from remote_tools.loop.steps import Outcome
    from remote_tools.settings.settings import Settings
    from remote_tools.sync.progress import Display

HOST = "ssh's name for the host, instead of the setting's"
LOCAL_DIR = "where results are put, instead of the setting's folder"
JSON = "print JSON, for programs"
RUN_HELP = {
    "host": HOST,
    "detach": "return as soon as the run is there; inv runs.attach shows it",
    "pty": "give the command a terminal: pdb, colours, every key",
    "on-disconnect": "keep: the run lives without us; kill: it ends when we are gone",
    "lease-s": "with --on-disconnect kill: seconds that the run may live without us",
}


def new_display() -> Display:
    """Return where messages and bars go."""
    from remote_tools.sync.progress import Display

    return Display()


def settings_for(c: Context, required: tuple[str, ...] = ("host", "code_path"), **flags: Any) -> Settings:
    """Return the settings of a task's context; under `fab -H` that is a Connection, which names the host.

    Args:
        c: the task's context.
        required: settings that must not be empty.
        flags: the command's own flags by setting; None means not given.
    """
    from remote_tools.settings import settings

    return settings.load(c.config, root(), flags=flags, fab_host=_fab_host(c), required=required)


def _fab_host(c: Context) -> str | None:
    """Return the host that `fab -H` named, with its user; None under `inv`, whose contexts have no host.

    Raises:
        UsageError: a port was named: ssh and rsync take none in that place.
    """
    from remote_tools.errors import UsageError

    if not hasattr(type(c), "derive_shorthand"):
        return None
    if not hasattr(c, "master"):  # a fabfile without our executor
        return str(c.original_host)
    destination = c.master.destination
    if destination.options:
        raise UsageError(
            "settings", f"fab -H takes no port: {destination.alias}", "set Port in ~/.ssh/config"
        )
    return str(destination.alias)


def root() -> Path:
    """Return the workspace that the command was typed in."""
    from remote_tools.settings.settings import find_root

    return find_root(Path.cwd())


def words() -> list[str]:
    """Return what was typed after `--`."""
    from remote_tools.runs.target import words_after_dashes

    return words_after_dashes(sys.argv)


def end(outcome: Outcome) -> None:
    """End the command with the run's own exit code."""
    if outcome.exit_code:
        raise Exit(code=outcome.exit_code)


def print_json(found: Any) -> None:
    """Print what a program would read."""
    print(json.dumps(found, indent=1))


def print_table(*columns: str, rows: Sequence[tuple[str, ...]], dim: str = "") -> None:
    """Print a table that fits the terminal; rows that hold the word `dim` are shown so, a `run` is never cut.

    Every cell is plain text: what comes from a host is never read as markup.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, no_wrap=name == "run") for name in columns), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(Text, row), style="dim" if dim and dim in row else "")
    Console().print(table)
