"""Name a process for ever, and tell whether it still runs: proc(5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .messages import Process


def status_of(pid: int) -> list[bytes]:
    """Return proc(5)'s `stat` from the state on; nothing for a process that has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in (b"Z", b"X") else fields


def born(pid: int) -> str | None:
    """Return when a process started, in kernel ticks: with its pid that names it for ever; None if gone."""
    fields = status_of(pid)
    return fields[19].decode("ascii") if fields else None


def alive(process: Process | None) -> bool:
    """Tell whether the process of a `[pid, start]` pair still runs."""
    return process is not None and born(process[0]) == process[1]


def group_alive(pgid: int) -> bool:
    """Tell whether any process is left in a group; the kernel would count those that nobody waited for."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    group = b"%d" % pgid
    return any(status_of(int(name))[2:3] == [group] for name in os.listdir("/proc") if name.isdigit())
