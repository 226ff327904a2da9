"""What this checkout pushed last, and the name under which the host keeps account of it."""

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
    """Return the random name under which the host keeps account of this checkout; make it if missing."""
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
    """What this checkout pushed last to one place: what changes are counted from.

    Args:
        root: the workspace.
        alias, code_path: the place.
    """

    def __init__(self, root: Path, alias: str, code_path: str) -> None:
        """Read the stamp; the listing is read where it is needed."""
        key = hashlib.sha256(f"{alias}\0{code_path}".encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = root / ".remote" / "pushed" / key
        self.stamp = ""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            self.stamp = file.readline().decode("ascii").strip()

    def changes(self, workspace: Workspace) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
        """Return the records that are new or changed, and the paths that are gone; None without a base."""
        if not self.stamp:
            return None
        if self.stamp == workspace.stamp:
            return (), ()
        old = set(split(self.path.read_bytes().partition(b"\n")[2]))
        new = set(workspace.files.values())
        gone = [path for path in map(path_of, old - new) if path not in workspace.files]
        return list(new - old), gone

    def save(self, workspace: Workspace) -> None:
        """Remember the workspace as pushed."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, workspace.stamp.encode("ascii") + b"\n" + join(workspace.files.values()))
        except OSError as error:
            raise TransferError("sync", f"cannot write {self.path}: {error.strerror}") from error
