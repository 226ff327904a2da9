"""Describe a tree in records, in the same format on both sides of a sync.

    f<mode, octal> <size, bytes> <mtime, ns> <path>          a regular file
    l0 0 0 <path>//<target>                                  a symbolic link

Paths are relative to the workspace. A listing is records joined by NUL, ordered by path.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import zlib
from typing import Dict, Iterable

SENT_MODE = 0o755
"""Bits of a file's mode that a push keeps: not set-id, not sticky, not writable by group and others."""
CLOSED = 0o7777 & ~SENT_MODE
UNPACKED_BYTES = 256 * 1024 * 1024
UNPACKED_PARTS = 4_000_000
"""Most bytes and records that a packed text holds: a few bytes can stand for gigabytes."""
Listing = Dict[bytes, bytes]  # path -> record
COARSE_NS = (100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""Resolution of file times: NTFS, HFS+, ..., NFSv2 and rsync < 3.1, FAT."""


def file_record(path: bytes, info: os.stat_result, mask: int = 0o7777) -> bytes:
    """Return the record of a regular file, with the bits of its mode that are in the mask."""
    return b"f%o %d %d %s" % (info.st_mode & mask, info.st_size, info.st_mtime_ns, path)


def link_record(path: bytes, target: bytes) -> bytes:
    """Return the record of a symbolic link, without mode and time: not every rsync keeps its time."""
    return b"l0 0 0 %s//%s" % (path, target)


def path_of(record: bytes) -> bytes:
    """Return the path in a record."""
    path = record.split(b" ", 3)[3]
    return path.partition(b"//")[0] if record[0] == 108 else path


def size_of(record: bytes) -> int:
    """Return the size in bytes; 0 for a link."""
    return int(record.split(b" ", 2)[1])


def same_content(one: bytes | None, other: bytes | None) -> bool:
    """Return whether two records differ at most in mode, by rsync's quick check: size and mtime."""
    if one is None or other is None:
        return one is other
    (kind, size, when, path), (kind2, size2, when2, path2) = one.split(b" ", 3), other.split(b" ", 3)
    if kind[0] != kind2[0] or size != size2 or path != path2:
        return False
    return when == when2 or same_time(int(when), int(when2))


def same_time(one: int, other: int) -> bool:
    """Return whether two times in ns are equal, or one is the other truncated by a coarser file system."""
    return any(one - one % unit == other or other - other % unit == one for unit in COARSE_NS)


def same(one: bytes | None, other: bytes | None) -> bool:
    """Return whether two records describe the same file, including its mode."""
    if one is None or other is None or one == other:
        return one == other
    return one.split(b" ", 1)[0] == other.split(b" ", 1)[0] and same_content(one, other)


def join(records: Iterable[bytes]) -> bytes:
    """Return records, or paths, as one listing."""
    return b"\0".join(records)


def split(data: bytes) -> list[bytes]:
    """Undo `join`."""
    return data.split(b"\0") if data else []


def pack(records: Iterable[bytes]) -> str:
    """Return records, or paths, as one JSON string."""
    return base64.b64encode(zlib.compress(join(records), 1)).decode("ascii")


def unpack(word: str) -> list[bytes]:
    """Undo `pack`.

    Raises:
        ValueError: it is no packed text, or would take too much memory.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(word), UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof or data.count(b"\0") > UNPACKED_PARTS:
        raise ValueError("cut off, or too large")
    return split(data)


def unpack_paths(word: str) -> list[bytes]:
    """Undo `pack` of paths.

    Raises:
        ValueError: one of them leads out of its folder.
    """
    paths = unpack(word)
    check_paths(paths)
    return paths


def check_paths(paths: Iterable[bytes]) -> None:
    """Check that paths stay below the folder that they start from; fast, as there may be a million.

    Raises:
        ValueError: one is absolute, or has an empty part, `.` or `..`.
    """
    text = b"\0/" + b"\0/".join(paths) + b"\0"
    for part in (b"//", b"/\0", b"/./", b"/.\0", b"/../", b"/..\0") if text != b"\0/\0" else ():
        if part in text:
            raise ValueError("a path that leads out of its folder")


def by_path(records: Iterable[bytes]) -> Listing:
    """Return the records keyed by path.

    Raises:
        ValueError: a path leads out of its folder.
    """
    found = {path_of(record): record for record in records}
    check_paths(found)
    return found


def digest_of(path: bytes) -> str:
    """Return the SHA-256 of a file's content; "" if it cannot be read, or is a link or no plain file."""
    digest = hashlib.sha256()
    try:
        # What a link leads to is none of the other side's business, and /dev/zero or a pipe never ends.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
