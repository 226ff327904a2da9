"""Look at the workspace on the host."""

from __future__ import annotations

import errno
import os
import stat

from .listing import file_record, link_record

DISPLACED = b".remote-displaced"
"""Where what is overwritten waits: in the workspace, as a rename stays on one disk. Each rsync has its own
folder in it: --backup-dir replaces what an earlier one put there, of a push that was cut, or of a file that
is sent again since it changed meanwhile."""
PARTIAL_DIR = b".remote-partial"
"""Where half a file waits for its other half: rsync's --partial-dir, in the folder of the file itself."""


class Tree:
    """The workspace on the host, looked at without following a link below its root."""

    def __init__(self, root: bytes) -> None:
        """Name the root."""
        self.prefix = root + b"/"
        self._folders: dict[bytes, bytes | None] = {b"": b""}

    def folder(self, path: bytes) -> bytes | None:
        """Tell what a folder is: b"" real, None missing, else the path of what stands in its way."""
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
        """Look at every folder anew: something was moved."""
        self._folders = {b"": b""}

    def record(self, path: bytes) -> bytes | None:
        """Return the record of what lies at `path`: None for nothing, b"" for what is no file and no link."""
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
        """Return what must be moved before a file can stand at `path`: a folder there, or no folder above."""
        above = self.folder(path.rpartition(b"/")[0])
        if above is None:
            return None
        return above or (path if self.record(path) == b"" else None)

    def beside(self, path: bytes, date: str) -> bytes:
        """Return a free name for what must give way at `path`."""
        folder, slash, name = path.rpartition(b"/")
        ending, count = b".remote-" + date.encode("ascii"), 1
        while True:
            number = b"" if count == 1 else b"-%d" % count
            kept = folder + slash + name[: 255 - len(ending) - len(number)] + ending + number
            if not os.path.lexists(self.prefix + kept):
                return kept
            count += 1
