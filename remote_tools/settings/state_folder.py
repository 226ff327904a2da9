"""The folder for this program's own state in a workspace."""

from __future__ import annotations

from pathlib import Path

NAME = ".remote"


def state_folder(root: Path) -> Path:
    """Return `.remote`; create it if it is missing. It ignores itself, so that git sees no change.

    Raises:
        OSError: it cannot be created.
    """
    folder = root / NAME
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")
    return folder
