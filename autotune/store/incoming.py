"""What comes in: the files of a cache, from whatever machine, are bounded before they are read or parsed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from autotune.model.errors import CacheError, DataError

MAX_BYTES = 1 << 30
MAX_VALUES = 1 << 25  # of one JSON text: they take a gigabyte of memory
MAX_CONTAINERS = 1 << 22  # the same
MAX_DEPTH = 32
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_MAX_DIGITS = 100  # fewer than overflow a float, or take long to convert


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read it; a device, FIFO or folder could block, or never end.

    Raises:
        DataError: it is none.
        CacheError: it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise CacheError(f"{path}: cannot be read: {fault.strerror}") from fault
    except ValueError as fault:  # a name that no file system takes
        raise CacheError(f"{path}: cannot be read: {fault}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DataError(f"{path}: not a plain file; remove it")
    return os.fdopen(fd, "rb")


def read_file(path: Path, limit_bytes: int = MAX_BYTES) -> bytes:
    """Read a plain file whole.

    Raises:
        DataError: it is no plain file, or is longer than the limit.
        CacheError: it cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(limit_bytes + 1) if size <= limit_bytes else b""
        except OSError as fault:
            raise CacheError(f"{path}: cannot be read: {fault.strerror}") from fault
    if max(size, len(data)) > limit_bytes:
        raise DataError(f"{path}: larger than {limit_bytes} bytes, as no such file is; remove it")
    return data


def parse_json(data: bytes) -> Any:
    """Parse a JSON text of bounded size and depth.

    Raises:
        ValueError: it is not JSON, or is beyond the bounds.
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS or containers + data.count(b",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values, or than {MAX_CONTAINERS} lists and objects")
    try:
        parsed = json.loads(data, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    require_shallow(parsed)
    return parsed


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def require_shallow(value: object) -> None:
    """Raise ValueError if lists, tuples, sets and dicts are nested too deep to be walked by recursion."""
    level: list[Any] = [[value]]
    for _depth in range(MAX_DEPTH + 1):
        below: list[object] = []
        for each in level:
            below += each.values() if isinstance(each, dict) else each
        level = [each for each in below if type(each) in _CONTAINERS]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")
