"""The process that starts every compiler and every candidate, watches their limits, and leaves none behind.

`workers.py` runs it as a program of its own: it is forked once for each candidate, and a small process forks
fast. It never calls a candidate itself, so nothing that a candidate does to its memory reaches it; it is the
subreaper of all that they start (prctl(2)), so nothing escapes it; and when its socket to the tuner closes,
for whatever reason, it kills them all and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.backends import Artifact, Program, get
from autotune.measure import Timing, sample

Record = dict[str, Any]
Load = Callable[[Record, list[int]], Program]
"""(artifact as a record, addresses of the tensors) -> the program to time."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36  # linux/prctl.h
_LARGEST_MESSAGE = 1 << 18
_SWEEP_BYTES = 96 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def send(sock: socket.socket, record: Record) -> None:
    """Send one record: its length in 4 bytes, then JSON."""
    text = json.dumps(record).encode()
    sock.sendall(struct.pack("!I", len(text)) + text)


def receive(sock: socket.socket) -> Record:
    """Receive one record from a trusted peer.

    Raises:
        EOFError: the peer is gone.
    """
    (length,) = struct.unpack("!I", _exactly(sock, 4))
    record: Record = json.loads(_exactly(sock, length))
    return record


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


@dataclass
class _Compile:
    """A compiler that is running."""

    number: int
    pid: int
    log: int
    started: float
    deadline: float


@dataclass
class _Candidate:
    """A forked process that waits for its artifact, or runs it."""

    pid: int
    sock: socket.socket
    log: int
    status: int | None = None
    usage: resource.struct_rusage | None = field(default=None, repr=False)


class Keeper:
    """Owner of all processes of one tuning run; see the module's docstring.

    Args:
        control: socket to the tuner for compiles; its end is our end.
        stage: socket to the tuner for the one candidate that is measured.
        settings: limits, timing, tensors and scratch folder, as `workers.py` writes them.
        load: how a candidate's process gets its program.
    """

    def __init__(self, control: socket.socket, stage: socket.socket, settings: Record, load: Load) -> None:
        self._control, self._stage, self._settings, self._load = control, stage, settings, load
        self._limits = settings["limits"]
        self._timing = Timing(**settings["timing"])
        self._waiting: list[Record] = []
        self._compiles: dict[int, _Compile] = {}
        self._spare: _Candidate | None = None
        self._segment = mmap.mmap(settings["segment"], settings["size"])
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._segment))
        self._errno = ctypes.c_int.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
        for offset, length, protection in settings["protected"]:
            _libc.mprotect(ctypes.c_void_p(self._base + offset), ctypes.c_size_t(length), protection)
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._alarm, wakeup = socket.socketpair()
        for end in (self._alarm, wakeup):
            end.setblocking(False)
        self._wakeup = wakeup
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # or each fork would copy the pages on which the collector writes

    def serve(self) -> None:
        """Compile and measure as asked until the tuner is gone; then leave nothing."""
        try:
            self._spare = self._fork()
            while True:
                self._turn()
        except (EOFError, ConnectionError):
            pass  # the tuner closed, or died
        finally:
            for pid in list(self._compiles):
                _kill(pid)
            if self._spare:
                _kill(self._spare.pid)
            self._compiles.clear()
            self._spare = None
            self._sweep_orphans()

    def _turn(self) -> None:
        deadlines = [job.deadline for job in self._compiles.values()]
        wait_s = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready, _, _ = select.select([self._control, self._stage, self._alarm], [], [], wait_s)
        if self._alarm in ready:
            self._alarm.recv(4096)
        if self._control in ready:
            self._waiting.append(receive(self._control))
        self._end_compiles()
        while self._waiting and len(self._compiles) < self._settings["compile_jobs"]:
            self._start_compile(self._waiting.pop(0))
        if self._stage in ready:
            self._measure(receive(self._stage))

    # -- compiling

    def _start_compile(self, request: Record) -> None:
        log = os.memfd_create("log")
        command = request["command"]
        streams = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        try:
            pid = os.posix_spawn(command[0], command, os.environ, file_actions=streams, setsid=True)
        except OSError as error:
            os.close(log)
            send(self._control, _failure(request["number"], "error", f"{command[0]}: {error.strerror}"))
            return
        limits, now = self._limits, time.monotonic()
        cap = max(limits["output_bytes"], 1 << 28)  # of the object as well as of the messages
        for which, value in (
            (resource.RLIMIT_AS, limits["memory_bytes"]),
            (resource.RLIMIT_FSIZE, cap),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, which, (value, value))
        self._compiles[pid] = _Compile(request["number"], pid, log, now, now + limits["compile_s"])

    def _end_compiles(self) -> None:
        for job in list(self._compiles.values()):
            overdue = time.monotonic() >= job.deadline
            if overdue:
                _kill(job.pid)
            pid, status, usage = os.wait4(job.pid, 0 if overdue else os.WNOHANG)
            if not pid:
                continue
            del self._compiles[job.pid]
            _kill_group(job.pid)
            self._sweep_orphans()
            log = _read_log(job.log, self._limits["output_bytes"])
            seconds = time.monotonic() - job.started
            record = _compile_ending(status, usage, overdue, self._limits)
            send(self._control, {"number": job.number, "log": log, "seconds": seconds, **record})

    @contextlib.contextmanager
    def _compilers_held(self) -> Iterator[None]:
        """Hold every compiler still, off its clock: a measurement has the machine to itself."""
        begin = time.monotonic()
        for pid in self._compiles:
            _kill_group(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for job in self._compiles.values():
                job.deadline += time.monotonic() - begin
                job.started += time.monotonic() - begin
                _kill_group(job.pid, signal.SIGCONT)

    # -- measuring

    def _fork(self) -> _Candidate:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        log = os.memfd_create("log")
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_candidate(theirs, log)
        theirs.close()
        ours.setblocking(False)
        return _Candidate(pid, ours, log)

    def _measure(self, request: Record) -> None:
        candidate = self._spare or self._fork()
        self._spare = None
        self._errno.value = 0
        with self._compilers_held():
            ending = self._converse(candidate, request)
            log = self._end(candidate)
        send(self._stage, {"log": log, **ending})
        self._spare = self._fork()

    def _converse(self, candidate: _Candidate, request: Record) -> Record:
        limit_s = self._limits["run_s"]
        _tell(candidate, request)
        said = self._hear(candidate, limit_s)
        if "called" not in said:
            return said
        send(self._stage, said)
        verdict = receive(self._stage)
        if not verdict["go"]:
            return {"status": "stopped"}
        _tell(candidate, verdict)
        return self._hear(candidate, limit_s + self._timing.max_s + self._timing.warmup_s)

    def _hear(self, candidate: _Candidate, limit_s: float) -> Record:
        """Wait for what the candidate says next, or for its end; what it says is looked at, never run."""
        deadline = time.monotonic() + limit_s
        sources = [candidate.sock, self._alarm]
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return {"status": "timeout", "message": f"did not return within {limit_s:g} s"}
            ready, _, _ = select.select(sources, [], [], left_s)
            if candidate.sock in ready:
                said = _listen(candidate.sock)
                if said is not None:
                    return said
                sources.remove(candidate.sock)  # closed: its death, if it died, is on its way
            if self._alarm in ready:
                self._alarm.recv(4096)
            pid, status, usage = os.wait4(candidate.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                if not os.WIFSTOPPED(status):
                    candidate.status = status
                return self._run_ending(status, usage)

    def _run_ending(self, status: int, usage: resource.struct_rusage) -> Record:
        limits = self._limits
        if os.WIFSTOPPED(status):
            return {"status": "crash", "message": f"stopped itself with {_signal_name(os.WSTOPSIG(status))}"}
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return {
                "status": "error",
                "message": f"ended the process with exit code {code} before it returned",
            }
        number = os.WTERMSIG(status)
        if number == signal.SIGXFSZ:
            return {"status": "error", "message": f"wrote more than {limits['output_bytes']} bytes of output"}
        if number == signal.SIGKILL:  # not by us: the kernel's, out of memory
            return {"status": "out_of_memory", "message": "killed by the system, which ran out of memory"}
        full = usage.ru_maxrss * 1024 >= 0.9 * limits["memory_bytes"]
        if full or self._errno.value == errno.ENOMEM:
            return _out_of_memory(limits)
        return {"status": "crash", "message": f"killed by {_signal_name(number)}"}

    def _end(self, candidate: _Candidate) -> str:
        """Kill the candidate with all that it started; return what it printed."""
        if candidate.status is None:
            _kill(candidate.pid)
            os.waitpid(candidate.pid, 0)
        else:
            _kill_group(candidate.pid)
        candidate.sock.close()
        self._sweep_orphans()
        scratch = Path(self._settings["scratch"])
        for left in scratch.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        return _read_log(candidate.log, self._limits["output_bytes"])

    def _sweep_orphans(self) -> None:
        """Kill whatever was started by a process that is gone: as subreaper we are its parent now."""
        ours = set(self._compiles)
        if self._spare:
            ours.add(self._spare.pid)
        while orphans := [pid for pid in _children() if pid not in ours]:
            for pid in orphans:
                _kill(pid)
                os.waitpid(pid, 0)

    # -- in the candidate's process

    def _become_candidate(self, sock: socket.socket, log: int) -> None:
        with _Exit(sock):
            _confine(log, self._limits, self._settings)
            for other in (self._control, self._stage, self._alarm, self._wakeup):
                other.close()
            request = json.loads(sock.recv(_LARGEST_MESSAGE))
            addresses = [self._base + offset for offset in self._settings["tensors"]]
            program = self._load(request["artifact"], addresses)
            _watch_errno(request["artifact"], self._errno)
            first_ns = program(1)
            _libc.fflush(None)
            sock.send(json.dumps({"called": first_ns}).encode())
            sock.recv(_LARGEST_MESSAGE)
            taken = sample(program, self._timing, _sweeper(self._timing))
            _libc.fflush(None)
            sock.send(json.dumps({"samples": taken.nanoseconds, "calls": taken.calls}).encode())


class _Exit:
    """End the process when the block ends; tell the keeper why where that was an exception.

    A context manager, since a candidate in Python may raise anything at all.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: types.TracebackType | None,
    ) -> None:
        """Report, flush, end."""
        if isinstance(error, SystemExit):
            os._exit(error.code if isinstance(error.code, int) else 1)
        if error is not None:
            traceback.print_exception(kind, error, error.__traceback__)
            status = "out_of_memory" if isinstance(error, MemoryError) else "error"
            text = f"{type(error).__name__}: {error}"[:1000]
            self._sock.send(json.dumps({"status": status, "message": text}).encode())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _confine(log: int, limits: Record, settings: Record) -> None:
    """Make this process one that can be killed with all its own, bounded, and without a trace on disk."""
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(
        _PR_SET_DUMPABLE, 0, 0, 0, 0
    )  # no core, also where cores go to a pipe and RLIMIT_CORE is not asked
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(settings["scratch"])
    room = limits["memory_bytes"] + settings["size"]
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["output_bytes"], limits["output_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.enable()


def _watch_errno(artifact: Record, where: ctypes.c_int) -> None:
    """Have a fatal signal leave errno where the keeper can read it; only C candidates bring the handler."""
    if artifact["backend"] == "c":
        ctypes.CDLL(artifact["files"][1]).autotune_watch(ctypes.byref(where))


def _sweeper(timing: Timing) -> Callable[[], None]:
    """Return what empties the caches: writing a buffer several times the largest of them."""
    if timing.caches == "warm":
        return lambda: None
    buffer = ctypes.create_string_buffer(_SWEEP_BYTES)

    def sweep() -> None:
        ctypes.memset(buffer, 1, _SWEEP_BYTES)

    return sweep


# -- endings


def _compile_ending(status: int, usage: resource.struct_rusage, overdue: bool, limits: Record) -> Record:
    if overdue:
        return {
            "status": "compile_timeout",
            "message": f"the compiler took more than {limits['compile_s']:g} s",
        }
    if status == 0:
        return {"status": "ok", "message": ""}
    if usage.ru_maxrss * 1024 >= 0.8 * limits["memory_bytes"]:
        return _out_of_memory(limits)
    if os.WIFSIGNALED(status):
        return {
            "status": "compile_error",
            "message": f"the compiler was killed by {_signal_name(os.WTERMSIG(status))}",
        }
    return {
        "status": "compile_error",
        "message": f"the compiler ended with exit code {os.WEXITSTATUS(status)}",
    }


def _out_of_memory(limits: Record) -> Record:
    return {
        "status": "out_of_memory",
        "message": f"needed more than {limits['memory_bytes'] / 2**20:g} MiB of memory",
    }


def _failure(number: int, status: str, message: str) -> Record:
    return {"number": number, "status": status, "message": message, "log": "", "seconds": 0.0}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- processes


def _kill(pid: int) -> None:
    """Kill a process that is not reaped yet, and its group where it leads one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _kill_group(pid)


def _kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _children() -> list[int]:
    """Return our children's ids, dead ones that are not reaped included."""
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _tell(candidate: _Candidate, record: Record) -> None:
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # it died while it waited: we hear of that next
        candidate.sock.send(json.dumps(record).encode())


def _listen(sock: socket.socket) -> Record | None:
    """Return what a candidate's process said, checked; None where it closed the socket."""
    data = sock.recv(_LARGEST_MESSAGE)
    if not data:
        return None
    garbled: Record = {
        "status": "error",
        "message": "the candidate's process sent something that is not a result",
    }
    try:
        said = json.loads(data)
    except ValueError:
        return garbled
    match said:
        case {"called": int(nanoseconds)}:
            return {"called": nanoseconds}
        case {"samples": [*samples], "calls": int(calls)} if all(isinstance(each, int) for each in samples):
            return {"status": "ok", "message": "", "samples": samples, "calls": calls}
        case {"status": ("error" | "out_of_memory") as status, "message": str(message)}:
            return {"status": status, "message": message}
    return garbled


def _read_log(log: int, cap: int) -> str:
    text = os.pread(log, cap, 0).decode(errors="replace")
    os.close(log)
    return text


def main() -> None:
    """Serve the tuner whose sockets we were started with."""
    control = socket.socket(fileno=int(sys.argv[1]))
    stage = socket.socket(fileno=int(sys.argv[2]))
    settings = receive(control)
    backend = get(settings["backend"])
    Keeper(control, stage, settings, lambda record, at: backend.load(Artifact.from_json(record), at)).serve()


if __name__ == "__main__":
    main()
