"""Store what this checkout pushed last, and the client id by which the host knows it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import gethostname

from remote_tools.host.listing import join, path_of, split
from remote_tools.settings.state_folder import make_private, open_state, read_state, state_folder
from remote_tools.settings.whole_file import write_whole
from remote_tools.sync.workspace import Workspace


def client_id(root: Path, make: bool = True) -> str:
    """Return the random id by which the host knows this checkout; create it if it is missing.

    If it cannot be written, or `make` is false, this machine and folder make the id, the same each time.
    """
    path = root / ".remote" / "client-id"
    try:
        if make:
            state_folder(root)
            with suppress(FileExistsError), path.open("x") as file:
                file.write(secrets.token_hex(8))
        found = read_state(path, root, 1024).decode("ascii", "replace").strip()
        if re.fullmatch("[0-9a-f]{16}", found):
            return found
        if make:  # damaged: the host takes us for a new checkout
            found = secrets.token_hex(8)
            write_whole(path, found.encode("ascii"))
            return found
    except OSError:
        pass
    return hashlib.sha256(f"{gethostname()}\0{root}".encode(errors="surrogateescape")).hexdigest()[:16]


def _sum(listing: bytes) -> str:
    return f"{zlib.crc32(listing):08x}"


def _inodes(workspace: Workspace) -> bytes:
    return join(inode + b" " + path for path, inode in workspace.inodes.items())


ONCE = ".once"
"""Ending of a file of paths that were pushed once, each with NUL at its end."""
ONCE_BYTES = 4_000_000
"""Size at which each of them is written once only."""


class LastPush:
    """What this checkout pushed last to one code path: the base for finding changes.

    Args:
        root: the workspace.
        alias, code_path: where it was pushed to.
    """

    def __init__(self, root: Path, alias: str, code_path: str) -> None:
        """Read the stamp; the listing is read only when it is needed."""
        key = hashlib.sha256(f"{alias}\0{code_path}".encode(errors="surrogateescape")).hexdigest()[:16]
        self._root, self.path = root, root / ".remote" / "pushed" / key
        self._inodes_path = self.path.with_suffix(".inodes")
        self.stamp, self._sum = "", ""
        self._gone: Sequence[bytes] = ()
        with suppress(OSError), open_state(self.path, root) as file:
            first = file.readline(256).decode("ascii", "replace").split()
            self.stamp, self._sum = first if len(first) == 2 else ("", "")

    def paths(self) -> set[bytes]:
        """Return every path that this checkout has pushed, or begun to push, to any host."""
        found: set[bytes] = set()
        for path in self.path.parent.glob("*"):
            with suppress(ValueError, IndexError):
                if path.suffix == ONCE:
                    found.update(split(self._read(path)))
                elif not path.suffix:
                    found.update(map(path_of, split(self._read(path).partition(b"\n")[2])))
        return found

    def note(self, paths: Sequence[bytes]) -> None:
        """Note paths that the host has, or may have if a push is cut, and that no listing here will hold."""
        once = self.path.with_suffix(ONCE)
        with suppress(OSError):
            if paths:
                make_private(self.path.parent, state_folder(self._root))
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(once, flags, 0o600), "ab") as file:
                    file.write(b"".join(path + b"\0" for path in paths))
                if once.stat().st_size > ONCE_BYTES:
                    write_whole(once, b"".join(path + b"\0" for path in {*split(self._read(once))} if path))

    def changes(self, workspace: Workspace) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
        """Return the new and changed records, and the deleted paths; None if nothing was pushed yet."""
        if not self.stamp:
            return None
        if self.stamp == workspace.stamp:
            return (), ()
        listing = self._read(self.path).partition(b"\n")[2]
        if self._sum != _sum(listing):  # damaged: compare all
            return None
        old = set(split(listing))
        new = set(workspace.files.values())
        gone = [path for path in map(path_of, old - new) if path not in workspace.files]
        self._gone = gone
        return list(new - old), gone

    def replaced(self, workspace: Workspace) -> list[bytes]:
        """Return the files whose record is as it was pushed, but that were written or replaced since.

        Their content may be another one: `cp -p`, `touch -r` and archives keep size and mtime.
        """
        before = self._read(self._inodes_path)
        if not self.stamp or before == _inodes(workspace):
            return []
        then = set(split(before))
        pushed = set(split(self._read(self.path).partition(b"\n")[2]))
        return [
            path
            for path, inode in workspace.inodes.items()
            if inode + b" " + path not in then and workspace.files[path] in pushed
        ]

    def _read(self, path: Path) -> bytes:
        """Return a file; empty if it cannot be read, which is as if nothing was pushed."""
        with suppress(OSError):
            return read_state(path, self._root)
        return b""

    def save(self, workspace: Workspace) -> None:
        """Store the workspace as the last push; without it the next push compares everything."""
        try:
            make_private(self.path.parent, state_folder(self._root))
            listing = join(workspace.files.values())
            self.note(self._gone)  # the host deletes them only if this push is not cut
            first = f"{workspace.stamp} {_sum(listing)}\n".encode("ascii")
            write_whole(self._inodes_path, _inodes(workspace))
            write_whole(self.path, first + listing)
        except OSError:
            with suppress(OSError):
                self.path.unlink()  # an older one would be taken for this one
