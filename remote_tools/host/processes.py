"""Identify a process beyond the reuse of its pid, check whether it runs, and find those of a run: proc(5)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .messages import Process, RunRecord


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


def signal_process(pid: int, start: str, number: int) -> bool:
    """Send a signal to a process, unless another one has its pid by now; return whether it was sent."""
    try:
        held = os.pidfd_open(pid)  # pidfd_open(2): it stays that process, whatever becomes of the pid
    except (OSError, AttributeError):  # gone; or Linux before 5.3, or Python before 3.9
        held = -1
    try:
        if born(pid) != start:
            return False
        if held >= 0:
            signal.pidfd_send_signal(held, number)
        else:
            os.kill(pid, number)
    except OSError:
        return False
    finally:
        if held >= 0:
            os.close(held)
    return True


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


def members(record: RunRecord) -> list[tuple[int, str]]:
    """Return (pid, start time) of every process of a run, whatever session or group it is in.

    A process is the run's if it is in the group or session of the run's command, if its environment has the
    run's id, if its parent is the run's owner, which adopts orphans, if the record has it among those that
    were left, or if its parent is the run's.
    """
    mark = b"REMOTE_RUN_ID=" + os.fsencode(record["id"])
    owner, leader = record.get("owner"), record.get("pid")
    if leader is not None and born(leader) is not None and not alive(record.get("process")):
        leader = None  # another process has its pid by now
    adopter = owner[0] if owner is not None and alive(owner) else None
    table = {pid: fields for pid in _pids() if (fields := status_of(pid))}
    children: dict[int, list[int]] = {}
    found = [pid for pid, start, _words in record.get("left", ()) if alive([pid, start])]
    for pid, fields in table.items():
        parent, group, session = (int(field) for field in fields[1:4])
        children.setdefault(parent, []).append(pid)
        ours = (adopter is not None and parent == adopter) or leader in (group, session)
        if pid != adopter and (ours or _has(pid, mark)):
            found.append(pid)
    found = [*dict.fromkeys(found)]
    known = set(found)
    for pid in found:  # it grows
        more = [child for child in children.get(pid, ()) if child not in known]
        known.update(more)
        found += more
    return [(pid, table[pid][19].decode("ascii")) for pid in sorted(known & table.keys() - {os.getpid()})]


def words_of(pid: int) -> str:
    """Return the command line of a process, cut to what fits in a message."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsdecode(file.read(120).replace(b"\0", b" ")).strip()
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _has(pid: int, variable: bytes) -> bool:
    """Return whether a process was started with a variable."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False
