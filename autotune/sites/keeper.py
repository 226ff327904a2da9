"""The process that starts every compiler and candidate, enforces their limits, and kills them at the end.

`local.py` runs it as a program of its own. It never calls a candidate itself, so a candidate cannot corrupt
its memory. It is the subreaper of all that they start, so no process escapes it. When its socket to the tuner
closes, for whatever reason, it kills them all and ends.

A candidate has a process of its own, or runs in that of its device, as its backend says. Both obey the same
commands in the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
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

from autotune.backends import Binding
from autotune.backends.travel import import_first, unpack
from autotune.model.errors import UnavailableError
from autotune.model.timing import SWEEP_BYTES
from autotune.model.trial import Status
from autotune.sites.compilers import Compilers
from autotune.sites.endings import died, refused
from autotune.sites.messages import (
    CALL,
    COMMAND,
    HEADER,
    HEADER_BYTES,
    LARGEST_MESSAGE,
    LOAD,
    OK,
    OPEN,
    UNLOAD,
    Call,
    Called,
    CompileRequest,
    Ending,
    Load,
    Settings,
    Unload,
    Unloaded,
    Unusable,
)
from autotune.sites.processes import Family, children_of, first_to_go, kill, oom_kills, spawn
from autotune.sites.runner import Body, Place, artifact_at, be_candidate, serve
from autotune.sites.wire import receive, send, wait


class _Ended(Exception):
    """The candidate cannot go on; carries how it ended."""

    def __init__(self, ending: Ending, lost: bool = False) -> None:
        super().__init__(ending.message)
        self.called = Called(ending, lost=lost)


@dataclass
class _Process:
    """A process that runs a candidate, or those of a device; commanded over its own socket.

    Args:
        pid: its id.
        sock: takes commands, and answers if one cannot be done.
        schedstat: descriptor of its file in /proc.
        commands: that the candidate got.
        stopped: it stands still until it is continued.
        reaped: it is dead.
        stuck: it did not return, or cannot be trusted: it must be killed.
        children: that a device's runtime started.
    """

    pid: int
    sock: socket.socket
    schedstat: int
    commands: int = 0
    stopped: bool = False
    reaped: bool = False
    stuck: bool = False
    children: frozenset[int] = frozenset()

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
        body: what a fork of the runner does; used if the settings name no runner.
    """

    def __init__(self, control: socket.socket, stage: socket.socket, settings: Settings, body: Body) -> None:
        self._control, self._stage, self._settings, self._body = control, stage, settings, body
        self._device: _Process | None = None
        self._lost = ""  # why the device is used no more
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
        device = (self._device.pid, *self._device.children) if self._device else ()
        self._family.kill_all_but({self._runner_pid, *kept, *device, *self._compilers.pids})

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
            for places in (settings.tensors, settings.restored):
                numbers += [len(places), *itertools.chain.from_iterable(places)]
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
        serve(sock, self._settings, self._body)

    def _fork(self, request: Load) -> _Process:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            socket.send_fds(self._runner, [request.text()], [theirs.fileno()])
        answer = self._runner.recv(4)
        if not answer:
            raise EOFError
        (pid,) = struct.unpack("=i", answer)
        try:
            schedstat = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)  # not in every container
        except OSError:
            schedstat = -1
        return _Process(pid, ours, schedstat)

    # -- the candidate

    def _serve_candidate(self, request: Load) -> None:
        """Run one candidate as the tuner asks, until it is to be unloaded."""
        HEADER.pack_into(self._header, 0, 0, 0, 0)
        os.ftruncate(self._log, 0)
        self._oom_kills = oom_kills()
        process = self._process_for(request)
        while isinstance(order := self._next_order(process), Call):
            hold = order.timed and not self._settings.own_clock
            with self._compilers.held() if hold else contextlib.nullcontext():
                called = self._call(process, order)
            send(self._stage, called)
        if process is not None:
            process.stuck |= order.distrusted
            self._unload(process)
        self._clean()
        log = os.pread(self._log, self._limits.output_bytes, 0).decode(errors="replace")
        send(self._stage, Unloaded(log))

    def _process_for(self, request: Load) -> _Process | None:
        """Return the process that runs a candidate; None if its device cannot be opened."""
        if not self._settings.device:
            return self._fork(request)
        while device := self._device or self._open_device():
            device.commands = 0
            try:
                device.sock.send(LOAD + request.text())
            except (BrokenPipeError, ConnectionResetError):  # it was killed since the last candidate
                self._end(device)
                self._device = None
            else:
                break
        return device

    def _open_device(self) -> _Process | None:
        if self._lost:
            return None
        device = self._fork(Load("", ""))
        try:
            self._command(device, OPEN, self._limits.compile_s)
        except _Ended as stop:
            self._lost = f"cannot be opened: {stop}"
            self._end(device)
            return None
        device.children = frozenset(children_of(device.pid)) | frozenset(self._family.children())
        HEADER.pack_into(self._header, 0, 0, 0, 0)
        self._device = device
        return device

    def _next_order(self, process: _Process | None) -> Call | Unload:
        sources = [self._stage, self._alarm, self._control]
        kept = [process.pid] if process else []
        while True:
            ready = wait(sources, self._compilers.patience_s)
            if self._alarm in ready:
                self._alarm.recv(4096)
            self._tend_compilers(ready, *kept)
            if self._stage in ready:
                return receive(self._stage, Call, Unload)  # type: ignore[return-value]

    def _call(self, process: _Process | None, call: Call) -> Called:
        """Have the candidate do one command; it stops itself when it has."""
        if process is None:
            return Called(Ending(Status.ERROR, self._lost), lost=True)
        ran_ns, waited_ns = process.scheduled()
        command = COMMAND.pack(
            call.spares, call.warm, call.calls, call.samples, SWEEP_BYTES if call.cold else 0
        )
        try:
            self._command(process, CALL + command if process is self._device else command, call.limit_s)
        except _Ended as stop:
            self._lost = str(stop) if stop.called.lost else ""
            return stop.called
        samples = struct.unpack_from(f"={call.samples}q", self._header, HEADER.size)
        if any(nanoseconds < 0 for nanoseconds in samples):
            return Called(Ending(Status.ERROR, "its clock ran backwards"))
        ran_after_ns, waited_after_ns = process.scheduled()
        if ran_after_ns < 0 or self._settings.own_clock:
            return Called(OK, samples)
        return Called(OK, samples, ran_after_ns - ran_ns, waited_after_ns - waited_ns)

    def _command(self, process: _Process, message: bytes, limit_s: float) -> None:
        """Send a command, and return when it is done and the process stands still.

        Raises:
            _Ended: it ended instead, or refused, or did not return in time.
        """
        process.commands += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: `_await` says how
            process.sock.send(message)
        if process.stopped:  # one that refused a command runs: it could stop itself before it is continued
            process.stopped = False
            os.kill(process.pid, signal.SIGCONT)
        self._await(process, limit_s)

    def _await(self, process: _Process, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        sources = [process.sock, self._alarm, self._control]
        while (left_s := deadline - time.monotonic()) > 0:
            patience_s = self._compilers.patience_s
            ready = wait(sources, left_s if patience_s is None else min(left_s, patience_s))
            self._tend_compilers(ready, process.pid)
            if process.sock in ready:
                self._receive_answer(process)
                sources.remove(process.sock)  # closed: if it died, waitpid says so soon
            if self._alarm in ready:
                self._alarm.recv(4096)
            pid, status, usage = os.wait4(process.pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                continue
            process.reaped = not os.WIFSTOPPED(status)
            _, commands, _ = HEADER.unpack_from(self._header)
            if process.reaped or os.WSTOPSIG(status) != signal.SIGSTOP or commands != process.commands:
                process.stuck, header = True, self._header[: HEADER.size]
                self._receive_answer(process)  # it may have answered since the sockets were looked at
                oom_killed = oom_kills() > self._oom_kills
                raise _Ended(died(status, usage, self._settings, header, oom_killed=oom_killed))
            process.stopped = True
            return
        process.stuck = True
        raise _Ended(Ending(Status.TIMEOUT, f"did not return within {limit_s:g} s"))

    def _receive_answer(self, process: _Process) -> None:
        """Raise what a process answers that cannot do a command; do nothing if it has not answered."""
        with contextlib.suppress(ConnectionResetError, BlockingIOError):
            if reply := process.sock.recv(LARGEST_MESSAGE):
                raise _Ended(*refused(reply, self._limits))

    def _unload(self, process: _Process) -> None:
        """End a candidate's process; one of a device only forgets the candidate, unless it cannot."""
        if process is self._device and not process.stuck and not self._lost:
            with contextlib.suppress(_Ended):
                self._command(process, UNLOAD, self._limits.run_s)
                for child in children_of(process.pid) - process.children:
                    kill(child)
                return
        self._end(process)
        self._device = None

    def _end(self, process: _Process) -> None:
        if not process.reaped:
            kill(process.pid)
            os.waitpid(process.pid, 0)
        process.sock.close()
        with contextlib.suppress(OSError):
            os.close(process.schedstat)

    def _clean(self) -> None:
        """Kill what the candidate started; remove the files that it left."""
        self._kill_strays()
        for name in os.listdir(self._scratch):  # noqa: PTH208  faster, and usually empty
            left = self._scratch / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _body(settings: Settings) -> Body:
    """Return what a fork of the runner does.

    Raises:
        UnavailableError: the backend cannot be imported here.
    """
    backend = unpack(settings.backend)
    if settings.device:
        from autotune.sites.device_process import be_device  # not for every keeper

        return functools.partial(be_device, backend)

    def load(path: str, entry: str) -> Binding:
        return backend.load(artifact_at(path, entry, backend.name, settings))

    return functools.partial(be_candidate, load)


def _not_forked(_place: Place, path: str, _entry: str) -> None:
    raise UnavailableError(f"{path}: the backend's own program loads candidates")


def main() -> None:
    """Serve the tuner; its sockets are the descriptors in the arguments."""
    control = socket.socket(fileno=int(sys.argv[1]))
    stage = socket.socket(fileno=int(sys.argv[2]))
    settings = receive(control, Settings)
    try:
        import_first(settings.imports)
        body = _not_forked if settings.runner else _body(settings)
    except UnavailableError as fault:
        send(control, Unusable(str(fault)))
        return
    Keeper(control, stage, settings, body).serve()
