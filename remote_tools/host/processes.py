"""Identify a process beyond the reuse of its pid, and check whether it still runs: proc(5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .messages import Process


def status_of(pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s `stat` from the state on; empty if the process is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in (b"Z", b"X") else fields


def born(pid: int) -> str | None:
    """Return the start time of a process in kernel ticks, unique with its pid; None if it has ended."""
    fields = status_of(pid)
    return fields[19].decode("ascii") if fields else None


def alive(process: Process | None) -> bool:
    """Return whether the process of a `[pid, start time]` pair still runs."""
    return process is not None and born(process[0]) == process[1]


def started_by(run_id: str) -> list[int]:
    """Return the processes with a run's id in their environment, also those in sessions of their own."""
    mark, found = b"REMOTE_RUN_ID=" + os.fsencode(run_id), []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                marked = mark in file.read().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if marked and status_of(int(name)):
            found.append(int(name))
    return found


def group_alive(pgid: int) -> bool:
    """Return whether a process group still has a process, without zombies, which killpg would count."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    group = b"%d" % pgid
    return any(status_of(int(name))[2:3] == [group] for name in os.listdir("/proc") if name.isdigit())
