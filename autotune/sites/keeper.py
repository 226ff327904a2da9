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
import resource
import shutil
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from autotune.backends import Artifact, Binding
from autotune.backends.travel import import_first, unpack
from autotune.model.errors import UnavailableError
from autotune.model.trial import Status
from autotune.sites.compilers import Compilers
from autotune.sites.messages import (
    HEADER,
    HEADER_BYTES,
    OK,
    Call,
    Called,
    CompileRequest,
    Ending,
    Load,
    Message,
    Settings,
    Unload,
    Unloaded,
    Unusable,
)
from autotune.sites.processes import (
    Family,
    filled,
    first_to_go,
    kill,
    oom_kills,
    out_of_memory,
    signal_name,
    spawn,
)
from autotune.sites.runner import REFUSED_MEMORY, Loader, serve
from autotune.sites.wire import receive, send, wait

_LARGEST_REPLY = 1 << 16
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
    schedstat: int
    commands: int = 0
    reaped: bool = False

    def scheduled(self) -> tuple[int, int]:
        """Return the nanoseconds that its main thread has run and has waited for a core; -1 if unknown."""
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _slices = os.pread(self.schedstat, 100, 0).split()
            return int(ran), int(waited)
        return -1, -1


class Keeper:
    """The owner of all processes of one tuning run; see the module's docstring.

    Args:
        control: socket to the tuner, for compiles.
        stage: socket to the tuner, for the one candidate that is measured.
        settings: limits, tensors, runner and folder.
        load: loads a candidate; used if the settings name no runner.
    """

    def __init__(
        self, control: socket.socket, stage: socket.socket, settings: Settings, load: Loader
    ) -> None:
        self._control, self._stage, self._settings, self._load = control, stage, settings, load
        self._limits, self._compilers, self._family = settings.limits, Compilers(settings), Family()
        self._header = mmap.mmap(settings.segment, HEADER_BYTES)
        self._oom_kills = 0
        self._log = os.memfd_create("log")
        # The file is emptied between candidates, which share its offset: without O_APPEND it would get holes.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._scratch = Path(settings.folder) / "scratch"  # the current directory of all that we start
        self._scratch.mkdir(exist_ok=True)  # of a keeper that was killed
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
                shutil.rmtree(part, ignore_errors=True)
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
            self._serve_candidate(receive(self._stage, Load))

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
                    ours.close()  # else it would not see that a killed keeper is gone
                    self._become_runner(theirs)
                return ours, pid
            descriptors = theirs.fileno(), settings.segment
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            numbers = [*descriptors, settings.size, limits.memory_bytes, limits.output_bytes]
            numbers += [len(settings.tensors), *itertools.chain.from_iterable(settings.tensors)]
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

    def _start_candidate(self, request: Load) -> _Candidate:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            text = f"{request.object}\0{request.entry}\0".encode()
            socket.send_fds(self._runner, [text], [theirs.fileno()])
        answer = self._runner.recv(4)
        if not answer:
            raise EOFError
        (pid,) = struct.unpack("=i", answer)
        try:
            schedstat = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)  # not in every container
        except OSError:
            schedstat = -1
        return _Candidate(pid, ours, schedstat)

    # -- the candidate

    def _serve_candidate(self, request: Load) -> None:
        """Run one candidate as the tuner asks, until it is to be unloaded."""
        HEADER.pack_into(self._header, 0, 0, 0, 0)
        os.ftruncate(self._log, 0)
        self._oom_kills = oom_kills()
        candidate = self._start_candidate(request)
        while isinstance(order := self._next_order(candidate), Call):
            with self._compilers.held() if order.timed else contextlib.nullcontext():
                called = self._call(candidate, order)
            send(self._stage, called)
        self._remove(candidate)
        log = os.pread(self._log, self._limits.output_bytes, 0).decode(errors="replace")
        send(self._stage, Unloaded(log))

    def _next_order(self, candidate: _Candidate) -> Message:
        sources = [self._stage, self._alarm, self._control]
        while True:
            ready = wait(sources, self._compilers.patience_s)
            if self._alarm in ready:
                self._alarm.recv(4096)
            self._tend_compilers(ready, candidate.pid)
            if self._stage in ready:
                return receive(self._stage, Call, Unload)

    def _call(self, candidate: _Candidate, call: Call) -> Called:
        """Have the candidate do one command; it stops itself when it has."""
        ran_ns, waited_ns = candidate.scheduled()
        candidate.commands += 1
        sweep = _SWEEP_BYTES if call.cold else 0
        command = struct.pack("=5q", call.spares, call.warm, call.calls, call.samples, sweep)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: `_await` says how
            candidate.sock.send(command)
        if candidate.commands > 1:
            os.kill(candidate.pid, signal.SIGCONT)
        try:
            self._await(candidate, call.limit_s)
        except _Ended as stop:
            return Called(stop.ending)
        samples = struct.unpack_from(f"={call.samples}q", self._header, HEADER.size)
        if any(nanoseconds < 0 for nanoseconds in samples):
            return Called(Ending(Status.ERROR, "its clock ran backwards"))
        ran_after_ns, waited_after_ns = candidate.scheduled()
        if ran_after_ns < 0:
            return Called(OK, samples)
        return Called(OK, samples, ran_after_ns - ran_ns, waited_after_ns - waited_ns)

    def _await(self, candidate: _Candidate, limit_s: float) -> None:
        """Return when the candidate has done its command and stands still.

        Raises:
            _Ended: it ended instead, or did not return in time.
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
                        raise self._refused(reply)
                sources.remove(candidate.sock)  # closed: if it died, waitpid says so soon
            if self._alarm in ready:
                self._alarm.recv(4096)
            pid, status, usage = os.wait4(candidate.pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                continue
            if not os.WIFSTOPPED(status):
                candidate.reaped = True
                raise self._ended(status, usage)
            _, commands, _ = HEADER.unpack_from(self._header)
            if os.WSTOPSIG(status) != signal.SIGSTOP or commands != candidate.commands:
                raise self._ended(status, usage)
            return
        raise _Ended(Status.TIMEOUT, f"did not return within {limit_s:g} s")

    def _refused(self, reply: bytes) -> _Ended:
        """Return how a candidate ended that could not be loaded, or raised an exception."""
        (code,) = struct.unpack_from("=q", reply.ljust(8, b"\xff"))
        if code == REFUSED_MEMORY:
            return self._out_of_memory()
        return _Ended(Status.ERROR, reply[8:].decode(errors="replace") or "sent a reply that is no result")

    def _ended(self, status: int, usage: resource.struct_rusage) -> _Ended:
        if os.WIFSTOPPED(status):
            return _Ended(Status.CRASH, f"stopped itself with {signal_name(os.WSTOPSIG(status))}")
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return _Ended(Status.ERROR, f"ended the process with exit code {code} before it returned")
        number = os.WTERMSIG(status)
        if number == signal.SIGXFSZ:
            return _Ended(Status.ERROR, f"wrote more than {self._limits.output_bytes} bytes of output")
        if number == signal.SIGKILL and oom_kills() > self._oom_kills:
            return _Ended(Status.OUT_OF_MEMORY, "killed by the system, which ran out of memory")
        failed = HEADER.unpack_from(self._header)[0] == errno.ENOMEM
        if failed and filled(usage, self._limits.memory_bytes):
            return self._out_of_memory()
        hint = "; an allocation may have failed before (errno is ENOMEM)" if failed else ""
        return _Ended(Status.CRASH, f"killed by {signal_name(number)}{hint}")

    def _out_of_memory(self) -> _Ended:
        ending = out_of_memory(self._limits.memory_bytes)
        return _Ended(ending.status, ending.message)

    def _remove(self, candidate: _Candidate) -> None:
        """Kill the candidate with all that it started; remove the files that it left."""
        if not candidate.reaped:
            kill(candidate.pid)
            os.waitpid(candidate.pid, 0)
        candidate.sock.close()
        with contextlib.suppress(OSError):
            os.close(candidate.schedstat)
        self._kill_strays()
        for name in os.listdir(self._scratch):  # noqa: PTH208  faster, and usually empty
            left = self._scratch / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _not_here(path: str, _entry: str) -> Binding:
    raise UnavailableError(f"{path}: the backend's own program loads candidates")


def main() -> None:
    """Serve the tuner; its sockets are the descriptors in the arguments."""
    control = socket.socket(fileno=int(sys.argv[1]))
    stage = socket.socket(fileno=int(sys.argv[2]))
    settings = receive(control, Settings)
    if settings.runner:
        Keeper(control, stage, settings, _not_here).serve()
        return
    try:
        import_first(settings.imports)
        backend = unpack(settings.backend)
    except UnavailableError as fault:
        send(control, Unusable(str(fault)))
        return

    def load(path: str, entry: str) -> Binding:
        folder, _, main = path.rpartition("/")
        return backend.load(Artifact(backend.name, entry, folder, main, settings.inputs, settings.outputs))

    Keeper(control, stage, settings, load).serve()
