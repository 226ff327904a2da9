"""Keep account of what was pushed, of each client by itself.

So two laptops that push to one path never delete each other's files. A file there counts as pushed while it
still looks as it did when it arrived; what looks different is the host's own, and is neither deleted nor
overwritten without a copy.

    <state>/stamp               the stamp of the tree that the path holds, absent while a push is under way
    <state>/holder              who pushed it
    <state>/pushed/<client>     what that client pushed last
    <state>/coming/<client>     what it was pushing when it was cut off, or is pushing now
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Iterable, Iterator

from .listing import Listing, by_path, join, pack, path_of, same, same_content, split, unpack

if TYPE_CHECKING:
    from .messages import AccountHeader, Holder

LOCK_PATIENCE_S = 5.0
"""How long a push waits for the one before it to let go; a client that lost its session leaves one behind."""


class Account:
    """What one client pushed: its listing then, and where the host differs from it.

    Args:
        header: the stamp, and paths: `folders` that the push made; `absent`, listed but never sent;
            `altered`, records as they look there where RSYNC_OPTIONS change what arrives; `left`, records
            that were pushed once and are no longer listed, though not deleted: several of one path where
            several pushes in a row were cut.
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
        """Remember what was pushed and is no longer listed."""
        for record in records:
            self.left.setdefault(path_of(record), set()).add(record)

    def pushed(self, path: bytes) -> set[bytes]:
        """Return how a file of the client's may look on the host; nothing if none was ever there."""
        found = set(self.left.get(path, ()))
        if path not in self.absent and path in self.listing:
            found.add(self.altered.get(path) or self.listing[path])
        return found

    def knows(self, path: bytes, have: bytes) -> bool:
        """Tell whether what the host has is a file that the client pushed, by its content."""
        return any(same_content(have, record) for record in self.pushed(path))

    def paths(self) -> Iterator[bytes]:
        """Yield every path that may hold a file of the client's."""
        yield from self.listing
        yield from self.left

    def save(self, path: str) -> None:
        """Replace the file whole."""
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
    """Tell whether a file is, mode and all, as one of the accounts says it was pushed."""
    return bool(have) and any(same(have, record) for account in accounts for record in account.pushed(path))


def load(path: str) -> Account:
    """Read an account; an empty one where there is none."""
    try:
        with open(path, "rb") as file:
            header, _, listing = file.read().partition(b"\n")
    except FileNotFoundError:
        return Account({}, {})
    return Account(json.loads(header), by_path(split(listing)))


def replace(path: str, data: bytes) -> None:
    """Write a file whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    part = path + ".part"
    with open(part, "wb") as file:
        file.write(data)
    os.replace(part, path)


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Store:
    """The state of one workspace on the host."""

    def __init__(self, folder: str, client: str) -> None:
        """Name the files."""
        self.folder, self.client = folder, client
        self.stamp_path = os.path.join(self.folder, "stamp")
        self.holder_path = os.path.join(self.folder, "holder")
        self.pushed_path = os.path.join(self.folder, "pushed", self.client)
        self.coming_path = os.path.join(self.folder, "coming", self.client)
        self._others: list[Account] | None = None

    def holder(self) -> Holder | None:
        """Return who pushed last."""
        try:
            with open(self.holder_path, encoding="ascii") as file:
                holder: Holder = json.load(file)
                return holder
        except FileNotFoundError:
            return None

    def others(self) -> list[Account]:
        """Return what other clients pushed, and were pushing."""
        if self._others is None:
            folders = [os.path.dirname(path) for path in (self.pushed_path, self.coming_path)]
            names = [os.path.join(f, n) for f in folders if os.path.isdir(f) for n in sorted(os.listdir(f))]
            mine = (self.pushed_path, self.coming_path)
            self._others = [load(name) for name in names if name not in mine and not name.endswith(".part")]
        return self._others

    def anothers(self, path: bytes, have: bytes) -> bool:
        """Tell whether another client pushed the file as it is now."""
        return any(account.knows(path, have) for account in self.others())


_lock: tuple[str, int] | None = None
"""The workspace that this process pushes to; the lock ends with it, so a lost client holds nothing."""


def hold(folder: str) -> bool:
    """Take the workspace for one push; False where another push does not end."""
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
            return True


def release() -> None:
    """Let the next push begin."""
    global _lock
    if _lock is not None:
        os.close(_lock[1])
        _lock = None
