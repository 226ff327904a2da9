"""Run git on a repository that may be a stranger's: it lists and compares, and starts no other program.

A repository's own configuration, hooks and attributes can name programs (git-config(1)). The user's own
configuration counts as ever. Its variables, such as GIT_DIR, do not: the folder alone decides what git reads.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_tools.errors import UnavailableError

_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH")
_SET = {
    "GIT_OPTIONAL_LOCKS": "0",  # write nothing, not even the index
    "GIT_ALLOW_PROTOCOL": "none",  # fetch no object that a partial clone lacks, by ssh or another program,
    "GIT_NO_LAZY_FETCH": "1",  # and do not try to
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",  # `NO_REPOSITORY` is compared with what it says
}
_FENCE = (
    *("--no-pager", "-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null"),
    *("-c", "safe.bareRepository=explicit", "-c", "diff.orderFile=/dev/null"),
)
PLAIN_DIFF = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
    *("--submodule=short", "--ignore-submodules=dirty"),  # else git starts git in each submodule
)
"""Options with which the output of `git diff` can be applied, whatever the settings are."""
NO_REPOSITORY = b"not a git repository"
"""In git's message if the nearest `.git` is none of its own, or on another file system."""
LIST_SETTINGS = ("config", "--list", "-z", "--show-scope", "--includes")
"""The words of the command whose output `filters_off` reads."""


def environment() -> Mapping[str, str]:
    """Return the environment for git, without its own variables, such as GIT_DIR and GIT_INDEX_FILE.

    A hook or an alias sets them, and they may name another repository.
    """
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return {**own, **_SET}


def start(
    top: bytes | str, *words: str | bytes, settings: Sequence[bytes] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start git in a folder.

    Args:
        top: the folder.
        words: the command and its arguments.
        settings: more settings for git, `name=value`.
        options: of Popen; stderr is a pipe by default.

    Raises:
        FileNotFoundError: git is not installed.
    """
    more = [word for setting in settings for word in (b"-c", setting)]
    command = [b"git", b"-C", os.fsencode(top), *map(os.fsencode, _FENCE), *more, *map(os.fsencode, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), **{**pipes, **options})


def missing(top: Path | str) -> UnavailableError:
    """Return the error for a work tree on a machine without git."""
    return UnavailableError("sync", f"{top} is a git work tree, and git is not installed here", "install git")


def work_tree(folder: Path) -> Path | None:
    """Return the nearest of a folder and its parents that holds `.git`; None if there is none.

    Args:
        folder: without links, see `Path.resolve`.
    """
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def filters_off(listing: bytes) -> list[bytes] | None:
    """Return the settings that turn off the filters of a repository's own configuration.

    They are programs that git starts to compare a file whose time has changed (gitattributes(5), filter). A
    filter that the user has too, such as git-lfs, is as the user has it.

    Args:
        listing: the output of `LIST_SETTINGS`.

    Returns:
        The settings for `start`; None if a filter's name has no place on a command line.
    """
    users: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    for scope, name, value in _settings(listing):
        if not name.startswith(b"filter."):
            continue
        if scope in (b"system", b"global"):
            users[name] = value
        else:
            own[name] = b"false" if name.endswith(b".required") else b""
    if any(b"=" in name for name in own):
        return None
    return [name + b"=" + users.get(name, off) for name, off in own.items()]


def _settings(listing: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield scope, name and value; a setting without a value is true (git-config(1))."""
    words = listing.split(b"\0")
    for scope, setting in zip(words[::2], words[1::2], strict=False):
        name, newline, value = setting.partition(b"\n")
        yield scope, name, value if newline else b"true"


def tracks(folder: Path, name: str) -> bool:
    """Return whether git tracks a file, or something in a folder, of that name or pattern (gitglossary(7)).

    Raises:
        OSError: git is missing, or cannot tell.
    """
    if work_tree(folder.resolve()) is None:
        return False
    with start(os.fsencode(folder), "ls-files", "-z", "--", name) as asked:
        out, errors = asked.communicate()
    if asked.returncode and NO_REPOSITORY not in errors:
        raise OSError(errno.EIO, f"git cannot tell whether it tracks {name}", str(folder))
    return bool(out)
