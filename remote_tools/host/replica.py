"""Do the host's side of a push: compare its tree with a listing, and record what arrives."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from .accounts import Account, Store, hold, load, lock_holder, release, remove, replace, untouched
from .listing import (
    CLOSED,
    Listing,
    by_path,
    digest_of,
    pack,
    path_of,
    same,
    same_content,
    size_of,
    unpack,
    unpack_paths,
)
from .run_folder import Place, account_umask, is_run_id, make_folders
from .software import rsync_here
from .tree import DISPLACED, PARTIAL_DIR, Tree

if TYPE_CHECKING:
    from . import messages
    from .messages import (
        BeginParams,
        BeginReply,
        ClearParams,
        ClearReply,
        Holder,
        PushEnded,
        PushEnding,
        Refused,
    )

CACHED = (b".pyc", b".nbi", b".nbc")
"""Endings in `__pycache__`: Python's bytecode, Numba's index and its machine code (numba.core.caching)."""


class Differences:
    """The paths to send to make the tree equal to the client's, and the paths in the way."""

    def __init__(self) -> None:
        """Start with no differences."""
        self.new: list[bytes] = []
        self.changed: list[bytes] = []
        self.conflict: list[tuple[bytes, str]] = []
        self.blocked: list[bytes] = []

    def any(self) -> bool:
        """Return whether anything differs."""
        return bool(self.new or self.changed or self.conflict)


def begin(params: BeginParams, place: Place) -> BeginReply | Refused:
    """Compare the tree here with the client's; write only to our own state."""
    check_names(params["client"])
    failure = check_root(place.code_path)
    if failure:
        return failure
    store, dry = Store(place.state, params["client"]), params["dry"]
    if not dry and not hold(store.folder, params["name"]):
        message = f"{lock_holder(store.folder)} is pushing to {place.code_path}"
        return {"error": "busy", "message": message, "hint": "try again when that push has ended"}
    account = load(store.pushed_path)
    if "listing" in params:
        target = by_path(unpack(params["listing"]))
    elif account.stamp == params["base"]:
        target = {**account.listing, **by_path(unpack(params["changed"]))}
        for path in unpack_paths(params["gone"]):
            target.pop(path, None)
    else:
        return {"want_listing": True}
    tree, coming = Tree(os.fsencode(place.code_path)), load(store.coming_path)
    plan = compare(tree, target, (account, coming), store)
    deletes, kept = surplus(tree, target, (account, coming), store)
    if not dry:
        remove(store.stamp_path)
        make_folders(place.code_path)
        same_tree = account.stamp == params["stamp"] and not coming.listing and not params["more"]
        if plan.any() or deletes or kept or not same_tree:
            note_coming(store, coming, target, plan, tree)
    return {
        "new": pack(plan.new),
        "changed": pack(plan.changed),
        "blocked": pack(plan.blocked),
        "conflict": [(os.fsdecode(path), digest) for path, digest in plan.conflict],
        "delete": pack(deletes),
        "kept": [(os.fsdecode(path), why) for path, why in kept],
        "pushed": sum(1 for _ in account.paths()),
        "root": place.code_path,
        "rsync": rsync_here(store.folder, params["rsync"], keep=not dry),
        "holder": store.holder(),
    }


def check_names(*texts: str) -> None:
    """Check texts that become parts of the names of files.

    Raises:
        ValueError: one of them is no such name.
    """
    for text in texts:
        if not is_run_id(text):
            raise ValueError("no name of a file")


def check_root(path: str) -> Refused | None:
    """Return an error reply if nothing can be pushed to the code path."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        hint = f"create {parent} on the host, or correct code_path"
        return {"error": "io", "message": f"no folder {parent} on the host", "hint": hint}
    if os.path.lexists(path) and not os.path.isdir(path):
        return {"error": "io", "message": f"{path} is not a folder", "hint": "correct code_path"}
    nearest = path if os.path.isdir(path) else parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        return {"error": "permission", "message": f"{nearest} cannot be written", "hint": "correct code_path"}
    return None


def compare(tree: Tree, target: Listing, own: tuple[Account, Account], store: Store) -> Differences:
    """Return what to send to make the tree equal to the target."""
    plan = Differences()
    altered = own[0].altered
    blocked: set[bytes | None] = set()
    for path, wanted in target.items():
        have = tree.record(path)
        if have == wanted:
            continue
        if not have:
            plan.new.append(path)
            blocked.add(tree.obstacle(path))
        elif same(have, wanted) or (have == altered.get(path) and own[0].listing.get(path) == wanted):
            continue
        elif (
            same_content(have, wanted)
            or any(account.knows(path, have) for account in own)
            or store.pushed_by_another(path, have)
        ):
            plan.changed.append(path)
        else:
            alike = have[0] == wanted[0] == 102 and size_of(have) == size_of(wanted)
            plan.conflict.append((path, digest_of(tree.prefix + path) if alike else ""))
    plan.blocked = sorted(path for path in blocked if path is not None)
    return plan


def surplus(
    tree: Tree, target: Listing, own: tuple[Account, Account], store: Store
) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Return the pushed files that are not in the target: those to delete, and (path, why) of the rest."""
    deletes, kept = [], []
    for path in sorted({path for account in own for path in account.paths() if path not in target}):
        have = tree.record(path)
        if have is None:
            continue
        if not untouched(have, path, own):
            kept.append((path, "changed on the host"))
        elif store.pushed_by_another(path, have):
            kept.append((path, "pushed from another machine too"))
        else:
            deletes.append(path)
    return deletes, kept


def note_coming(store: Store, coming: Account, target: Listing, plan: Differences, tree: Tree) -> None:
    """Record what will arrive: if the push is interrupted, the files that arrived still count as pushed."""
    coming.leave(record for path, record in coming.listing.items() if target.get(path) != record)
    coming.listing = target
    for path in plan.new:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in coming.folders and tree.folder(folder) != b"":
            coming.folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    named = [*plan.new, *plan.changed, *(path for path, _ in plan.conflict)]
    coming.header["named"] = pack(named)
    coming.save(store.coming_path)
    if account_umask() & 0o022 != 0o022:  # rsync would let others write to the folders that it makes
        for folder in sorted(coming.folders):
            with contextlib.suppress(OSError):  # something is in the way: it is moved aside later
                make_folders(tree.prefix + folder)
        tree.forget()


def clear(params: ClearParams, place: Place) -> ClearReply:
    """Clear the way for incoming files."""
    store, tree = Store(place.state, params["client"]), Tree(os.fsencode(place.code_path))
    check_names(params["client"], params["date"])
    own = (load(store.pushed_path), load(store.coming_path))
    deletes, removed = unpack_paths(params["delete"]), []
    beside: list[messages.Pair] = []
    for path in unpack_paths(params["blocked"]):
        below = [p for p in deletes if p == path or p.startswith(path + b"/")]
        removed += delete_pushed(tree, below, own, store)[0]
        tree.forget()
        if os.path.lexists(tree.prefix + path):
            kept = tree.beside(path, params["date"])
            os.rename(tree.prefix + path, tree.prefix + kept)
            beside.append((os.fsdecode(path), os.fsdecode(kept)))
    for folder in unpack_paths(params["folders"]):
        with contextlib.suppress(OSError):  # rsync will report the error
            make_folders(tree.prefix + folder)
    return {"removed": pack(removed), "beside": beside}


def finish(params: PushEnding, place: Place) -> PushEnded:
    """Record what arrived, delete what may be deleted, and write the stamp if the tree is as sent."""
    store, tree = Store(place.state, params["client"]), Tree(os.fsencode(place.code_path))
    check_names(params["client"], params["aside"], params["date"])
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
    for folder in unpack_paths(params["folders"]):
        with contextlib.suppress(OSError):  # a file of the host's may be there
            make_folders(tree.prefix + folder)
    forget_bytecode(tree, unpack_paths(params["sent"]))
    beside = sweep(tree, (account, coming, Account({}, later)), store, params["date"])
    removed, kept = delete_pushed(tree, unpack_paths(params["delete"]), (account, coming), store)
    vanished = unpack_paths(params["vanished"])
    result = Account({}, {**coming.listing, **later})
    for path in vanished:
        result.listing.pop(path, None)
    named = unpack(coming.header["named"])
    result.absent = (
        account.absent.difference(named).union(unpack_paths(params["absent"])) & result.listing.keys()
    )
    result.altered = {path: record for path, record in account.altered.items() if path in result.listing}
    differs = check_arrival(tree, result, named, params["altering"])
    for path in unpack_paths(params["kept"]) + vanished:
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
        "kept": [(os.fsdecode(path), "changed on the host") for path in kept],
        "beside": [(os.fsdecode(path), os.fsdecode(name)) for path, name in beside],
        "differs": [os.fsdecode(path) for path in differs],
    }


def deliver(tree: Tree, record: bytes, data: bytes, aside: bytes) -> None:
    """Write one file of the request, as rsync would: atomically, with the old file put aside for `sweep`.

    Raises:
        ValueError: a link stands in place of a folder; `clear` moves such a one aside.
    """
    path = path_of(record)
    if tree.folder(path.rpartition(b"/")[0]):
        raise ValueError("a path that leads out of its folder")
    there, old = tree.prefix + path, tree.prefix + os.path.join(aside, path)
    name = hashlib.sha256(path).hexdigest().encode("ascii")
    part = os.path.join(os.path.dirname(there), PARTIAL_DIR, name)
    for place in (there, part):
        make_folders(os.path.dirname(place))
    if record[:1] == b"l":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        os.symlink(record.split(b" ", 3)[3].partition(b"//")[2], part)
    else:
        mode, _size, mtime_ns, _path = record.split(b" ", 3)
        with open(part, "wb") as file:
            file.write(data)
        os.chmod(part, int(mode[1:], 8) & ~CLOSED)
        os.utime(part, ns=(int(mtime_ns), int(mtime_ns)))
    if os.path.lexists(there):
        make_folders(os.path.dirname(old))
        put_aside(there, old)
    os.replace(part, there)
    with contextlib.suppress(OSError):  # it may also hold a partial file of rsync's
        os.rmdir(os.path.dirname(part))
    tree.forget()


def forget_bytecode(tree: Tree, paths: Iterable[bytes]) -> None:
    """Delete Python's bytecode of modules that were sent, and what Numba compiled from them.

    Both know a module by its size and mtime, Python by the second. A module that was edited within a second,
    or replaced by one of the same time, would run as it was before.
    """
    modules: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, _, name = path.rpartition(b"/")
        if name.endswith(b".py"):
            modules.setdefault(os.path.join(folder, b"__pycache__"), set()).add(name[:-3])
    for folder, names in modules.items():
        if tree.folder(folder) != b"":
            continue
        try:
            compiled = os.listdir(tree.prefix + folder)
        except OSError:
            continue
        for each in compiled:
            if each.endswith(CACHED) and each.partition(b".")[0] in names:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(tree.prefix + folder, each))


def put_aside(there: bytes, old: bytes) -> None:
    """Give a file another name, as rsync does: by a link, else by renaming it.

    Linux allows no link to a file of somebody else's (proc(5): protected_hardlinks), and not every file
    system has links. At a second try, what was put aside first is what counts.
    """
    try:
        os.link(there, old, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:
        os.rename(there, old)


def write_stamp(store: Store, params: PushEnding) -> None:
    """Record the tree that the code path holds, and the client that pushed it."""
    holder: Holder = {"client": store.client, "name": params["name"], "at": time.time()}
    replace(store.holder_path, json.dumps(holder).encode("ascii"))
    replace(store.stamp_path, params["stamp"].encode("ascii"))


def check_arrival(tree: Tree, result: Account, named: Iterable[bytes], altering: bool) -> list[bytes]:
    """Record in the account how the sent files look; return those that differ from what was sent."""
    differs = []
    for path in named:
        wanted = result.listing.get(path)
        result.altered.pop(path, None)
        if wanted is None or path in result.absent:
            continue
        have = tree.record(path)
        if have and not altering and close_to_others(tree.prefix + path, have):
            have = tree.record(path)
        if same(have, wanted):
            continue
        if have and altering:
            result.altered[path] = have
        else:
            result.absent.add(path)
            differs.append(path)
    return differs


def close_to_others(path: bytes, have: bytes) -> bool:
    """Take the modes from a file that nothing of a push has; return whether it had any."""
    mode = int(have.split(b" ", 1)[0][1:], 8)
    if have[:1] != b"f" or not mode & CLOSED:
        return False
    os.chmod(path, mode & ~CLOSED)
    return True


def sweep(tree: Tree, known: tuple[Account, ...], store: Store, date: str) -> list[tuple[bytes, bytes]]:
    """Keep overwritten files beside their successors; delete those that a client pushed or that are equal."""
    top, beside = tree.prefix + DISPLACED, []
    if os.path.islink(top):  # what it leads to was not put aside by us
        os.unlink(top)
    for place in sorted(paths_below(top)):
        folder, _, path = place.partition(b"/")
        old, there = Tree(os.path.join(top, folder)).record(path), os.path.join(top, place)
        pushed = old and (
            any(account.knows(path, old) for account in known) or store.pushed_by_another(path, old)
        )
        if pushed or same_bytes(there, tree.prefix + path):
            os.unlink(there)
        else:
            kept = tree.beside(path, date)
            make_folders(os.path.dirname(tree.prefix + kept))
            os.rename(there, tree.prefix + kept)
            beside.append((path, kept))
    shutil.rmtree(top, ignore_errors=True)  # only folders are left
    return beside


def paths_below(top: bytes) -> list[bytes]:
    """Return the relative paths of everything below a folder, except folders."""
    found: list[bytes] = []
    folders = [b""] if os.path.isdir(top) else []
    while folders:
        folder = folders.pop()
        for entry in os.scandir(os.path.join(top, folder)):
            path = os.path.join(folder, entry.name)
            (folders if entry.is_dir(follow_symlinks=False) else found).append(path)
    return found


def same_bytes(one: bytes, other: bytes) -> bool:
    """Return whether two paths are regular files with the same content."""
    try:
        infos = os.lstat(one), os.lstat(other)
    except OSError:
        return False
    alike = all(stat.S_ISREG(info.st_mode) for info in infos) and infos[0].st_size == infos[1].st_size
    return alike and digest_of(one) == digest_of(other) != ""


def delete_pushed(
    tree: Tree, paths: Iterable[bytes], own: tuple[Account, Account], store: Store
) -> tuple[list[bytes], list[bytes]]:
    """Delete files that have not changed since they were pushed, and then the push's own empty folders.

    Returns:
        The deleted paths, and the paths that stay because they changed.
    """
    removed, kept, folders = [], [], set()
    for path in paths:
        have = tree.record(path)
        if have is None:
            continue
        if not untouched(have, path, own) or store.pushed_by_another(path, have):
            kept.append(path)
            continue
        os.unlink(tree.prefix + path)
        removed.append(path)
        folders.add(path.rpartition(b"/")[0])
    made = own[0].folders | own[1].folders
    for folder in sorted(folders, reverse=True):
        while folder in made:
            try:
                os.rmdir(tree.prefix + folder)
            except OSError:  # not empty: it holds files of the host
                break
            folder = folder.rpartition(b"/")[0]
    tree.forget()
    return removed, kept


OPS: dict[str, Callable[[Any, Place], Mapping[str, object]]] = {
    "sync.begin": begin,
    "sync.clear": clear,
    "sync.finish": finish,
}
if TYPE_CHECKING:
    messages.BEGIN.answered_by(begin)
    messages.CLEAR.answered_by(clear)
    messages.FINISH.answered_by(finish)
