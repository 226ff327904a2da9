"""Hold the host's side of a sync: compare the tree there with a listing, and keep account of what was pushed.

This file runs on the host beside supervisor.py, so it is standard library only, Python >= 3.8, one file. The
laptop imports it too, for the one thing that both sides must write alike: the record of a file,

    f<mode, octal> <size, bytes> <mtime, ns> <path>          a regular file
    l0 0 0 <path>//<target>                                  a symbolic link

with the path relative to the workspace. A listing is records joined by NUL, in the order of their paths.

What a client pushed is kept per client, so two laptops that push to one path never delete each other's files.
A file there counts as pushed while it still looks as it did when it arrived; what looks different is the
host's own, and is neither deleted nor overwritten without a copy.

    <state>/stamp               the stamp of the tree that the path holds, absent while a push is under way
    <state>/holder              who pushed it
    <state>/pushed/<client>     what that client pushed last
    <state>/coming/<client>     what it was pushing when it was cut off, or is pushing now
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
import zlib
from typing import Any, Callable, Dict, Iterable, Iterator

Params = Dict[str, Any]
Listing = Dict[bytes, bytes]  # path -> record

DISPLACED = b".remote-displaced"
"""Where what is overwritten waits: in the workspace, as a rename stays on one disk. Each rsync has its own
folder in it: --backup-dir replaces what an earlier one put there, of a push that was cut, or of a file that
is sent again since it changed meanwhile."""
PARTIAL_DIR = b".remote-partial"
"""Where half a file waits for its other half: rsync's --partial-dir, in the folder of the file itself."""
LOCK_PATIENCE_S = 5.0
"""How long a push waits for the one before it to let go; a client that lost its session leaves one behind."""
COARSE_NS = (100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""How finely file systems and old rsyncs keep times: NTFS, HFS+, ..., NFSv2 and rsync < 3.1, FAT."""

# Records ----------------------------------------------------------------------------------------------------


def file_record(path: bytes, info: os.stat_result) -> bytes:
    """Return the record of a regular file."""
    return b"f%o %d %d %s" % (info.st_mode & 0o7777, info.st_size, info.st_mtime_ns, path)


def link_record(path: bytes, target: bytes) -> bytes:
    """Return the record of a symbolic link; not every rsync keeps its times, and Linux has no mode for it."""
    return b"l0 0 0 %s//%s" % (path, target)


def path_of(record: bytes) -> bytes:
    """Return the path in a record."""
    path = record.split(b" ", 3)[3]
    return path.partition(b"//")[0] if record[0] == 108 else path


def size_of(record: bytes) -> int:
    """Return the size in bytes; none for a link."""
    return int(record.split(b" ", 2)[1])


def same_content(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two records differ in the mode at most, by rsync's quick check: size and mtime."""
    if one is None or other is None:
        return one is other
    (kind, size, when, path), (kind2, size2, when2, path2) = one.split(b" ", 3), other.split(b" ", 3)
    if kind[0] != kind2[0] or size != size2 or path != path2:
        return False
    return when == when2 or same_time(int(when), int(when2))


def same_time(one: int, other: int) -> bool:
    """Tell whether one time, in ns, may be the other, cut by a file system that keeps times less finely."""
    return any(one - one % unit == other or other - other % unit == one for unit in COARSE_NS)


def same(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two records mean the same file, mode and all."""
    if one is None or other is None or one == other:
        return one == other
    return one.split(b" ", 1)[0] == other.split(b" ", 1)[0] and same_content(one, other)


def join(records: Iterable[bytes]) -> bytes:
    """Return records, or paths, as one listing."""
    return b"\0".join(records)


def split(data: bytes) -> list[bytes]:
    """Return what `join` was given."""
    return data.split(b"\0") if data else []


def pack(records: Iterable[bytes]) -> str:
    """Return records, or paths, as one word of JSON."""
    return base64.b64encode(zlib.compress(join(records), 1)).decode("ascii")


def unpack(word: str) -> list[bytes]:
    """Return what `pack` was given."""
    return split(zlib.decompress(base64.b64decode(word)))


def by_path(records: Iterable[bytes]) -> Listing:
    """Return records under their paths."""
    return {path_of(record): record for record in records}


def digest_of(path: bytes) -> str:
    """Return a digest of a file's content, or nothing where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


# The tree there ---------------------------------------------------------------------------------------------


class Tree:
    """The workspace on the host, looked at without following a link below its root."""

    def __init__(self, root: bytes) -> None:
        """Name the root."""
        self.prefix = root + b"/"
        self._folders: dict[bytes, bytes | None] = {b"": b""}

    def folder(self, path: bytes) -> bytes | None:
        """Tell what a folder is: b"" real, None missing, else the path of what stands in its way."""
        if path not in self._folders:
            above = self.folder(path.rpartition(b"/")[0])
            self._folders[path] = self._look(path) if above == b"" else above
        return self._folders[path]

    def _look(self, path: bytes) -> bytes | None:
        try:
            return b"" if stat.S_ISDIR(os.lstat(self.prefix + path).st_mode) else path
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def forget(self) -> None:
        """Look at every folder anew: something was moved."""
        self._folders = {b"": b""}

    def record(self, path: bytes) -> bytes | None:
        """Return the record of what lies at `path`: None for nothing, b"" for what is no file and no link."""
        above = self.folder(path.rpartition(b"/")[0])
        if above != b"":
            return None
        try:
            info = os.lstat(self.prefix + path)
            if stat.S_ISREG(info.st_mode):
                return file_record(path, info)
            if stat.S_ISLNK(info.st_mode):
                return link_record(path, os.readlink(self.prefix + path))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return b""

    def obstacle(self, path: bytes) -> bytes | None:
        """Return what must be moved before a file can stand at `path`: a folder there, or no folder above."""
        above = self.folder(path.rpartition(b"/")[0])
        if above is None:
            return None
        return above or (path if self.record(path) == b"" else None)

    def beside(self, path: bytes, date: str) -> bytes:
        """Return a free name for what must give way at `path`."""
        folder, slash, name = path.rpartition(b"/")
        ending, count = b".remote-" + date.encode("ascii"), 1
        while True:
            number = b"" if count == 1 else b"-%d" % count
            kept = folder + slash + name[: 255 - len(ending) - len(number)] + ending + number
            if not os.path.lexists(self.prefix + kept):
                return kept
            count += 1


# What was pushed --------------------------------------------------------------------------------------------


class Account:
    """What one client pushed: its listing then, and where the host differs from it.

    Args:
        header: the stamp, and paths: `folders` that the push made; `absent`, listed but never sent;
            `altered`, records as they look there where RSYNC_OPTIONS change what arrives; `left`, records
            that were pushed once and are no longer listed, though not deleted: several of one path where
            several pushes in a row were cut.
        listing: the client's workspace when the push ended.
    """

    def __init__(self, header: Params, listing: Listing) -> None:
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
            stamp=self.stamp,
            folders=pack(sorted(self.folders)),
            absent=pack(sorted(self.absent)),
            altered=pack(self.altered.values()),
            left=pack(record for records in self.left.values() for record in sorted(records)),
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

    def __init__(self, params: Params) -> None:
        """Name the files."""
        self.folder: str = params["state"]
        self.client: str = params["client"]
        self.stamp_path = os.path.join(self.folder, "stamp")
        self.holder_path = os.path.join(self.folder, "holder")
        self.pushed_path = os.path.join(self.folder, "pushed", self.client)
        self.coming_path = os.path.join(self.folder, "coming", self.client)
        self._others: list[Account] | None = None

    def holder(self) -> Params | None:
        """Return who pushed last: client, name and time."""
        try:
            with open(self.holder_path, encoding="ascii") as file:
                holder: Params = json.load(file)
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


# Before the transfer ----------------------------------------------------------------------------------------


def begin(params: Params) -> Params:
    """Compare the tree here with the client's; nothing but our own state is touched.

    Args:
        params: state, code_path, client, name; `stamp` of the client's tree; the tree itself either whole as
            `listing`, or as `changed` records and `gone` paths since the push whose stamp is `base`; `dry`,
            to change no state either; `rsync`, the program to look for; `more`, whether more may be sent
            than is named here.

    Returns:
        `want_listing` where `base` is not what was pushed last, else the plan: `new`, `changed` and
        `conflict` paths to send, `blocked` paths in their way, `delete` candidates, `kept` [path, why], and
        what there is to know: `root`, `rsync`, `holder`, `pushed` (how many files an earlier push left).
    """
    failure = check_root(params)
    if failure:
        return failure
    store, dry = Store(params), params.get("dry", False)
    if not dry and not hold(store.folder):
        name = (store.holder() or {}).get("name", "another client")
        message = f"another push to {params['code_path']} is under way (last there: {name})"
        return {"error": "temporary", "message": message, "hint": "try again when it has ended"}
    account = load(store.pushed_path)
    if "listing" in params:
        target = by_path(unpack(params["listing"]))
    elif account.stamp == params["base"]:
        target = {**account.listing, **by_path(unpack(params["changed"]))}
        for path in unpack(params["gone"]):
            target.pop(path, None)
    else:
        return {"want_listing": True}
    tree, coming = Tree(os.fsencode(params["code_path"])), load(store.coming_path)
    plan = compare(tree, target, (account, coming), store)
    deletes, kept = surplus(tree, target, (account, coming), store)
    if not dry:
        remove(store.stamp_path)
        os.makedirs(params["code_path"], exist_ok=True)
        same_tree = account.stamp == params["stamp"] and not coming.listing and not params["more"]
        if any(plan.values()) or deletes or kept or not same_tree:
            note_coming(store, coming, target, plan, tree)
    return {
        **{name: pack(paths) for name, paths in plan.items() if name != "conflict"},
        "conflict": [[os.fsdecode(path), digest] for path, digest in plan["conflict"]],
        "delete": pack(deletes),
        "kept": [[os.fsdecode(path), why] for path, why in kept],
        "pushed": sum(1 for _ in account.paths()),
        "root": params["code_path"],
        "rsync": rsync_here(store, params.get("rsync") or "rsync"),
        "holder": store.holder(),
    }


def check_root(params: Params) -> Params | None:
    """Return why nothing can be pushed to the code path, or None."""
    path = params["code_path"]
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        hint = f"make {parent} there, or correct code_path"
        return {"error": "io", "message": f"no folder {parent} on the host", "hint": hint}
    if os.path.lexists(path) and not os.path.isdir(path):
        return {"error": "io", "message": f"{path} is not a folder", "hint": "correct code_path"}
    nearest = path if os.path.isdir(path) else parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        return {"error": "permission", "message": f"{nearest} cannot be written", "hint": "correct code_path"}
    return None


def compare(tree: Tree, target: Listing, mine: tuple[Account, Account], store: Store) -> dict[str, list[Any]]:
    """Name what must be sent for the tree to become the target."""
    plan: dict[str, list[Any]] = {"new": [], "changed": [], "conflict": [], "blocked": []}
    altered = mine[0].altered
    blocked = set()
    for path, wanted in target.items():
        have = tree.record(path)
        if have == wanted:
            continue
        if not have:
            plan["new"].append(path)
            blocked.add(tree.obstacle(path))
        elif same(have, wanted) or (have == altered.get(path) and mine[0].listing.get(path) == wanted):
            continue
        elif (
            same_content(have, wanted)
            or any(account.knows(path, have) for account in mine)
            or store.anothers(path, have)
        ):
            plan["changed"].append(path)
        else:
            alike = have[0] == wanted[0] == 102 and size_of(have) == size_of(wanted)
            plan["conflict"].append((path, digest_of(tree.prefix + path) if alike else ""))
    plan["blocked"] = sorted(blocked - {None})
    return plan


def surplus(
    tree: Tree, target: Listing, mine: tuple[Account, Account], store: Store
) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Return what was pushed and is no longer in the target: what may be deleted, and what stays and why."""
    deletes, kept = [], []
    for path in sorted({path for account in mine for path in account.paths() if path not in target}):
        have = tree.record(path)
        if have is None:
            continue
        if not untouched(have, path, mine):
            kept.append((path, "changed on the host"))
        elif store.anothers(path, have):
            kept.append((path, "pushed from another machine too"))
        else:
            deletes.append(path)
    return deletes, kept


def note_coming(
    store: Store, coming: Account, target: Listing, plan: dict[str, list[Any]], tree: Tree
) -> None:
    """Write down what is about to arrive: if the push is cut, what came is still known as pushed."""
    coming.leave(record for path, record in coming.listing.items() if target.get(path) != record)
    coming.listing = target
    for path in plan["new"]:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in coming.folders and tree.folder(folder) != b"":
            coming.folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    named = [*plan["new"], *plan["changed"], *(path for path, _ in plan["conflict"])]
    coming.header["named"] = pack(named)
    coming.save(store.coming_path)


def clear(params: Params) -> Params:
    """Make way for files about to arrive.

    Args:
        params: as for `begin`, with `blocked`, the paths of what is moved away (a folder, or a link in place
            of one), `date`, and `delete`, the candidates that may go; `folders` to make, since of two rsyncs
            that make one at the same time one fails.

    Returns:
        `removed` paths and `beside`, pairs of a path and the name under which it was kept.
    """
    store, tree = Store(params), Tree(os.fsencode(params["code_path"]))
    mine = (load(store.pushed_path), load(store.coming_path))
    deletes, beside, removed = unpack(params["delete"]), [], []
    for path in unpack(params["blocked"]):
        below = [p for p in deletes if p == path or p.startswith(path + b"/")]
        removed += delete_pushed(tree, below, mine, store)[0]
        tree.forget()
        if os.path.lexists(tree.prefix + path):
            kept = tree.beside(path, params["date"])
            os.rename(tree.prefix + path, tree.prefix + kept)
            beside.append([os.fsdecode(path), os.fsdecode(kept)])
    for folder in unpack(params["folders"]):
        with contextlib.suppress(OSError):  # rsync says what is wrong with it
            os.makedirs(tree.prefix + folder, exist_ok=True)
    return {"removed": pack(removed), "beside": beside}


# After the transfer -----------------------------------------------------------------------------------------


def finish(params: Params) -> Params:
    """Take account of what arrived, delete what may go, and write the stamp where the tree is as sent.

    Args:
        params: as for `begin`, with `records` that replace the announced ones since they changed meanwhile,
            `vanished` paths, `absent` ones that rsync was not given, `delete`, the paths that may go,
            `kept`, those that stay though they are no longer listed, `date`, and `altering`, whether
            RSYNC_OPTIONS change what arrives; `contents`, base64 by path, of files that come along here
            instead of by rsync, and `aside`, where in `DISPLACED` what they replace waits.

    Returns:
        `removed` paths, `kept` ones, `beside` pairs, and `differs`, the paths that are not as they were sent.
    """
    store, tree = Store(params), Tree(os.fsencode(params["code_path"]))
    account, coming = load(store.pushed_path), load(store.coming_path)
    if "named" not in coming.header:
        if account.stamp == params["stamp"]:
            write_stamp(store, params)
        release()
        return {"removed": pack([]), "kept": [], "beside": [], "differs": []}
    later = by_path(unpack(params["records"]))
    aside = os.path.join(DISPLACED, params["aside"].encode("ascii"))
    for name, data in params["contents"].items():
        deliver(tree, coming.listing[os.fsencode(name)], base64.b64decode(data), aside)
    beside = sweep(tree, (account, coming, Account({}, later)), store, params["date"])
    removed, kept = delete_pushed(tree, unpack(params["delete"]), (account, coming), store)
    vanished = unpack(params["vanished"])
    result = Account({}, {**coming.listing, **later})
    for path in vanished:
        result.listing.pop(path, None)
    named = unpack(coming.header["named"])
    result.absent = account.absent.difference(named).union(unpack(params["absent"])) & result.listing.keys()
    result.altered = {path: record for path, record in account.altered.items() if path in result.listing}
    differs = check_arrival(tree, result, named, params["altering"])
    for path in unpack(params["kept"]) + vanished:
        result.leave(account.pushed(path) or coming.pushed(path))
    result.folders = {path for path in account.folders | coming.folders if tree.folder(path) == b""}
    result.stamp = params["stamp"]
    result.save(store.pushed_path)
    remove(store.coming_path)
    if not differs:
        write_stamp(store, params)
    release()
    return {
        "removed": pack(removed),
        "kept": [[os.fsdecode(path), "changed on the host"] for path in kept],
        "beside": [[os.fsdecode(path), os.fsdecode(name)] for path, name in beside],
        "differs": [os.fsdecode(path) for path in differs],
    }


def deliver(tree: Tree, record: bytes, data: bytes, aside: bytes) -> None:
    """Write one file that came along, as rsync would: whole, and what it replaces put aside for `sweep`."""
    path = path_of(record)
    there, old = tree.prefix + path, tree.prefix + os.path.join(aside, path)
    name = hashlib.sha256(path).hexdigest().encode("ascii")
    part = os.path.join(os.path.dirname(there), PARTIAL_DIR, name)
    for place in (there, part):
        os.makedirs(os.path.dirname(place), exist_ok=True)
    if record[:1] == b"l":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        os.symlink(record.split(b" ", 3)[3].partition(b"//")[2], part)
    else:
        mode, _size, mtime_ns, _path = record.split(b" ", 3)
        with open(part, "wb") as file:
            file.write(data)
        os.chmod(part, int(mode[1:], 8))
        os.utime(part, ns=(int(mtime_ns), int(mtime_ns)))
    if os.path.lexists(there):
        os.makedirs(os.path.dirname(old), exist_ok=True)
        with contextlib.suppress(FileExistsError):  # a second try: what was put aside first is what counts
            os.link(there, old, follow_symlinks=False)
    os.replace(part, there)
    with contextlib.suppress(OSError):  # half a big file of an rsync may wait there too
        os.rmdir(os.path.dirname(part))
    tree.forget()


def write_stamp(store: Store, params: Params) -> None:
    """Say what the path holds, and from whom."""
    holder = {"client": store.client, "name": params["name"], "at": time.time()}
    replace(store.holder_path, json.dumps(holder).encode("ascii"))
    replace(store.stamp_path, params["stamp"].encode("ascii"))


def check_arrival(tree: Tree, result: Account, named: Iterable[bytes], altering: bool) -> list[bytes]:
    """Note in the account how the sent files look; return those that look as nobody sent them."""
    differs = []
    for path in named:
        wanted = result.listing.get(path)
        result.altered.pop(path, None)
        if wanted is None or path in result.absent:
            continue
        have = tree.record(path)
        if same(have, wanted):
            continue
        if have and altering:
            result.altered[path] = have
        else:
            result.absent.add(path)
            differs.append(path)
    return differs


def sweep(tree: Tree, known: tuple[Account, ...], store: Store, date: str) -> list[tuple[bytes, bytes]]:
    """Put what rsync overwrote beside its successor; drop what a client had pushed, and what is the same."""
    top, beside = tree.prefix + DISPLACED, []
    for place in sorted(paths_below(top)):
        folder, _, path = place.partition(b"/")
        old, there = Tree(os.path.join(top, folder)).record(path), os.path.join(top, place)
        pushed = old and (any(account.knows(path, old) for account in known) or store.anothers(path, old))
        if pushed or same_bytes(there, tree.prefix + path):
            os.unlink(there)
        else:
            kept = tree.beside(path, date)
            os.makedirs(os.path.dirname(tree.prefix + kept), exist_ok=True)
            os.rename(there, tree.prefix + kept)
            beside.append((path, kept))
    shutil.rmtree(top, ignore_errors=True)  # only folders are left
    return beside


def paths_below(top: bytes) -> list[bytes]:
    """Return the path of everything below a folder that is no folder, relative to it."""
    found: list[bytes] = []
    folders = [b""] if os.path.isdir(top) else []
    while folders:
        folder = folders.pop()
        for entry in os.scandir(os.path.join(top, folder)):
            path = os.path.join(folder, entry.name)
            (folders if entry.is_dir(follow_symlinks=False) else found).append(path)
    return found


def same_bytes(one: bytes, other: bytes) -> bool:
    """Tell whether two paths are regular files of one content."""
    try:
        infos = os.lstat(one), os.lstat(other)
    except OSError:
        return False
    alike = all(stat.S_ISREG(info.st_mode) for info in infos) and infos[0].st_size == infos[1].st_size
    return alike and digest_of(one) == digest_of(other) != ""


def delete_pushed(
    tree: Tree, paths: Iterable[bytes], mine: tuple[Account, Account], store: Store
) -> tuple[list[bytes], list[bytes]]:
    """Delete files that are still as they were pushed, and folders that the push made and that are now empty.

    Returns:
        The paths that are gone and those that stay since they changed meanwhile.
    """
    removed, kept, folders = [], [], set()
    for path in paths:
        have = tree.record(path)
        if have is None:
            continue
        if not untouched(have, path, mine) or store.anothers(path, have):
            kept.append(path)
            continue
        os.unlink(tree.prefix + path)
        removed.append(path)
        folders.add(path.rpartition(b"/")[0])
    made = mine[0].folders | mine[1].folders
    for folder in sorted(folders, reverse=True):
        while folder in made:
            try:
                os.rmdir(tree.prefix + folder)
            except OSError:  # not empty: something of the host's is in it
                break
            folder = folder.rpartition(b"/")[0]
    tree.forget()
    return removed, kept


# The program there ------------------------------------------------------------------------------------------


def rsync_here(store: Store, name: str) -> Params:
    """Return which rsync the host has, asked once per program: `path`, what it `says`, and the `system`."""
    path = shutil.which(name)
    if path is None:
        return {"path": None, "says": "", "system": system_here()}
    info = os.stat(path)
    key = [path, info.st_size, info.st_mtime_ns]
    cache = os.path.join(store.folder, "rsync-version")
    try:
        with open(cache, encoding="ascii") as file:
            known: Params = json.load(file)
        if known["key"] == key:
            return known
    except (OSError, ValueError, KeyError):
        pass  # not asked yet, or cut while it was written
    command = [path, "--version"]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = said.stdout.decode("ascii", "replace")[:2000]
    known = {"path": path, "says": text, "system": system_here(), "key": key}
    replace(cache, json.dumps(known).encode("ascii"))
    return known


def system_here() -> str:
    """Return the words of ID and ID_LIKE in os-release(5)."""
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = dict(line.strip().partition("=")[::2] for line in file if "=" in line)
    except OSError:
        return ""
    return " ".join(lines.get(key, "").strip("\"'") for key in ("ID", "ID_LIKE")).strip()


OPS: dict[str, Callable[[Params], Params]] = {"sync.begin": begin, "sync.clear": clear, "sync.finish": finish}
