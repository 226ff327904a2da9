"""Find the files that a run wrote: those that it claimed, and those that changed below the cache root."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Iterable, Iterator

from .processes import members
from .run_folder import Run, all_records

if TYPE_CHECKING:
    from .messages import Entry, RunRecord


def mark(root: str, run_id: str) -> int | None:
    """Return a time in ns, on the clock of the cache's file system, that is before every later write there.

    A file system's clock may differ from the host's (NFS) and moves in ticks. So a file is written there, and
    its time is returned once the clock has moved past it. Return None if there is no root: all files are new.
    """
    path = os.path.join(root, ".remote-tools-mark-" + run_id)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return None if not os.path.isdir(root) else time.time_ns()
    try:
        first = now = os.stat(path).st_ctime_ns
        give_up = time.monotonic() + 3
        while now == first and time.monotonic() < give_up:
            time.sleep(0.001)
            os.chmod(path, 0o600)
            now = os.stat(path).st_ctime_ns
        return first
    finally:
        os.unlink(path)


def files_below(folder: str) -> Iterator[tuple[str, os.stat_result, bool]]:
    """Yield (relative path, lstat, whether it is ours) of every regular file; skip what is deleted meanwhile.

    In a folder that others can write to, and below it, only this account's files are ours.
    """
    folders = [("", False)]
    me = os.getuid()
    while folders:
        below, shared = folders.pop()
        try:
            shared = shared or is_shared(os.path.join(folder, below))
            entries = list(os.scandir(os.path.join(folder, below)))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(below, entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((path, shared))
                elif entry.is_file(follow_symlinks=False):
                    info = entry.stat(follow_symlinks=False)
                    yield path, info, not shared or info.st_uid == me
            except OSError:
                continue


def is_shared(folder: str) -> bool:
    """Return whether others can write to a folder: by its mode, or because it is another account's.

    A file server may show our own account under another number: then we can write there.
    """
    info = os.stat(folder)
    foreign = info.st_uid not in (os.getuid(), 0) and not os.access(folder, os.W_OK)
    return foreign or bool(info.st_mode & 0o022)


def still_ours(run: Run, root: str, outputs: list[Entry]) -> list[Entry]:
    """Return the files that are this account's as they were at the end: others may have replaced some since.

    Only folders that others can write to are looked at. What the run claimed is its own, whoever owns it.
    """
    known = {"": False}

    def shared(folder: str) -> bool:
        if folder not in known:
            known[folder] = shared(os.path.dirname(folder)) or is_shared(os.path.join(root, folder))
        return known[folder]

    try:
        known[""] = bool(outputs) and is_shared(root)
        doubtful = {entry[0] for entry in outputs if shared(os.path.dirname(entry[0]))}
    except OSError:  # removed since: whoever reads the files is told
        return outputs
    own = _below(root, claimed(run)) if doubtful else set()
    return [
        entry for entry in outputs if entry[0] not in doubtful or entry[0] in own or _is_own(root, entry[0])
    ]


def _is_own(root: str, name: str) -> bool:
    """Return whether a file is this account's, with no link on the way to it."""
    path = os.path.join(root, name)
    try:
        return os.lstat(path).st_uid == os.getuid() and os.path.realpath(path) == path
    except OSError:
        return False


def claimed(run: Run) -> set:  # type: ignore[type-arg]  # Python 3.8 has no set[str]
    """Return the paths that a run claimed."""
    try:
        with open(run.claims_path, "rb") as file:
            return {os.fsdecode(path) for path in file.read().split(b"\0") if path}
    except OSError:
        return set()


def find_outputs(run: Run, state: str, record: RunRecord) -> list[Entry]:
    """Return [path, size, mtime_ns] of the files that the run wrote; paths are relative to the cache root.

    These are the files that it claimed, and the files of ours that changed after the mark, that no concurrent
    run claimed, and that none has open for writing. If a concurrent run claims no files, the writer of the
    unclaimed ones is unknown: the record gets their number, `unsure_files`, and those runs, `beside`.
    """
    root, since_ns = record["cache_dir"], record["since_ns"]
    own = _below(root, claimed(run))
    others: set = set()  # type: ignore[type-arg]
    beside = []
    for other, others_record in _concurrent(run, state, record):
        claims = claimed(other)
        others |= _below(root, claims)
        if others_record["state"] == "running":
            others |= _below(root, open_for_writing(others_record))
        if not claims:
            beside.append(other.id)
    found, unsure = [], 0
    for name, info, ours in files_below(root):
        changed = ours and (since_ns is None or info.st_ctime_ns > since_ns)
        if name in own or (changed and name not in others and not name.startswith(".remote-tools-mark-")):
            found.append((name, info.st_size, info.st_mtime_ns))
            unsure += name not in own
    if beside and unsure:
        record.update({"unsure_files": unsure, "beside": beside})
    return sorted(found)


def _below(root: str, paths: Iterable[str]) -> set:  # type: ignore[type-arg]
    """Return paths relative to the cache root."""
    return {os.path.relpath(os.path.realpath(path), root) for path in paths}


def _concurrent(run: Run, state: str, record: RunRecord) -> Iterator[tuple[Run, RunRecord]]:
    """Yield the runs of all workspaces that ran while this one did, and write below the same cache root."""
    base, root, started = os.path.dirname(state), record["cache_dir"], record["started"]
    for workspace in sorted(os.listdir(base)):
        for other, others_record in all_records(os.path.join(base, workspace)):
            if other.id == run.id:
                continue
            if others_record.get("ended", started) >= started and _nested(others_record["cache_dir"], root):
                yield other, others_record


def _nested(one: str, other: str) -> bool:
    """Return whether one of two folders contains the other, or is it."""
    return bool(one) and os.path.commonpath((one, other)) in (one, other)


def open_for_writing(record: RunRecord) -> set:  # type: ignore[type-arg]
    """Return the files that the processes of a run have open for writing."""
    found = set()
    for pid, _start in members(record):
        folder = f"/proc/{pid}/fd"
        try:
            for name in os.listdir(folder):
                link = os.path.join(folder, name)
                if os.lstat(link).st_mode & stat.S_IWUSR:
                    found.add(os.readlink(link))
        except OSError:  # it has ended
            continue
    return found
