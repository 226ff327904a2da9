"""Write a small local file atomically."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new one.

    For streams and thousands of files, see `Connection.get` and `Results`.

    Raises:
        OSError: the file cannot be written; the old file is unchanged, and no partial file is left.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
