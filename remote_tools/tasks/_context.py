"""Load a task's settings, make its display, print its result and set its exit code; shared by all tasks.

Tasks import everything else when they run, so that `inv --list` and completion stay fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit

if TYPE_CHECKING:
    from pathlib import Path

    from remote_tools.loop.steps import Outcome
    from remote_tools.settings.settings import Settings
    from remote_tools.sync.progress import Display

HOST = "the host, as ssh names it; overrides the setting"
LOCAL_DIR = "the folder for results; overrides the setting"
JSON = "print JSON, for programs"
RUN_HELP = {
    "host": HOST,
    "detach": "return as soon as the run has started; inv runs.attach shows it",
    "pty": "give the command a terminal, for pdb, colours and single keys",
    "on-disconnect": "keep or kill the run when the connection is lost",
    "lease-s": "with --on-disconnect kill: seconds until a run without a connection is killed",
}


def new_display() -> Display:
    """Return a display for messages and progress bars on standard error."""
    from remote_tools.sync.progress import Display

    return Display()


def settings_for(c: Context, required: tuple[str, ...] = ("host", "code_path"), **flags: Any) -> Settings:
    """Return the settings for a task; under `fab -H` the context is a Connection and chooses the host.

    Args:
        c: the task's context.
        required: settings that must not be empty.
        flags: the values of flags by setting; None if a flag was not given.
    """
    from remote_tools.settings import settings
    from remote_tools.settings.core_flags import reject_without_effect

    reject_without_effect()
    return settings.load(c.config, root(c), flags=flags, fab_host=_fab_host(c), required=required)


def _fab_host(c: Context) -> str | None:
    """Return the host of `fab -H`, with its user; None under `inv`, whose contexts have no host.

    Raises:
        UsageError: the host has a port, which ssh and rsync do not accept in a host name.
    """
    from remote_tools.errors import UsageError

    if not hasattr(type(c), "derive_shorthand"):
        return None
    if not hasattr(c, "master"):  # a fabfile without our executor
        return str(c.original_host)
    destination = c.master.destination
    if destination.options:
        raise UsageError(
            "settings", f"fab -H does not accept a port: {destination.alias}", "set Port in ~/.ssh/config"
        )
    return str(destination.alias)


def root(c: Context) -> Path:
    """Return the root of the workspace: where the loaded tasks.py or fabfile is.

    A nearer folder, such as that of the results, may hold settings that are not the project's.
    """
    from pathlib import Path

    from remote_tools.settings.core_flags import start_folder
    from remote_tools.settings.settings import find_root

    loaded = getattr(c.config, "_project_prefix", None)  # Invoke sets it as it loads a collection
    return Path(loaded).resolve() if loaded else find_root(start_folder())


def words() -> list[str]:
    """Return the words that were typed after `--`."""
    from remote_tools.runs.target import words_after_dashes

    return words_after_dashes(sys.argv)


def end(outcome: Outcome) -> None:
    """Exit with the run's exit code."""
    if outcome.exit_code:
        raise Exit(code=outcome.exit_code)


def print_json(found: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(found, indent=1))


def print_table(*columns: str, rows: Sequence[tuple[str, ...]], dim: str = "") -> None:
    """Print a table that fits the terminal; a column `run` is never cut.

    Cells are plain text, so that text from a host is never interpreted as markup, nor by the terminal.

    Args:
        columns: the headings.
        rows: the cells of each row.
        dim: rows with this cell are printed dim.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from remote_tools.escape import escaped

    table = Table(*(Column(escaped(name), no_wrap=name == "run") for name in columns), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row), style="dim" if dim and dim in row else "")
    Console().print(table)
