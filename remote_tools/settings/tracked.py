"""Refuse a `.remote_config` that git tracks: a repository must not bring the commands in it."""

from __future__ import annotations

import os
import shlex
from os.path import samestat
from pathlib import Path

from remote_tools.errors import ConfigError
from remote_tools.settings import git


class Tracked:
    """Ask git which files of a folder it tracks; git runs while the caller goes on (2 ms).

    Outside of a work tree nothing is asked.

    Args:
        path: the file in question.

    Raises:
        UnavailableError: git is not installed.
    """

    def __init__(self, path: Path) -> None:
        """Start git."""
        self._path, self._asked = path, None
        if git.work_tree(path.parent.resolve()) is not None:
            try:
                # All names of that folder: `.REMOTE_CONFIG` may be the same file here.
                self._asked = git.start(os.fsencode(path.parent), "ls-files", "-z", "--", ":(glob)*")
            except FileNotFoundError as error:
                raise git.missing(path.parent) from error

    def refuse(self, shown: str) -> None:
        """Raise if git tracks the file.

        Args:
            shown: the file for the message, relative to the root.

        Raises:
            ConfigError: git tracks it, or cannot tell.
        """
        if self._asked is None:
            return
        out, errors = self._asked.communicate()
        if self._asked.returncode and git.NO_REPOSITORY not in errors:
            reason = (errors.decode(errors="replace").strip().splitlines() or ["git failed"])[0]
            message = f"git cannot tell whether it tracks {shown}: {reason}"
            raise ConfigError(
                "settings", message, shlex.join(["git", "-C", str(self._path.parent), "status"])
            )
        for name in map(os.fsdecode, out.split(b"\0")[:-1]):
            if name == self._path.name or self._is(name):
                there = str(Path(shown).parent / name)
                message = f"git tracks {there}, and a repository must not bring what can run commands here"
                hint = f"read it; then: {shlex.join(['git', 'rm', '--cached', there])}"
                raise ConfigError("settings", message, hint)

    def _is(self, name: str) -> bool:
        """Return whether a name is the file's too."""
        try:
            return samestat((self._path.parent / name).lstat(), self._path.lstat())
        except OSError:
            return False
