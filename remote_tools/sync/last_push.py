"""What this checkout pushed last, and the name under which the host keeps account of it."""

from __future__ import annotations

import secrets
from pathlib import Path

from remote_tools.errors import TransferError


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
