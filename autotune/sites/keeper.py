"""The process that starts every compiler and candidate, enforces their limits, and kills them at the end.

`workers.py` runs it as a program of its own. It never calls a candidate itself, so a candidate cannot corrupt
its memory. It is the subreaper of all that they start, so no process escapes it. When its socket to the tuner
closes, for whatever reason, it kills them all and ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import shutil
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from autotune.backends import Artifact, Program, get
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.compilers import Compilers
from autotune.sites.messages import (
    OK,
    CompileRequest,
    Ending,
    FirstCall,
    MeasureReply,
    MeasureRequest,
    Settings,
    Verdict,
)
from autotune.sites.processes import Family, first_to_go, kill, out_of_memory, signal_name, spawn
from autotune.sites.runner import REFUSED_MEMORY, Load, serve
from autotune.sites.sampling import Samples, sample
from autotune.sites.wire import receive, send, wait

_LARGEST_REPLY = 1 << 16
_SAMPLES_AT_ONCE = 4096  # MAX_SAMPLES of runner.c
_SWEEP_BYTES = 96 << 20  # several times the largest cache


class _Ended(Exception):
    """The candidate cannot go on; carries how it ended."""

    def __init__(self, status: Status, message: str = "") -> None:
        super().__init__(message)
        self.ending = Ending(status, message)


@dataclass
class _Candidate:
    """A process that runs a candidate; commanded over its own socket."""

    pid: int
    sock: socket.socket
    reaped: bool = False


class Keeper:
    """The owner of all processes of one tuning run; see the module's docstring.

    Args:
        control: socket to the tuner, for compiles.
        stage: socket to the tuner, for the one candidate that is measured.
        settings: limits, tensors, runner and folder.
        load: loads a candidate; used if the settings name no runner.
    """

    def __init__(self, control: socket.socket, stage: socket.socket, settings: Settings, load: Load) -> None:
        self._control, self._stage, self._settings, self._load = control, stage, settings, load
        self._limits, self._compilers, self._family = settings.limits, Compilers(settings), Family()
        self._errno_at_death = memoryview(mmap.mmap(settings.segment, mmap.PAGESIZE))[:4].cast("i")
        self._log = os.memfd_create("log")
        # The file is emptied between candidates, which share its offset: without O_APPEND it would get holes.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._scratch = Path(settings.folder) / "scratch"  # the current directory of all that we start
        self._scratch.mkdir()
        os.chdir(self._scratch)
        self._alarm, self._wakeup = socket.socketpair()
        for end in (self._alarm, self._wakeup):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        with first_to_go():
            self._runner, self._runner_pid = self._start_runner()

    def serve(self) -> None:
        """Compile and measure until the tuner is gone; then kill and remove all that is left."""
        try:
            while True:
                self._turn()
        except (EOFError, ConnectionError):
            pass  # the tuner closed, or died
        finally:
            parts = self._compilers.abandon()
            self._family.kill_all_but(())
            for part in parts:
                part.unlink(missing_ok=True)
            folder = Path(self._settings.folder)
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: the tuner's other keeper still uses it
                folder.parent.rmdir()

    def _turn(self) -> None:
        ready = wait([self._control, self._stage, self._alarm], self._compilers.patience_s)
        if self._alarm in ready:
            self._alarm.recv(4096)
        self._tend_compilers(ready)
        if self._stage in ready:
            self._measure(receive(self._stage, MeasureRequest))

    def _tend_compilers(self, ready: list[socket.socket], *kept: int) -> None:
        """Take new compilations and report ended ones; then kill all other processes, except those kept."""
        if self._control in ready:
            self._compilers.add(receive(self._control, CompileRequest))
        if ended := self._compilers.turn():
            self._kill_strays(*kept)
        for each in ended:
            send(self._control, each)

    def _kill_strays(self, *kept: int) -> None:
        self._family.kill_all_but((self._runner_pid, *kept, *self._compilers.pids))

    # -- the runner, which forks candidates

    def _start_runner(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        settings, limits = self._settings, self._limits
        with theirs:
            if not settings.runner:
                pid = os.fork()
                if pid == 0:
                    self._become_runner(theirs)
                return ours, pid
            descriptors = theirs.fileno(), settings.segment
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            numbers = [*descriptors, settings.size, limits.memory_bytes, limits.output_bytes]
            numbers += [len(settings.tensors), *settings.tensors]
            numbers += itertools.chain.from_iterable(settings.protected)
            words = [*settings.runner, *map(str, numbers)]
            streams = [(os.POSIX_SPAWN_DUP2, self._log, 1), (os.POSIX_SPAWN_DUP2, self._log, 2)]
            return ours, spawn(words, os.environ, streams)

    def _become_runner(self, sock: socket.socket) -> NoReturn:
        signal.set_wakeup_fd(-1)
        for other in (self._control, self._stage, self._alarm, self._wakeup):
            other.close()
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        serve(sock, self._settings, self._load)

    def _start_candidate(self, request: MeasureRequest) -> _Candidate:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            text = f"{request.object}\0{request.entry}\0".encode()
            socket.send_fds(self._runner, [text], [theirs.fileno()])
        answer = self._runner.recv(4)
        if not answer:
            raise EOFError
        return _Candidate(struct.unpack("=i", answer)[0], ours)

    # -- measuring

    def _measure(self, request: MeasureRequest) -> None:
        self._errno_at_death[0] = 0
        os.ftruncate(self._log, 0)
        candidate = self._start_candidate(request)
        ending, taken = OK, Samples([], 1)
        try:
            self._call_once(candidate)
            taken = self._time(candidate, request.timing)
        except _Ended as stop:
            ending = stop.ending
        self._remove(candidate)
        log = os.pread(self._log, self._limits.output_bytes, 0).decode(errors="replace")
        send(self._stage, MeasureReply(ending, log, tuple(taken.nanoseconds), taken.calls))

    def _call_once(self, candidate: _Candidate) -> None:
        """Call the candidate once, and have the tuner check the outputs.

        Raises:
            _Ended: it did not return, or the outputs are wrong.
        """
        try:
            self._run(candidate, 1, 1, False, self._limits.run_s)
        except _Ended:
            send(self._stage, FirstCall(returned=False))
            raise
        send(self._stage, FirstCall(returned=True))
        if not receive(self._stage, Verdict).correct:
            raise _Ended(Status.WRONG_OUTPUT)

    def _time(self, candidate: _Candidate, timing: Timing) -> Samples:
        """Time the candidate while all compilers are stopped.

        Raises:
            _Ended: it did not return.
        """
        limit_s = self._limits.run_s + timing.max_s + timing.warmup_s
        with self._compilers.held():
            return sample(
                lambda calls, samples, cold: self._run(candidate, calls, samples, cold, limit_s), timing
            )

    def _run(self, candidate: _Candidate, calls: int, samples: int, cold: bool, limit_s: float) -> list[int]:
        samples = min(samples, _SAMPLES_AT_ONCE)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: `_receive` says how
            candidate.sock.send(struct.pack("=3q", calls, samples, _SWEEP_BYTES if cold else 0))
        reply = self._receive(candidate, limit_s)
        if len(reply) == 8 * (1 + samples):
            code, *nanoseconds = struct.unpack(f"={1 + samples}q", reply)
            if code == 0 and min(nanoseconds) >= 0:
                return nanoseconds
        (code,) = struct.unpack_from("=q", reply.ljust(8, b"\xff"))
        if code == REFUSED_MEMORY:
            raise self._out_of_memory()
        raise _Ended(Status.ERROR, reply[8:].decode(errors="replace") or "sent a reply that is no result")

    def _receive(self, candidate: _Candidate, limit_s: float) -> bytes:
        """Return the candidate's next reply.

        Raises:
            _Ended: it ended instead, or did not reply in time.
        """
        deadline = time.monotonic() + limit_s
        sources = [candidate.sock, self._alarm, self._control]
        while (left_s := deadline - time.monotonic()) > 0:
            patience_s = self._compilers.patience_s
            ready = wait(sources, left_s if patience_s is None else min(left_s, patience_s))
            self._tend_compilers(ready, candidate.pid)
            if candidate.sock in ready:
                with contextlib.suppress(ConnectionResetError):
                    if reply := candidate.sock.recv(_LARGEST_REPLY):
                        return reply
                sources.remove(candidate.sock)  # closed: if it died, waitpid says so soon
            if self._alarm in ready:
                self._alarm.recv(4096)
            pid, status = os.waitpid(candidate.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                candidate.reaped = not os.WIFSTOPPED(status)
                raise self._ended(status)
        raise _Ended(Status.TIMEOUT, f"did not return within {limit_s:g} s")

    def _ended(self, status: int) -> _Ended:
        if os.WIFSTOPPED(status):
            return _Ended(Status.CRASH, f"stopped itself with {signal_name(os.WSTOPSIG(status))}")
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return _Ended(Status.ERROR, f"ended the process with exit code {code} before it returned")
        number = os.WTERMSIG(status)
        if number == signal.SIGXFSZ:
            return _Ended(Status.ERROR, f"wrote more than {self._limits.output_bytes} bytes of output")
        if number == signal.SIGKILL:  # the keeper never does so here: the kernel did, out of memory
            return _Ended(Status.OUT_OF_MEMORY, "killed by the system, which ran out of memory")
        if self._errno_at_death[0] == errno.ENOMEM:
            return self._out_of_memory()
        return _Ended(Status.CRASH, f"killed by {signal_name(number)}")

    def _out_of_memory(self) -> _Ended:
        ending = out_of_memory(self._limits.memory_bytes)
        return _Ended(ending.status, ending.message)

    def _remove(self, candidate: _Candidate) -> None:
        """Kill the candidate with all that it started; remove the files that it left."""
        if not candidate.reaped:
            kill(candidate.pid)
            os.waitpid(candidate.pid, 0)
        candidate.sock.close()
        self._kill_strays()
        for name in os.listdir(self._scratch):  # noqa: PTH208  faster, and usually empty
            left = self._scratch / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def main() -> None:
    """Serve the tuner; its sockets are the descriptors in the arguments."""
    control = socket.socket(fileno=int(sys.argv[1]))
    stage = socket.socket(fileno=int(sys.argv[2]))
    settings = receive(control, Settings)
    backend = get(settings.backend)

    def load(path: str, entry: str, addresses: list[int]) -> Program:
        artifact = Artifact(backend.name, entry, (path,), settings.inputs, settings.outputs)
        return backend.load(artifact, addresses)

    Keeper(control, stage, settings, load).serve()
