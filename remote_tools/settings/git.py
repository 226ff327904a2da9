"""Run git on the workspace: the folder alone decides what it reads, not the user's environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH")
PLAIN_DIFF = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
"""Options with which the output of `git diff` can be applied, whatever the user's settings are."""


def environment() -> Mapping[str, str]:
    """Return the environment for git, without its own variables, such as GIT_DIR and GIT_INDEX_FILE.

    A hook or an alias sets them, and they may name another repository. git does not write to the index.
    """
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return {**own, "GIT_OPTIONAL_LOCKS": "0"}


def start(top: bytes | str, *words: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
    """Start git in a folder.

    Args:
        top: the folder.
        words: the command and its arguments.
        options: of Popen; stderr is a pipe by default.

    Raises:
        FileNotFoundError: git is not installed.
    """
    command = [b"git", b"-C", os.fsencode(top), *map(os.fsencode, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), **{**pipes, **options})
