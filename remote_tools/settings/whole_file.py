"""Write a small local file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file: a reader sees the old content or the new one.

    What is streamed, or arrives by the thousand, is written by its receiver: `Connection.get`, `Results`.

    Raises:
        OSError: it cannot be written; the old file stays, and no part of the new one.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
