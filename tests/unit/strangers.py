"""A repository as a stranger makes it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TASKS = "from remote_tools import ns\n\n__all__ = ['ns']\n"


def git(folder: Path, *words: str | bytes) -> str:
    """Run git with an author, as a stranger who makes the repository."""
    own = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", folder, *own, *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a repository with two harmless lines of tasks and a commit."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    (root / "tasks.py").write_text(TASKS)
    (root / ".gitignore").write_text(".remote_config\ncache/\n__pycache__/\n")
    (root / "a.txt").write_text("a\n")
    commit(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Begin")
