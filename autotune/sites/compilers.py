"""Compilers at work: several at a time, each in a session of its own, limited in time, memory and output."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.machine.limits import lower_limit
from autotune.model.trial import Status
from autotune.sites.messages import OK, CompileReply, CompileRequest, Ending, Settings
from autotune.sites.processes import filled, kill, out_of_memory, signal_group, signal_name, spawn

_LARGEST_OBJECT = 1 << 28
_FULL = os.strerror(errno.ENOSPC)
_KILLED = re.compile(r"Killed signal terminated program|[Ee]rror: Killed|\bKilled\b\s*$", re.MULTILINE)


@dataclass
class _Running:
    request: CompileRequest
    log: int
    started: float
    deadline: float
    again: bool


class Compilers:
    """The compilations that wait and those that run.

    Args:
        settings: its limits, `compile_jobs` and folder are used.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits, self._jobs = settings.limits, settings.compile_jobs
        # A killed compiler leaves files in TMPDIR. `_FULL` is searched for in what it prints.
        self._environment = {**os.environ, "TMPDIR": settings.folder, "LC_ALL": "C"}
        self._waiting: deque[CompileRequest] = deque()
        self._running: dict[int, _Running] = {}
        self._held = False

    @property
    def pids(self) -> list[int]:
        """The compilers that run."""
        return list(self._running)

    @property
    def patience_s(self) -> float | None:
        """Seconds until one is overdue; None if none runs, or if all are stopped."""
        if self._held or not self._running:
            return None
        return max(0.0, min(job.deadline for job in self._running.values()) - time.monotonic())

    def add(self, request: CompileRequest) -> None:
        """Queue a compilation."""
        self._waiting.append(request)

    def turn(self) -> list[CompileReply]:
        """End compilations that are done or overdue, start waiting ones; do nothing while held.

        Returns:
            Those that ended.
        """
        if self._held:
            return []
        ended = [reply for pid in self.pids if (reply := self._end(pid))]
        while self._waiting and len(self._running) < self._jobs:
            if refused := self._start(self._waiting.popleft()):
                ended.append(refused)
        return ended

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stop every compiler, and its clock: a measurement has the machine to itself."""
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
        """Forget all; return the half-written artifacts, to be removed once the compilers are dead."""
        parts = [Path(job.request.part) for job in self._running.values()]
        self._running.clear()
        self._waiting.clear()
        return parts

    def _start(self, request: CompileRequest, *, again: bool = False) -> CompileReply | None:
        log = os.memfd_create("log")
        try:
            Path(request.part).mkdir(exist_ok=True)
            with open(os.memfd_create("source"), "wb+", buffering=0) as source:  # noqa: PTH123
                source.write(request.source.encode())
                source.seek(0)
                pairs = (source.fileno(), 0), (log, 1), (log, 2)
                streams = [(os.POSIX_SPAWN_DUP2, *pair) for pair in pairs]
                pid = spawn(request.command, self._environment, streams)
        except OSError as error:
            os.close(log)
            message = f"{request.command[0]}: {error.strerror}"
            return CompileReply(request.number, Ending(Status.ERROR, message))
        memory = [(resource.RLIMIT_AS, self._limits.memory_bytes)] if self._limits.memory_bytes else []
        for which, value in (
            *memory,
            (resource.RLIMIT_FSIZE, max(self._limits.output_bytes, _LARGEST_OBJECT)),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ProcessLookupError):
                lower_limit(which, value, pid)
        now = time.monotonic()
        self._running[pid] = _Running(request, log, now, now + self._limits.compile_s, again)
        return None

    def _end(self, pid: int) -> CompileReply | None:
        job = self._running[pid]
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        overdue = not ended and time.monotonic() >= job.deadline
        if overdue:
            kill(pid)
            ended, status, usage = os.wait4(pid, 0)
        if not ended:
            return None
        del self._running[pid]
        ending = self._ending(status, usage, overdue)
        part, folder = Path(job.request.part), Path(job.request.folder)
        if ending is OK and not any(part.iterdir()):
            ending = _error("ended without an error and without an object")
        if ending is OK and not folder.exists():
            part.rename(folder)
        else:  # it failed, or the same source was compiled for another config
            shutil.rmtree(part, ignore_errors=True)
        log = os.pread(job.log, self._limits.output_bytes, 0).decode(errors="replace")
        os.close(job.log)
        failed = ending.status is Status.COMPILE_ERROR
        full = failed and _FULL in log
        if failed and _KILLED.search(log):
            ending = Ending(Status.OUT_OF_MEMORY, "the compiler was killed by the system: out of memory")
        elif failed and not full and "error:" not in log and not job.again:
            self._start(job.request, again=True)  # it says nothing against the source: try once more
            return None
        return CompileReply(job.request.number, ending, log, time.monotonic() - job.started, full)

    def _ending(self, status: int, usage: resource.struct_rusage, overdue: bool) -> Ending:
        if overdue:
            message = f"the compiler took more than {self._limits.compile_s:g} s"
            return Ending(Status.COMPILE_TIMEOUT, message)
        if status == 0:
            return OK
        if filled(usage, self._limits.memory_bytes):
            return out_of_memory(self._limits.memory_bytes)
        if os.WIFSIGNALED(status):
            return _error(f"was killed by {signal_name(os.WTERMSIG(status))}")
        return _error(f"ended with exit code {os.WEXITSTATUS(status)}")


def _error(what: str) -> Ending:
    return Ending(Status.COMPILE_ERROR, f"the compiler {what}")
