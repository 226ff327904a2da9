"""Compilers at work: several at a time, each in a session of its own, limited in time, memory and output."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.sites.processes import ending, filled, kill, out_of_memory, signal_group, signal_name, spawn
from autotune.sites.wire import Record

_LARGEST_OBJECT = 1 << 28
_FULL = os.strerror(errno.ENOSPC)


@dataclass
class _Job:
    number: int
    produces: Path
    object: Path
    log: int
    started: float
    deadline: float


class Compilers:
    """The compilations that wait and those that run.

    Args:
        settings: limits, compile_jobs and folder, as `workers.py` writes them.
    """

    def __init__(self, settings: Record) -> None:
        self._limits, self._jobs = settings["limits"], settings["compile_jobs"]
        # A killed cc leaves files in its TMPDIR; what it says of a full disk is looked for.
        self._environment = {**os.environ, "TMPDIR": settings["folder"], "LC_ALL": "C"}
        self._waiting: deque[Record] = deque()
        self._running: dict[int, _Job] = {}
        self._held = False

    @property
    def pids(self) -> list[int]:
        """The compilers that run."""
        return list(self._running)

    @property
    def patience_s(self) -> float | None:
        """Seconds until one is overdue; None where none runs, or all are held."""
        if self._held or not self._running:
            return None
        return max(0.0, min(job.deadline for job in self._running.values()) - time.monotonic())

    def add(self, request: Record) -> None:
        """Queue a compilation."""
        self._waiting.append(request)

    def turn(self) -> list[Record]:
        """End what is done or overdue, start what waits; return what ended. While held, do nothing."""
        if self._held:
            return []
        ended = [record for pid in self.pids if (record := self._end(pid))]
        while self._waiting and len(self._running) < self._jobs:
            if refused := self._start(self._waiting.popleft()):
                ended.append(refused)
        return ended

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold every compiler still, off its clock: a measurement has the machine to itself."""
        begin, self._held = time.monotonic(), True
        for pid in self._running:
            signal_group(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            held_s, self._held = time.monotonic() - begin, False
            for pid, job in self._running.items():
                job.started += held_s
                job.deadline += held_s
                signal_group(pid, signal.SIGCONT)

    def abandon(self) -> list[Path]:
        """Forget all; return the half-written objects, to be removed once the compilers are dead."""
        parts = [job.produces for job in self._running.values()]
        self._running.clear()
        self._waiting.clear()
        return parts

    def _start(self, request: Record) -> Record | None:
        log, command = os.memfd_create("log"), request["command"]
        try:
            with open(os.memfd_create("source"), "wb+", buffering=0) as source:  # noqa: PTH123
                source.write(request["source"].encode())
                source.seek(0)
                pairs = (source.fileno(), 0), (log, 1), (log, 2)
                streams = [(os.POSIX_SPAWN_DUP2, *pair) for pair in pairs]
                pid = spawn(command, self._environment, streams)
        except OSError as error:
            os.close(log)
            refusal = ending("error", f"{command[0]}: {error.strerror}")
            return {"number": request["number"], "log": "", "seconds": 0.0, **refusal}
        for which, value in (
            (resource.RLIMIT_AS, self._limits["memory_bytes"]),
            (resource.RLIMIT_FSIZE, max(self._limits["output_bytes"], _LARGEST_OBJECT)),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, which, (value, value))
        now = time.monotonic()
        produces, target = Path(request["produces"]), Path(request["object"])
        self._running[pid] = _Job(
            request["number"], produces, target, log, now, now + self._limits["compile_s"]
        )
        return None

    def _end(self, pid: int) -> Record | None:
        job = self._running[pid]
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        overdue = not ended and time.monotonic() >= job.deadline
        if overdue:
            kill(pid)
            ended, status, usage = os.wait4(pid, 0)
        if not ended:
            return None
        del self._running[pid]
        how = self._how(status, usage, overdue)
        if how["status"] == "ok" and job.produces.exists():
            job.produces.replace(job.object)
        elif how["status"] == "ok":
            how = ending("compile_error", "the compiler ended without an error and without an object")
        else:
            job.produces.unlink(missing_ok=True)
        log = os.pread(job.log, self._limits["output_bytes"], 0).decode(errors="replace")
        os.close(job.log)
        if how["status"] == "compile_error" and _FULL in log:
            how = ending("full")
        return {"number": job.number, "log": log, "seconds": time.monotonic() - job.started, **how}

    def _how(self, status: int, usage: resource.struct_rusage, overdue: bool) -> Record:
        if overdue:
            return ending("compile_timeout", f"the compiler took more than {self._limits['compile_s']:g} s")
        if status == 0:
            return ending("ok")
        if filled(usage, self._limits["memory_bytes"]):
            return out_of_memory(self._limits["memory_bytes"])
        if os.WIFSIGNALED(status):
            return ending("compile_error", f"the compiler was killed by {signal_name(os.WTERMSIG(status))}")
        return ending("compile_error", f"the compiler ended with exit code {os.WEXITSTATUS(status)}")
