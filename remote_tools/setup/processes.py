"""This machine's processes: which run, who started whom, and how to end a family of them for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process as it was when seen; `started` tells it from a later one with the same number."""

    pid: int
    parent: int
    started: str
    environment: tuple[str, ...] = ()


def started(pid: int) -> str | None:
    """Return when a process started, in the system's own notation; None where none runs, or only a zombie."""
    if sys.platform == "linux":
        found = _from_proc(pid)
        return found.started if found else None
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, when = answer.stdout.strip().partition(" ")
    return " ".join(when.split()) if when and not state.startswith("Z") else None


def table() -> list[Process]:
    """List the processes that run, with the environment of those we may look into."""
    if sys.platform == "linux":
        numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [found for found in map(_from_proc, numbers) if found]
    columns = ["ps", "-axwwE", "-o", "pid=,ppid=,stat=,lstart=,command="]
    lines = subprocess.run(columns, capture_output=True, text=True, errors="replace").stdout.splitlines()
    return [_from_ps(line) for line in lines if line.split()[2][0] != "Z"]


def family(everyone: Iterable[Process], seeds: set[int]) -> list[Process]:
    """Select the processes with these numbers and all their descendants."""
    everyone = list(everyone)
    members = set(seeds)
    grown = True
    while grown:
        more = {each.pid for each in everyone if each.parent in members} - members
        members |= more
        grown = bool(more)
    return [each for each in everyone if each.pid in members]


def stop(family: Iterable[Process], patience_s: float) -> list[Process]:
    """End processes: SIGTERM, then SIGKILL for those that still run after `patience_s`.

    Returns:
        Those that were running.
    """
    family = [each for each in family if started(each.pid) == each.started]
    left = family
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each.pid, number)
        deadline = time.monotonic() + patience_s
        while left and time.monotonic() < deadline:
            time.sleep(0.005)
            left = [each for each in left if started(each.pid) == each.started]
    return family


def _from_proc(pid: int) -> Process | None:
    """Read proc(5); the name in `stat` stands in parentheses and may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    words: tuple[str, ...] = ()
    with suppress(PermissionError, FileNotFoundError, ProcessLookupError):
        words = tuple(os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0"))
    return Process(pid, int(fields[1]), fields[19], words)


def _from_ps(line: str) -> Process:
    """Read a line of BSD's ps, where the environment follows the command's words."""
    pid, parent, _state, *rest = line.split()
    return Process(int(pid), int(parent), " ".join(rest[:5]), tuple(rest[5:]))
