"""Find the files that a run wrote: those that it claimed, and those that changed below the cache root."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Iterator

from .run_folder import Run, all_runs

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


def files_below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (relative path, lstat) of every regular file; skip what is deleted meanwhile."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(os.path.join(folder, below)))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(below, entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    yield path, entry.stat(follow_symlinks=False)
            except OSError:
                continue


def claimed(run: Run) -> set:  # type: ignore[type-arg]  # Python 3.8 has no set[str]
    """Return the paths that a run claimed."""
    try:
        with open(run.claims_path, "rb") as file:
            return {os.fsdecode(path) for path in file.read().split(b"\0") if path}
    except OSError:
        return set()


def find_outputs(run: Run, state: str, record: RunRecord) -> list[Entry]:
    """Return [path, size, mtime_ns] of the files that the run wrote; paths are relative to the cache root.

    These are the files that it claimed, and the files that changed after the mark and that no concurrent run
    claimed. Of the latter, the writer is unknown if another run went on below the same root: the record gets
    their number, `unsure_files`, and the runs, `beside`.
    """
    root, since_ns, started = record["cache_dir"], record["since_ns"], record["started"]
    own = {os.path.relpath(os.path.realpath(path), root) for path in claimed(run)}
    others: set = set()  # type: ignore[type-arg]
    beside = []
    for other in all_runs(state):
        try:
            others_record = other.record()
        except FileNotFoundError:  # removed meanwhile
            continue
        if other.id != run.id and others_record.get("ended", started) >= started:
            others |= {os.path.relpath(os.path.realpath(path), root) for path in claimed(other)}
            if others_record["cache_dir"] == root:
                beside.append(other.id)
    found, unsure = [], 0
    for name, info in files_below(root):
        changed = since_ns is None or info.st_ctime_ns > since_ns
        if name in own or (changed and name not in others and not name.startswith(".remote-tools-mark-")):
            found.append([name, info.st_size, info.st_mtime_ns])
            unsure += name not in own
    if beside and unsure:
        record.update({"unsure_files": unsure, "beside": beside})
    return sorted(found)
