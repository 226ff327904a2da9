"""Find the words after `--`, and turn a TARGET into the command for the host."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from remote_tools.errors import UsageError
from remote_tools.sync.workspace import Workspace

# Scripts that are searched for a similar name: enough for any project, and quick in a huge tree.
SEARCH_LIMIT = 5000
_EXAMPLE = "type the command after --, for example: inv dev -- examples/gemm.py --mode both"


def words_after_dashes(command_line: Sequence[str]) -> list[str]:
    """Return the words after the first `--`; Invoke itself only keeps them joined by spaces.

    Args:
        command_line: the whole command line, as in `sys.argv`.
    """
    return list(command_line[command_line.index("--") + 1 :]) if "--" in command_line else []


def target_argv(words: Sequence[str], root: Path) -> list[str]:
    """Return the command for the host from TARGET and its arguments.

    Args:
        words: `x.py ...`, `-m module ...`, or any command.
        root: the workspace, which must contain the script.

    Returns:
        The command's argv; for a script or module it starts with `python`, the host's own.

    Raises:
        UsageError: no words, no module after `-m`, or the script is missing.
    """
    if not words:
        raise UsageError("target", "nothing to run", _EXAMPLE)
    if words[0] == "-m":
        if len(words) == 1:
            raise UsageError("target", "-m needs a module", "for example: inv dev -- -m pytest -v")
        return ["python", *words]
    if not words[0].endswith(".py"):
        return list(words)
    # An absolute path outside the workspace can only be checked on the host.
    script = Path(words[0])
    if (not script.is_absolute() or script.is_relative_to(root)) and not _is_file(root / script):
        nearest = _nearest(words[0], root)
        hint = f"the nearest: {', '.join(nearest)}" if nearest else f"scripts are searched for in {root}"
        raise UsageError("target", f"no {words[0]} in {root}", hint)
    return ["python", *words]


def check_is_sent(words: Sequence[str], tree: Workspace) -> None:
    """Raise if the script or module that was typed is here, but is not sent to the host.

    An older version may still be there, and would run.

    Raises:
        UsageError: git ignores it, or a pattern of `exclude` leaves it out.
    """
    for name in _files_of(words, tree.root):
        if os.fsencode(name) in tree.files or not _is_file(tree.root / name):
            continue
        why = "git ignores it, or `exclude` leaves it out"
        hint = f"REMOTE_INCLUDE={name} sends it; inv sync --dry-run lists what is sent"
        raise UsageError("target", f"{name} is not sent to the host: {why}", hint)


def _files_of(words: Sequence[str], root: Path) -> list[str]:
    """Return the paths below the root that TARGET may stand for."""
    if not words:
        return []
    if words[0] == "-m" and len(words) > 1:
        module = words[1].replace(".", "/")
        return [f"{module}.py", f"{module}/__main__.py", f"{module}/__init__.py"]
    script = Path(words[0])
    if script.is_absolute() and not script.is_relative_to(root):
        return []
    return [os.path.normpath(script.relative_to(root) if script.is_absolute() else script)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long, or in a folder that may not be read
        return False


def _nearest(script: str, root: Path) -> list[str]:
    """Return up to three scripts of the workspace with similar names, most similar first."""
    scripts = list(islice(_scripts(root), SEARCH_LIMIT))
    names = difflib.get_close_matches(Path(script).name, {Path(path).name for path in scripts}, n=3)
    similar = [path for name in names for path in scripts if Path(path).name == name]
    folder = Path(script).parent
    beside = [path for path in scripts if folder != Path() and Path(path).parent == folder]
    # In the folder that was named, any script is nearer than one of a similar name elsewhere.
    there = [path for path in similar if path in beside]
    return list(dict.fromkeys([*there, *beside, *similar] if beside else similar))[:3]


def _scripts(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for file in sorted(files):
            if file.endswith(".py"):
                yield str((Path(folder) / file).relative_to(root))
