"""Store what this checkout pushed last, and the client id by which the host knows it."""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from socket import gethostname

from remote_tools.host.listing import join, path_of, split
from remote_tools.settings.state_folder import state_folder
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
        found = path.read_text(encoding="ascii", errors="replace").strip()
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


SENDING = b"sending"
"""First line of a list of paths; other files here begin with a stamp."""


class LastPush:
    """What this checkout pushed last to one code path: the base for finding changes.

    Args:
        root: the workspace.
        alias, code_path: where it was pushed to.
    """

    def __init__(self, root: Path, alias: str, code_path: str) -> None:
        """Read the stamp; the listing is read only when it is needed."""
        key = hashlib.sha256(f"{alias}\0{code_path}".encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = root / ".remote" / "pushed" / key
        self._inodes_path = self.path.with_suffix(".inodes")
        self.stamp, self._sum = "", ""
        with suppress(OSError), self.path.open("rb") as file:
            first = file.readline().decode("ascii", "replace").split()
            self.stamp, self._sum = first if len(first) == 2 else ("", "")

    def paths(self) -> set[bytes]:
        """Return every path that this checkout has pushed, or begun to push, to any host."""
        found: set[bytes] = set()
        for path in self.path.parent.glob("*[!s]"):  # not the `.inodes`
            with suppress(OSError, ValueError, IndexError):
                head, _, listing = path.read_bytes().partition(b"\n")
                found.update(split(listing) if head == SENDING else map(path_of, split(listing)))
        return found

    def begin(self, paths: Iterable[bytes]) -> None:
        """Note the paths of a push that begins: if it is cut, the host has them, and no listing here does."""
        with suppress(OSError):
            state_folder(self.path.parents[2])
            self.path.parent.mkdir(exist_ok=True)
            write_whole(self.path.with_suffix(".sending"), SENDING + b"\n" + join(paths))

    def changes(self, workspace: Workspace) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
        """Return the new and changed records, and the deleted paths; None if nothing was pushed yet."""
        if not self.stamp:
            return None
        if self.stamp == workspace.stamp:
            return (), ()
        listing = self.path.read_bytes().partition(b"\n")[2]
        if self._sum != _sum(listing):  # damaged: compare all
            return None
        old = set(split(listing))
        new = set(workspace.files.values())
        gone = [path for path in map(path_of, old - new) if path not in workspace.files]
        return list(new - old), gone

    def replaced(self, workspace: Workspace) -> list[bytes]:
        """Return the files whose record is as it was pushed, but that were written or replaced since.

        Their content may be another one: `cp -p`, `touch -r` and archives keep size and mtime.
        """
        before = b""
        with suppress(FileNotFoundError):
            before = self._inodes_path.read_bytes()
        if not self.stamp or before == _inodes(workspace):
            return []
        then = set(split(before))
        pushed = set(split(self.path.read_bytes().partition(b"\n")[2]))
        return [
            path
            for path, inode in workspace.inodes.items()
            if inode + b" " + path not in then and workspace.files[path] in pushed
        ]

    def save(self, workspace: Workspace) -> None:
        """Store the workspace as the last push; without it the next push compares everything."""
        try:
            state_folder(self.path.parents[2])
            self.path.parent.mkdir(exist_ok=True)
            listing = join(workspace.files.values())
            first = f"{workspace.stamp} {_sum(listing)}\n".encode("ascii")
            write_whole(self._inodes_path, _inodes(workspace))
            write_whole(self.path, first + listing)
        except OSError:
            with suppress(OSError):
                self.path.unlink()  # an older one would be taken for this one
