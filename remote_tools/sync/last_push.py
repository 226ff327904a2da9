"""Store what this checkout pushed last, and the client id by which the host knows it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from remote_tools.errors import TransferError
from remote_tools.host.listing import join, path_of, split
from remote_tools.settings.whole_file import write_whole
from remote_tools.sync.workspace import Workspace


def client_id(root: Path) -> str:
    """Return the random id by which the host knows this checkout; create it if it is missing."""
    path = root / ".remote" / "client-id"
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x") as file:
            file.write(secrets.token_hex(8))
    except FileExistsError:
        pass
    except OSError as error:
        raise TransferError(
            "sync", f"cannot write {path}: {error.strerror}", f"ls -ld {path.parent}"
        ) from error
    return path.read_text().strip()


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
        self.stamp = ""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            self.stamp = file.readline().decode("ascii").strip()

    def changes(self, workspace: Workspace) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
        """Return the new and changed records, and the deleted paths; None if nothing was pushed yet."""
        if not self.stamp:
            return None
        if self.stamp == workspace.stamp:
            return (), ()
        old = set(split(self.path.read_bytes().partition(b"\n")[2]))
        new = set(workspace.files.values())
        gone = [path for path in map(path_of, old - new) if path not in workspace.files]
        return list(new - old), gone

    def save(self, workspace: Workspace) -> None:
        """Store the workspace as the last push."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, workspace.stamp.encode("ascii") + b"\n" + join(workspace.files.values()))
        except OSError as error:
            raise TransferError("sync", f"cannot write {self.path}: {error.strerror}") from error
