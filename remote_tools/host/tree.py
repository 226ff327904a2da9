"""Look at the workspace on the host."""

from __future__ import annotations

import errno
import os
import stat

from .listing import file_record, link_record

DISPLACED = b".remote-displaced"
"""Folder for overwritten files; inside the workspace because a rename stays on one disk. Each rsync has its
own subfolder: --backup-dir would replace the backups of an interrupted push, or of a file that is sent again
because it changed during the transfer."""
PARTIAL_DIR = b".remote-partial"
"""Folder for partly sent files: rsync's --partial-dir, next to each file."""


class Tree:
    """The workspace on the host, read without following links below its root."""

    def __init__(self, root: bytes) -> None:
        """Name the root."""
        self.prefix = root + b"/"
        self._folders: dict[bytes, bytes | None] = {b"": b""}

    def folder(self, path: bytes) -> bytes | None:
        """Return b"" if it is a real folder, None if it is missing, else the path of what blocks it."""
        if path not in self._folders:
            above = self.folder(path.rpartition(b"/")[0])
            self._folders[path] = self._look(path) if above == b"" else above
        return self._folders[path]

    def _look(self, path: bytes) -> bytes | None:
        try:
            return b"" if stat.S_ISDIR(os.lstat(self.prefix + path).st_mode) else path
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def forget(self) -> None:
        """Clear the cache of folders, after something was moved."""
        self._folders = {b"": b""}

    def record(self, path: bytes) -> bytes | None:
        """Return the record of `path`: None if it is missing, b"" if it is neither a file nor a link."""
        above = self.folder(path.rpartition(b"/")[0])
        if above != b"":
            return None
        try:
            info = os.lstat(self.prefix + path)
            if stat.S_ISREG(info.st_mode):
                return file_record(path, info)
            if stat.S_ISLNK(info.st_mode):
                return link_record(path, os.readlink(self.prefix + path))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return b""

    def obstacle(self, path: bytes) -> bytes | None:
        """Return the path to move aside for a file at `path`: a folder there, or a parent that is not one."""
        above = self.folder(path.rpartition(b"/")[0])
        if above is None:
            return None
        return above or (path if self.record(path) == b"" else None)

    def beside(self, path: bytes, date: str) -> bytes:
        """Return a free name under which to put `path` aside."""
        folder, slash, name = path.rpartition(b"/")
        ending, count = b".remote-" + date.encode("ascii"), 1
        while True:
            number = b"" if count == 1 else b"-%d" % count
            kept = folder + slash + name[: 255 - len(ending) - len(number)] + ending + number
            if not os.path.lexists(self.prefix + kept):
                return kept
            count += 1
