"""Journals: append-only files of records, one file for each writer, merged by the reader.

A record is one line: eight hex digits of CRC-32, a space, a JSON object. A writer only appends, to a file of
its own, so two tuners need no lock, not even on NFS. A line is written in one call before the next config
begins; a thread flushes it to the disk. So a killed tuner loses no record, and a power cut loses those of a
few milliseconds. Only a file's last line can be torn.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.model.errors import AutotuneError, CacheError, DataError
from autotune.store.incoming import open_plain, parse_json, read_file

SUFFIX = ".jsonl"
SCHEMA = 1
Record = dict[str, Any]
_LONGEST_HEADER = 1 << 16
_MALFORMED = (ValueError, TypeError, KeyError, OverflowError, AttributeError)


@dataclass(frozen=True)
class Journal:
    """One writer's records.

    Attributes:
        path: the file.
        records: in the order of writing, without header and end mark.
        torn: whether its last line is incomplete: the writer was killed, or is writing now.
        finished: whether its writer closed it.
        writer: `host`, `pid`, and `boot`, which names one run of one kernel of an operating system.
        order: more than that of each journal that was there when this one was begun.
    """

    path: Path
    records: list[Record]
    torn: bool
    finished: bool
    writer: Record
    order: int = 0

    @property
    def abandoned(self) -> bool:
        """Whether its writer has ended, as far as this machine can know.

        A writer holds a lock as long as it lives. The lock says so in every container of a machine, in which
        process ids and host names are others; on another machine it says nothing.
        """
        return self.finished or (
            bool(self.writer.get("boot")) and self.writer["boot"] == _boot() and _is_free(self.path)
        )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_free(path: Path) -> bool:
    """Return whether nobody holds the lock of a file; if the file system has no locks, nobody knows."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def encode(text: str) -> bytes:
    """Frame one JSON text as a line."""
    payload = text.encode()
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def read(path: Path) -> Journal:
    """Read one journal; an incomplete last line is left out.

    Raises:
        DataError: a line other than the last is damaged, or a newer version wrote the file.
        CacheError: the file cannot be read.
    """
    lines = read_file(path).split(b"\n")
    tail = lines.pop()
    texts: list[bytes] = []
    torn = bool(tail)
    for number, line in enumerate(lines, 1):
        payload = line[9:]
        if line[:9] == b"%08x " % zlib.crc32(payload):
            texts.append(payload)
        elif number == len(lines) and not tail:
            torn = True
        else:
            raise DataError(
                f"{path}: line {number} of {len(lines)} is corrupt; move the file away and run again"
            )
    try:
        records: list[Record] = parse_json(b"[" + b",".join(texts) + b"]")
        schema, writer, order = _header(records.pop(0)) if records else (SCHEMA, {}, 0)
        finished = bool(records) and records[-1]["record"] == "end"
    except _MALFORMED as fault:
        raise DataError(f"{path}: not a journal of this program: {fault!r:.200}") from None
    if schema > SCHEMA:
        raise DataError(f"{path}: schema {schema} is newer than {SCHEMA}; update autotune to read it")
    if finished:
        records.pop()
    return Journal(path, records, torn, finished, writer, order)


def _header(record: Record) -> tuple[int, Record, int]:
    return int(record["schema"]), dict(record["writer"]), int(record.get("order", 0))


def read_all(folder: Path) -> list[Journal]:
    """Read every journal of a folder, in the order in which they were begun, whatever the clocks said.

    Raises:
        DataError: one of them is damaged.
        CacheError: one of them cannot be read.
    """
    return sorted(map(read, folder.glob("*" + SUFFIX)), key=lambda each: (each.order, each.path.name))


def _next_order(folder: Path) -> int:
    orders = [0]
    for path in folder.glob("*" + SUFFIX):
        with contextlib.suppress(AutotuneError, OSError, *_MALFORMED), open_plain(path) as file:
            orders.append(_header(parse_json(file.readline(_LONGEST_HEADER)[9:]))[2])
    return max(orders) + 1


class Writer:
    """The one writer of one journal; the file comes into being with the first record.

    Args:
        folder: the folder of a kernel's journals.
        name: the file's name without its suffix; sorts by time and is not used twice.
        created: called with the path once the file exists.
    """

    def __init__(self, folder: Path, name: str, created: Callable[[Path], None] = lambda _path: None) -> None:
        self.path = folder / (name + SUFFIX)
        self._created = created
        self._fd = -1
        self._dirty = threading.Event()
        self._closing = False
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=self._flush, name="journal", daemon=True)

    def append(self, records: Iterable[str]) -> None:
        """Append records, each a JSON text, whole or not at all.

        Raises:
            CacheError: the file could not be written or flushed: a full disk, missing rights.
        """
        try:
            if self._fault is not None:
                raise self._fault
            if self._fd < 0:
                self._open()
            self._write(b"".join(map(encode, records)))
        except OSError as fault:
            raise CacheError(f"{self.path}: cannot be written: {fault.strerror}") from fault
        self._dirty.set()

    def close(self) -> None:
        """Mark the journal as finished and flush it.

        Raises:
            CacheError: the end mark could not be written or flushed; the records before it stand.
        """
        if self._fd < 0:
            return
        try:
            self.append(['{"record":"end"}'])
        finally:
            self._closing = True
            self._dirty.set()
            self._thread.join()
            fd, self._fd = self._fd, -1
            try:
                os.fsync(fd)
            except OSError as fault:
                raise CacheError(f"{self.path}: cannot be flushed: {fault.strerror}") from fault
            finally:
                os.close(fd)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        order = _next_order(self.path.parent)
        self._fd = os.open(
            self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        writer = {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
        header = {"schema": SCHEMA, "writer": writer, "order": order}
        try:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(encode(json.dumps(header)))
            self._flush_folder()
        except OSError:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink()
            raise
        self._thread.start()
        self._created(self.path)

    def _write(self, data: bytes) -> None:
        """Write in one call; if the disk takes only a part, remove that part."""
        start = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:  # the disk is nearly full: the next call raises the reason
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            raise

    def _flush_folder(self) -> None:
        """Flush the folder: fsync of a file does not include its name."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _flush(self) -> None:
        while not self._closing:
            self._dirty.wait()
            self._dirty.clear()
            try:
                os.fsync(self._fd)
            except OSError as fault:
                self._fault = fault
                return
