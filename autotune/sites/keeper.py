"""The process that starts every compiler and every candidate, watches their limits, and leaves none behind.

`workers.py` runs it as a program of its own. It never calls a candidate itself, so nothing that a candidate
does to its memory reaches it; it is the subreaper of all that they start, so nothing escapes it; and when its
socket to the tuner closes, for whatever reason, it kills them all and ends.
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
from autotune.sites.compilers import Compilers
from autotune.sites.processes import Family, ending, first_to_go, kill, out_of_memory, signal_name, spawn
from autotune.sites.runner import REFUSED_MEMORY, Load, serve
from autotune.sites.sampling import sample
from autotune.sites.wire import Record, receive, send, wait

_LARGEST_REPLY = 1 << 16
_SAMPLES_AT_ONCE = 4096  # MAX_SAMPLES of runner.c
_SWEEP_BYTES = 96 << 20  # several times the largest cache


class _Ended(Exception):
    """The candidate cannot go on; carries the record that says how it ended."""

    def __init__(self, record: Record) -> None:
        super().__init__(record["message"])
        self.record = record


@dataclass
class _Candidate:
    """A process that runs a candidate; commanded over its own socket."""

    pid: int
    sock: socket.socket
    buried: bool = False


class Keeper:
    """Owner of all processes of one tuning run; see the module's docstring.

    Args:
        control: socket to the tuner, for compiles.
        stage: socket to the tuner, for the one candidate that is measured.
        settings: limits, tensors, runner and folder, as `workers.py` writes them.
        load: how candidates are loaded where the settings name no runner.
    """

    def __init__(self, control: socket.socket, stage: socket.socket, settings: Record, load: Load) -> None:
        self._control, self._stage, self._settings, self._load = control, stage, settings, load
        self._limits, self._compilers, self._family = settings["limits"], Compilers(settings), Family()
        self._errno_at_death = memoryview(mmap.mmap(settings["segment"], mmap.PAGESIZE))[:4].cast("i")
        self._log = os.memfd_create("log")
        # Emptied between candidates, which share its offset: without this they would leave holes.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._scratch = Path(settings["folder"]) / "scratch"  # where all that we start finds itself
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
        """Compile and measure as asked until the tuner is gone; then leave nothing."""
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
            folder = Path(self._settings["folder"])
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # the other keeper of this tuner still needs it
                folder.parent.rmdir()

    def _turn(self) -> None:
        ready = wait([self._control, self._stage, self._alarm], self._compilers.patience_s)
        if self._alarm in ready:
            self._alarm.recv(4096)
        self._tend_compilers(ready)
        if self._stage in ready:
            self._measure(receive(self._stage))

    def _tend_compilers(self, ready: list[socket.socket], *kept: int) -> None:
        """Take what is to be compiled, and tell what has been; our other children go, but for those kept."""
        if self._control in ready:
            self._compilers.add(receive(self._control))
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
            if not settings["runner"]:
                pid = os.fork()
                if pid == 0:
                    self._become_runner(theirs)
                return ours, pid
            descriptors = theirs.fileno(), settings["segment"]
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            numbers = [*descriptors, settings["size"], limits["memory_bytes"], limits["output_bytes"]]
            numbers += [len(settings["tensors"]), *settings["tensors"]]
            numbers += itertools.chain.from_iterable(settings["protected"])
            words = [*settings["runner"], *map(str, numbers)]
            streams = [(os.POSIX_SPAWN_DUP2, self._log, 1), (os.POSIX_SPAWN_DUP2, self._log, 2)]
            return ours, spawn(words, os.environ, streams)

    def _become_runner(self, sock: socket.socket) -> NoReturn:
        signal.set_wakeup_fd(-1)
        for other in (self._control, self._stage, self._alarm, self._wakeup):
            other.close()
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        serve(sock, self._settings, self._load)

    def _start_candidate(self, request: Record) -> _Candidate:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            text = f"{request['object']}\0{request['entry']}\0".encode()
            socket.send_fds(self._runner, [text], [theirs.fileno()])
        answer = self._runner.recv(4)
        if not answer:
            raise EOFError
        return _Candidate(struct.unpack("=i", answer)[0], ours)

    # -- measuring

    def _measure(self, request: Record) -> None:
        self._errno_at_death[0] = 0
        os.ftruncate(self._log, 0)
        candidate = self._start_candidate(request)
        try:
            ended = self._converse(candidate, Timing(**request["timing"]))
        except _Ended as stop:
            ended = stop.record
        self._bury(candidate)
        log = os.pread(self._log, self._limits["output_bytes"], 0).decode(errors="replace")
        send(self._stage, {"log": log, **ended})

    def _converse(self, candidate: _Candidate, timing: Timing) -> Record:
        """Have the candidate called once, the outputs checked by the tuner, and then the candidate timed.

        Only for the last do the compilers stand still.
        """
        self._run(candidate, 1, 1, False, self._limits["run_s"])
        send(self._stage, {"called": True})
        if not receive(self._stage)["go"]:
            return ending("wrong_output")
        limit_s = self._limits["run_s"] + timing.max_s + timing.warmup_s
        with self._compilers.held():
            taken = sample(
                lambda calls, samples, cold: self._run(candidate, calls, samples, cold, limit_s), timing
            )
        return {**ending("ok"), "samples": taken.nanoseconds, "calls": taken.calls}

    def _run(self, candidate: _Candidate, calls: int, samples: int, cold: bool, limit_s: float) -> list[int]:
        samples = min(samples, _SAMPLES_AT_ONCE)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: we hear of that next
            candidate.sock.send(struct.pack("=3q", calls, samples, _SWEEP_BYTES if cold else 0))
        reply = self._hear(candidate, limit_s)
        if len(reply) == 8 * (1 + samples):
            code, *nanoseconds = struct.unpack(f"={1 + samples}q", reply)
            if code == 0 and min(nanoseconds) >= 0:
                return nanoseconds
        (code,) = struct.unpack_from("=q", reply.ljust(8, b"\xff"))
        if code == REFUSED_MEMORY:
            raise _Ended(out_of_memory(self._limits["memory_bytes"]))
        raise _Ended(
            ending("error", reply[8:].decode(errors="replace") or "sent something that is no result")
        )

    def _hear(self, candidate: _Candidate, limit_s: float) -> bytes:
        """Return what the candidate says next.

        Raises:
            _Ended: it ended instead, or did neither in time.
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
                sources.remove(candidate.sock)  # closed: its death, if it died, is on its way
            if self._alarm in ready:
                self._alarm.recv(4096)
            pid, status = os.waitpid(candidate.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                candidate.buried = not os.WIFSTOPPED(status)
                raise _Ended(self._how(status))
        raise _Ended(ending("timeout", f"did not return within {limit_s:g} s"))

    def _how(self, status: int) -> Record:
        memory_bytes, output_bytes = self._limits["memory_bytes"], self._limits["output_bytes"]
        if os.WIFSTOPPED(status):
            return ending("crash", f"stopped itself with {signal_name(os.WSTOPSIG(status))}")
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return ending("error", f"ended the process with exit code {code} before it returned")
        number = os.WTERMSIG(status)
        if number == signal.SIGXFSZ:
            return ending("error", f"wrote more than {output_bytes} bytes of output")
        if number == signal.SIGKILL:  # not by us: by the kernel, out of memory
            return ending("out_of_memory", "killed by the system, which ran out of memory")
        if self._errno_at_death[0] == errno.ENOMEM:
            return out_of_memory(memory_bytes)
        return ending("crash", f"killed by {signal_name(number)}")

    def _bury(self, candidate: _Candidate) -> None:
        """Kill the candidate with all that it started; remove the files that it left."""
        if not candidate.buried:
            kill(candidate.pid)
            os.waitpid(candidate.pid, 0)
        candidate.sock.close()
        self._kill_strays()
        for name in os.listdir(self._scratch):  # noqa: PTH208  most often there is nothing
            left = self._scratch / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def main() -> None:
    """Serve the tuner whose sockets we were started with."""
    control = socket.socket(fileno=int(sys.argv[1]))
    stage = socket.socket(fileno=int(sys.argv[2]))
    settings = receive(control)
    backend = get(settings["backend"])

    def load(path: str, entry: str, addresses: list[int]) -> Program:
        record = {"backend": backend.name, "files": [path], "entry": entry, **settings["specs"]}
        return backend.load(Artifact.from_json(record), addresses)

    Keeper(control, stage, settings, load).serve()
