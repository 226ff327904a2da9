"""Write docs/tasks.md from the tasks: python docs/task_reference.py > docs/tasks.md."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invoke import Argument, Collection, Task

ROOT = Path(__file__).parents[1]

_INTRODUCTION = """\
Every task of `inv`, from its own help: `inv --list` prints the list, `inv --help dev` prints one task.

Words after `--` belong to the command that runs on the host, and each arrives there as it was typed.
In another repository the names start with the name of the collection, such as `inv remote.dev`.
`fab -H HOST TASK` runs the same tasks.
"""

_SECTIONS = {
    "": "The loop and the host",
    "runs": "Runs",
    "bench": "Benchmarks",
    "sandbox": "The sandbox",
}
_COMMAND = re.compile(r": (inv .*?)((?<!\.)\.)?$", re.MULTILINE)
"""The command that a docstring ends with, without its full stop."""
_DEVELOPERS = ("check", "docs", "test")


def reference(ns: Collection) -> str:
    """Return docs/tasks.md: every task with its help and its flags."""
    names = sorted(name for name in ns.task_names if name not in _DEVELOPERS)
    lines = ["# Tasks", "", _INTRODUCTION]
    for prefix, title in _SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            if name.rpartition(".")[0] == prefix:
                lines += _task(name, ns[name])
    lines += ["## For this repository only", ""]
    for name in _DEVELOPERS:
        lines += _task(name, ns[name])
    return "\n".join(lines).rstrip() + "\n"


def _task(name: str, task: Task[Any]) -> Iterator[str]:
    """Yield a task's heading, its docstring and its flags as a table."""
    about = _COMMAND.sub(r": `\1`\2", (task.__doc__ or "").strip())
    yield from (f"### `inv {name}`", "", about, "")
    arguments = task.get_arguments()
    if arguments:
        yield from ("| flag | what it does |", "|---|---|")
        yield from (f"| {_flags(each)} | {_help(each)} |" for each in arguments)
        yield ""


def _flags(argument: Argument) -> str:
    """Return a flag as one types it, its short form first, or its bare name if it needs no dashes."""
    if argument.positional:
        return f"`{str(argument.name).upper()}`"
    value = "" if argument.kind is bool else f" {argument.kind.__name__.upper().replace('STR', 'TEXT')}"
    names = sorted(argument.names, key=len)
    dashed = [f"-{each}" if len(each) == 1 else f"--{each.replace('_', '-')}" for each in names]
    return ", ".join(f"`{each}{value if each is dashed[-1] else ''}`" for each in dashed)


def _help(argument: Argument) -> str:
    """Return a flag's help, and its default if it has one."""
    default = f" (default: `{argument.default}`)" if argument.default else ""
    return (argument.help or "").replace("|", "\\|") + default


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from tasks import ns

    print(reference(ns), end="")
