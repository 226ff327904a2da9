"""Write a local file atomically, whatever stands in its place or beside it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOR_ALL = 0o666
"""The mode of a file that the umask alone restricts, as `open` makes it."""
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH is Linux': the folder need not be readable


@contextmanager
def replacement(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` at the end of the `with`; after an exception it is removed.

    Nobody can guess its name, and no link is followed: neither in its place, nor in that of `path`, nor a
    folder that is put in the place of the parent meanwhile.

    Args:
        path: the file; its folder exists.
        mode: of the new file, less the umask; it has it from the start.

    Raises:
        OSError: the file cannot be written; the old file is unchanged.
    """
    folder = os.open(path.parent, _SEARCH | os.O_DIRECTORY | os.O_CLOEXEC)
    part = f".remote-{secrets.token_hex(8)}.part"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(part, flags, mode & 0o777, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically: a reader sees the old content or the new one.

    For streams and thousands of files, see `Connection.get` and `Results`.

    Raises:
        OSError: the file cannot be written; the old file is unchanged, and no partial file is left.
    """
    with replacement(path, mode) as file:
        file.write(data)
