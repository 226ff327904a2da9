"""Find and end processes of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

CLOCK_STEP_S = 2.0
"""Tolerance of start times: they count from the boot time, which moves with the clock (proc(5): btime)."""
SIGNALS = (psutil.Process.terminate, psutil.Process.kill)


def started(pid: int) -> float | None:
    """Return the start time of a process in seconds since 1970; None if it has ended or is a zombie."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return float(process.create_time()) if runs(process) else None
    return None


def started_at(pid: int, moment: float) -> bool:
    """Return whether the process that started at that time still runs; its pid may have been reused."""
    found = started(pid)
    return found is not None and abs(found - moment) < CLOCK_STEP_S


def runs(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def marked(name: str, value: str) -> list[psutil.Process]:
    """Return the processes with this environment variable, of those that we may inspect."""
    everyone = psutil.process_iter(["environ"])
    return [each for each in everyone if (each.info["environ"] or {}).get(name) == value]


def family(seeds: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Return processes and all their descendants."""
    found = set(seeds)
    for each in tuple(found):
        with suppress(psutil.NoSuchProcess):
            found.update(each.children(recursive=True))
    return found


def stop(family: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """End processes: SIGTERM, then SIGKILL for those that still run after `patience_s`.

    Returns:
        The processes that were running.
    """
    running = left = [each for each in family if runs(each)]
    for send in SIGNALS:
        for each in left:
            with suppress(psutil.NoSuchProcess):
                send(each)
        deadline = time.monotonic() + patience_s
        # Not psutil.wait_procs, which waits for zombies that their parents never reap.
        while left and time.monotonic() < deadline:
            time.sleep(0.005)
            left = [each for each in left if runs(each)]
    return running
