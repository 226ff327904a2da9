"""This machine's processes: which run, which carry a mark, and how to end a family of them for good."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

CLOCK_STEP_S = 2.0
"""How far a start time may move: it counts from the boot, whose time follows the clock (proc(5): btime)."""
SIGNALS = (psutil.Process.terminate, psutil.Process.kill)


def started(pid: int) -> float | None:
    """Return when a process started, in seconds; None if none runs, or only a zombie."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return float(process.create_time()) if runs(process) else None
    return None


def started_at(pid: int, moment: float) -> bool:
    """Tell whether the process that started then still runs: its number may be another's by now."""
    found = started(pid)
    return found is not None and abs(found - moment) < CLOCK_STEP_S


def runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def marked(name: str, value: str) -> list[psutil.Process]:
    """List the processes that have this variable, as far as we may look into them."""
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
        Those that were running.
    """
    running = left = [each for each in family if runs(each)]
    for send in SIGNALS:
        for each in left:
            with suppress(psutil.NoSuchProcess):
                send(each)
        deadline = time.monotonic() + patience_s
        # Not psutil.wait_procs: to it, a zombie that its parent never reaps still runs.
        while left and time.monotonic() < deadline:
            time.sleep(0.005)
            left = [each for each in left if runs(each)]
    return running
