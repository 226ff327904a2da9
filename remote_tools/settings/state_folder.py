"""The folder for this program's own state in a workspace: the one gate to it.

Others may be able to write to the workspace, as in /tmp or in a group's folder, and a repository may bring a
`.remote` of its own. So the state is used only if it is this account's, and no link leads to it. Once that is
so, mode 0700 keeps the others out.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from remote_tools.settings import git
from remote_tools.settings.whole_file import write_whole

NAME = ".remote"
MAX_BYTES = 1 << 30
_IGNORE = ".gitignore"
_MADE_HERE = stat.S_IFREG | 0o400
"""Type and mode of our `.gitignore`: no file that git brings is without write permission for its owner."""


def state_folder(root: Path) -> Path:
    """Return `.remote`; create it if it is missing. It ignores itself, so that git sees no change.

    Raises:
        OSError: it cannot be created; or it is not this account's, or came with the repository.
    """
    folder = root / NAME
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _check_made_here(folder)
    else:
        _ignore(folder)
    return folder


def make_private(folder: Path, above: Path) -> None:
    """Create a folder for this account alone, and its parents up to `above`.

    Raises:
        OSError: one cannot be created, or is a link or another account's.
    """
    if folder != above:
        make_private(folder.parent, above)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _check_private(folder)


def read_state(path: Path, root: Path, limit: int = MAX_BYTES) -> bytes:
    """Return a file below `.remote`.

    Raises:
        OSError: it cannot be read, is larger than `limit`, or is not a plain file of this account.
    """
    with open_state(path, root) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return file.read(limit)


def open_state(path: Path, root: Path) -> BinaryIO:
    """Open a file below `.remote` for reading.

    Raises:
        OSError: it cannot be read, or is not a plain file of this account.
    """
    check_state(path.parent, root)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid():
        file.close()
        raise _not_ours(path)
    return file


def check_state(folder: Path, root: Path) -> None:
    """Raise unless a folder of the state is this account's own; keep others out of it.

    Raises:
        OSError: it is missing, a link or another account's, or came with the repository.
    """
    _check_made_here(root / NAME)
    while folder != root / NAME:
        _check_private(folder)
        folder = folder.parent


def _check_private(folder: Path) -> None:
    """Raise unless it is a folder of this account; keep others out of it."""
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise _not_ours(folder)
    if info.st_mode & 0o077:
        with suppress(OSError):  # a file system without modes
            folder.chmod(0o700)


def _check_made_here(folder: Path) -> None:
    """Raise unless `.remote` is this account's, and git did not bring it."""
    _check_private(folder)
    with suppress(FileNotFoundError):
        info = (folder / _IGNORE).lstat()
        if info.st_mode == _MADE_HERE and info.st_uid == os.getuid():
            return
    if git.tracks(folder.parent, f":(icase){NAME}"):
        raise OSError(errno.EPERM, f"git tracks it: git rm -r --cached {NAME}", str(folder))
    _ignore(folder)


def _ignore(folder: Path) -> None:
    write_whole(folder / _IGNORE, b"*\n", stat.S_IMODE(_MADE_HERE))


def _not_ours(path: Path) -> OSError:
    return PermissionError(errno.EPERM, "it is not this account's own, or a link", str(path))
