"""Read Invoke's and Fabric's own flags, which stand before the name of the task."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from remote_tools.errors import UsageError

_WITH_VALUE = {
    "-T": "--command-timeout",
    "-c": "--collection",
    "-D": "--list-depth",
    "-f": "--config",
    "-F": "--list-format",
    "-r": "--search-root",
    "-H": "--hosts",
    "-i": "--identity",
    "-S": "--ssh-config",
    "-t": "--connect-timeout",
}
_LONG = {"-R": "--dry", "-p": "--pty"}
_INSTEAD = {
    "--dry": "inv sync --dry-run lists what a push would do",
    "--command-timeout": "inv dev -- timeout 60 python x.py ends a command after 60 s",
    "--pty": "the flag stands after the task: inv dev --pty -- x.py",
    "--identity": 'set IdentityFile in ~/.ssh/config, or ssh_options: ["-i", FILE]',
    "--ssh-config": 'set ssh_options: ["-F", FILE]',
}
"""Flags that have no effect on our tasks, and what has."""


def core_flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the long name and the value of each flag before the first task.

    Args:
        argv: as `sys.argv`.
    """
    words = iter(argv[1:])
    for word in words:
        if word == "--" or not word.startswith("-"):
            return
        name, given, value = word.partition("=")
        if not name.startswith("--") and len(name) > 2 and name[:2] in _WITH_VALUE:
            name, given, value = name[:2], "=", word[2:]  # -T60
        name = _WITH_VALUE.get(name) or _LONG.get(name, name)
        if name in _WITH_VALUE.values() and not given:
            value = next(words, "")
        yield name, value


def start_folder() -> Path:
    """Return the folder at which the search for the project starts: `--search-root`, or the current one."""
    roots = [value for name, value in core_flags(sys.argv) if name == "--search-root" and value]
    return (Path.cwd() / roots[-1]).resolve() if roots else Path.cwd()


def reject_without_effect() -> None:
    """Raise if a flag was typed that has no effect on our tasks.

    Raises:
        UsageError: such a flag was typed.
    """
    for name, _value in core_flags(sys.argv):
        if name in _INSTEAD:
            raise UsageError("flags", f"{name} before a task has no effect on it", _INSTEAD[name])
