"""Take the words after `--` exactly as typed, and turn a TARGET into the command that runs on the host."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from remote_tools.errors import UsageError

# How many scripts are looked at for a near miss: enough for any project, quick in a huge tree.
SEARCH_LIMIT = 5000
_EXAMPLE = "type what to run after --, for example: inv dev -- examples/gemm.py --mode both"


def words_after_dashes(command_line: Sequence[str]) -> list[str]:
    """Return what stands after the first `--`; Invoke itself keeps only its words joined by spaces.

    Args:
        command_line: the whole of it, as in `sys.argv`.
    """
    return list(command_line[command_line.index("--") + 1 :]) if "--" in command_line else []


def target_argv(words: Sequence[str], root: Path) -> list[str]:
    """Make the command to run on the host out of TARGET and its arguments.

    Args:
        words: `x.py ...`, `-m module ...`, or any command.
        root: the workspace, in which a script must exist before anything is sent.

    Returns:
        The command's argv; a script or module starts with `python`, which the host maps to its own.

    Raises:
        UsageError: no words, no module after `-m`, or no such script here.
    """
    if not words:
        raise UsageError("target", "nothing to run", _EXAMPLE)
    if words[0] == "-m":
        if len(words) == 1:
            raise UsageError("target", "-m needs a module", "for example: inv dev -- -m pytest -v")
        return ["python", *words]
    if not words[0].endswith(".py"):
        return list(words)
    # An absolute path outside the workspace is the host's own business.
    script = Path(words[0])
    if (not script.is_absolute() or script.is_relative_to(root)) and not (root / script).is_file():
        nearest = _nearest(words[0], root)
        hint = f"the nearest: {', '.join(nearest)}" if nearest else f"scripts are looked for in {root}"
        raise UsageError("target", f"no {words[0]} in {root}", hint)
    return ["python", *words]


def _nearest(script: str, root: Path) -> list[str]:
    """Name up to three scripts of the workspace that may have been meant, likeliest first."""
    scripts = list(islice(_scripts(root), SEARCH_LIMIT))
    names = difflib.get_close_matches(Path(script).name, {Path(path).name for path in scripts}, n=3)
    return [path for name in names for path in scripts if Path(path).name == name][:3]


def _scripts(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for file in sorted(files):
            if file.endswith(".py"):
                yield str((Path(folder) / file).relative_to(root))
