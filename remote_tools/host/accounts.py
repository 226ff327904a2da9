"""Record the files that each client pushed.

With an account for each client, two laptops that push to one path never delete each other's files. A file
counts as pushed while it has not changed since it arrived. A changed file belongs to the host: it is not
deleted, and not overwritten without a copy.

    <state>/stamp               the stamp of the tree that the path holds; missing during a push
    <state>/holder              the client that pushed it
    <state>/pushed/<client>     what that client pushed last
    <state>/coming/<client>     what that client is pushing now, or was pushing when it was interrupted
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from typing import TYPE_CHECKING, Iterable, Iterator

from .listing import Listing, by_path, join, pack, path_of, same, same_content, split, unpack

if TYPE_CHECKING:
    from .messages import AccountHeader, Holder

DAMAGED = (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error)
"""Raised when a file of ours is read that was truncated or overwritten."""
LOCK_PATIENCE_S = 5.0
"""How long a push waits for the lock; the session of a lost client may still hold it for a moment."""


class Account:
    """The files that one client pushed: its listing, and how the host differs from it.

    Args:
        header: see `AccountHeader`; `left` holds several records of one path if several pushes in a row were
            interrupted.
        listing: the client's workspace when the push ended.
    """

    def __init__(self, header: AccountHeader, listing: Listing) -> None:
        """Read the header."""
        self.header, self.listing = header, listing
        self.stamp: str = header.get("stamp", "")
        self.folders = set(unpack(header["folders"])) if "folders" in header else set()
        self.absent = set(unpack(header["absent"])) if "absent" in header else set()
        self.altered = by_path(unpack(header["altered"])) if "altered" in header else {}
        self.left: dict[bytes, set[bytes]] = {}
        self.leave(unpack(header["left"]) if "left" in header else ())

    def leave(self, records: Iterable[bytes]) -> None:
        """Remember records that were pushed and are no longer listed."""
        for record in records:
            self.left.setdefault(path_of(record), set()).add(record)

    def pushed(self, path: bytes) -> set[bytes]:
        """Return the records that the client's file may have on the host; empty if it was never pushed."""
        found = set(self.left.get(path, ()))
        if path not in self.absent and path in self.listing:
            found.add(self.altered.get(path) or self.listing[path])
        return found

    def holds(self, path: bytes, have: bytes | None) -> bool:
        """Return whether the host's file is as it was when the push ended."""
        return same(have, self.altered.get(path) or self.listing[path])

    def knows(self, path: bytes, have: bytes) -> bool:
        """Return whether the content of the host's file is one that the client pushed."""
        return any(same_content(have, record) for record in self.pushed(path))

    def paths(self) -> Iterator[bytes]:
        """Yield every path at which the client may have a file."""
        yield from self.listing
        yield from self.left

    def save(self, path: str) -> None:
        """Write the account, atomically."""
        self.header.update(
            {
                "stamp": self.stamp,
                "folders": pack(sorted(self.folders)),
                "absent": pack(sorted(self.absent)),
                "altered": pack(self.altered.values()),
                "left": pack(record for records in self.left.values() for record in sorted(records)),
            }
        )
        replace(path, json.dumps(self.header).encode("ascii") + b"\n" + join(self.listing.values()))


def untouched(have: bytes, path: bytes, accounts: Iterable[Account]) -> bool:
    """Return whether a file, including its mode, is still as one of the accounts pushed it."""
    return bool(have) and any(same(have, record) for account in accounts for record in account.pushed(path))


def load(path: str) -> Account:
    """Read an account; return an empty one if the file is missing."""
    try:
        with open(path, "rb") as file:
            header, _, listing = file.read().partition(b"\n")
        return Account(json.loads(header), by_path(split(listing)))
    except FileNotFoundError:
        return Account({}, {})
    except DAMAGED:
        set_aside(path)
        return Account({}, {})


def set_aside(path: str) -> None:
    """Rename a file of ours that cannot be read; it counts as missing."""
    with contextlib.suppress(OSError):
        os.replace(path, path + ".damaged")


def replace(path: str, data: bytes) -> None:
    """Write a file atomically."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    part = path + ".part"
    with open(part, "wb") as file:
        file.write(data)
    os.replace(part, path)


def remove(path: str) -> None:
    """Remove a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Store:
    """The state of one workspace on the host."""

    def __init__(self, folder: str, client: str) -> None:
        """Compose the paths."""
        self.folder, self.client = folder, client
        self.stamp_path = os.path.join(self.folder, "stamp")
        self.holder_path = os.path.join(self.folder, "holder")
        self.pushed_path = os.path.join(self.folder, "pushed", self.client)
        self.coming_path = os.path.join(self.folder, "coming", self.client)
        self._others: list[Account] | None = None

    def holder(self) -> Holder | None:
        """Return the client that pushed last; None if there was no push."""
        try:
            with open(self.holder_path, encoding="ascii") as file:
                found = json.load(file)
            holder: Holder = {name: found[name] for name in ("client", "name", "at")}  # type: ignore[assignment]
            return holder
        except FileNotFoundError:
            return None
        except DAMAGED:
            set_aside(self.holder_path)
            return None

    def others(self) -> list[Account]:
        """Return the accounts of the other clients, including their interrupted pushes."""
        if self._others is None:
            folders = [os.path.dirname(path) for path in (self.pushed_path, self.coming_path)]
            names = [os.path.join(f, n) for f in folders if os.path.isdir(f) for n in sorted(os.listdir(f))]
            own = (self.pushed_path, self.coming_path)
            self._others = [
                load(name) for name in names if name not in own and not name.endswith((".part", ".damaged"))
            ]
        return self._others

    def pushed_by_another(self, path: bytes, have: bytes) -> bool:
        """Return whether another client pushed the file with its present content."""
        return any(account.knows(path, have) for account in self.others())


_lock: tuple[str, int] | None = None
"""The workspace that this process pushes to, and its lock, which the kernel frees when the process ends."""


def hold(folder: str, name: str = "") -> bool:
    """Lock the workspace for one push; return False if another push holds it after `LOCK_PATIENCE_S`.

    Args:
        folder: the folder of the workspace's state.
        name: of the client; others read it while they wait.
    """
    global _lock
    if _lock is not None and _lock[0] == folder:
        return True
    release()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(folder, "push.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return False
            time.sleep(0.05)
        else:
            _lock = (folder, fd)
            with contextlib.suppress(OSError):  # the name is for messages only
                os.ftruncate(fd, 0)
                os.pwrite(fd, name.encode("utf-8", "surrogateescape"), 0)
            return True


def lock_holder(folder: str) -> str:
    """Return the name of the client whose push holds the lock."""
    with open(os.path.join(folder, "push.lock"), encoding="utf-8", errors="replace") as file:
        return file.read() or "another client"


def release() -> None:
    """Free the lock."""
    global _lock
    if _lock is not None:
        os.close(_lock[1])
        _lock = None
