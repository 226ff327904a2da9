"""Loads candidates that are Python and calls them; the same protocol as `backends/runner.c`.

Runs as a process of its own, forked from the keeper, of which each candidate is a fork in turn, or the one
process of a device (see `device_process.py`).
"""

from __future__ import annotations

import ctypes
import functools
import gc
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from autotune.backends import Artifact, Binding
from autotune.machine.limits import lower_limit
from autotune.model.budget import Limits
from autotune.sites.messages import (
    COMMAND,
    HEADER,
    LARGEST_MESSAGE,
    REFUSED,
    REFUSED_INPUT,
    REFUSED_MEMORY,
    Settings,
)

Loader = Callable[[str, str], Binding]
"""(object, entry) -> the loaded candidate."""


@dataclass(frozen=True)
class Place:
    """What a process that runs candidates has at hand.

    Args:
        sock: its commands.
        cpu: the runner's core.
        segment: the tensors' memory.
        base: the address of that.
        settings: where in it the tensors are.
    """

    sock: socket.socket
    cpu: int
    segment: mmap.mmap
    base: int
    settings: Settings


Body = Callable[[Place, str, str], object]
"""(place, object, entry): what a fork of the runner does until its end."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2))."""
    _libc.prctl(option, value, 0, 0, 0)


def serve(sock: socket.socket, settings: Settings, body: Body) -> NoReturn:
    """Fork a process for each request, until the keeper hangs up."""
    segment = mmap.mmap(settings.segment, settings.size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(segment))
    for offset, length, protection in settings.protected:
        _libc.mprotect(ctypes.c_void_p(base + offset), ctypes.c_size_t(length), protection)
    _confine(settings.limits, settings.size)
    for number in (signal.SIGCHLD, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # else each fork would copy the pages that the collector writes
    while True:
        request, passed, _, _ = socket.recv_fds(sock, LARGEST_MESSAGE, 1)
        if not request:
            os._exit(0)
        place = Place(socket.socket(fileno=passed[0]), _libc.sched_getcpu(), segment, base, settings)
        name, entry = request.decode().split("\0")[:2]
        pid = _fork_for_keeper(functools.partial(body, place, name, entry))
        place.sock.close()
        sock.send(struct.pack("=i", pid))


def _fork_for_keeper(body: Callable[[], object]) -> int:
    """Fork twice and end the process between: so the keeper, a subreaper, becomes the parent."""
    readable, writable = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(readable)
            os.close(writable)
            body()
        os.write(writable, struct.pack("=i", pid))
        os._exit(0)
    os.waitpid(between, 0)
    os.close(writable)
    (found,) = struct.unpack("=i", os.read(readable, 4))
    os.close(readable)
    return int(found)


def _confine(limits: Limits, tensors_bytes: int) -> None:
    """Limit the memory and output of this process and its forks, and forbid core files."""
    own_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    room = limits.memory_bytes + tensors_bytes + own_pages * mmap.PAGESIZE
    if limits.memory_bytes:
        lower_limit(resource.RLIMIT_AS, room)
    lower_limit(resource.RLIMIT_FSIZE, limits.output_bytes)
    lower_limit(resource.RLIMIT_CORE, 0)
    prctl(PR_SET_DUMPABLE, 0)


def _begin_on(cpu: int) -> None:
    """Start on the runner's core, which is awake; the scheduler may move it later. See runner.c."""
    allowed = os.sched_getaffinity(0)
    if cpu in allowed:
        os.sched_setaffinity(0, {cpu})
        os.sched_setaffinity(0, allowed)


def addresses_of(place: Place, copy: int = -1) -> list[int]:
    """Return the addresses of the tensors: where they are timed, or with a spare copy of the outputs."""
    tensors = place.settings.tensors
    if copy < 0:
        return [place.base + first for first, _, _ in tensors]
    return [place.base + spare + copy * stride for _, spare, stride in tensors]


def artifact_at(path: str, entry: str, backend: str, settings: Settings) -> Artifact:
    """Return the description of a candidate, given the file to load."""
    folder, _, main = path.rpartition("/")
    changed = tuple(settings.inputs[place].name for place, *_ in settings.restored)
    return Artifact(backend, entry, folder, main, settings.inputs, settings.outputs, changed)


def restore(place: Place, addresses: Sequence[int]) -> None:
    """Restore the inputs that a kernel changes, given the addresses of all tensors."""
    for number, pristine, below, size in place.settings.restored:
        ctypes.memmove(addresses[number] - below, place.base + pristine, size)


def be_candidate(load: Loader, place: Place, name: str, entry: str) -> None:
    """Run one candidate as commanded."""
    os.setsid()
    _begin_on(place.cpu)
    with Exit(place.sock):
        bind, program, done, sweep_buffer = None, None, 0, None
        addresses = addresses_of(place)
        while command := place.sock.recv(COMMAND.size):
            if not bind or not program:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the keeper is the parent only now
                bind = load(name, entry)
                program = bind(addresses)
            spares, warm, calls, samples, sweep = COMMAND.unpack(command)
            for copy in range(spares):
                there = addresses_of(place, copy)
                restore(place, there)
                bind(there)(1)
            if warm:
                restore(place, addresses)
                program(warm)
            for number in range(samples):
                restore(place, addresses)
                if sweep:
                    sweep_buffer = sweep_buffer or ctypes.create_string_buffer(sweep)
                    ctypes.memset(sweep_buffer, 1, sweep)
                record_sample(place, number, program(calls))
            done += 1
            stand_still(place, done)


def record_sample(place: Place, number: int, nanoseconds: int) -> None:
    """Write the nanoseconds of a sample where the keeper reads them."""
    struct.pack_into("=q", place.segment, HEADER.size + 8 * number, nanoseconds)


def stand_still(place: Place, done: int) -> None:
    """Say how many commands are done, and stop with all threads until the next one."""
    sys.stdout.flush()
    struct.pack_into("=i", place.segment, 4, done)
    os.kill(os.getpid(), signal.SIGSTOP)


def refuse(sock: socket.socket, number: int, message: str) -> None:
    """Answer that a command cannot be done; see `REFUSALS`."""
    sock.send(struct.pack("=q", number) + message.encode(errors="replace")[:1000])


def refusal_of(error: BaseException) -> tuple[int, str]:
    """Return how to answer after an exception of a candidate in Python."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return REFUSED_MEMORY, message
    if isinstance(error, ValueError) and "read-only" in str(error):  # NumPy, of an array or a buffer
        return REFUSED_INPUT, message
    return REFUSED, message


class Exit:
    """End the process when the block ends; report the exception, if there was one.

    It is a context manager because a candidate in Python may raise any exception.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Report the exception, flush, and end the process."""
        if isinstance(error, SystemExit):
            sys.stdout.flush()
            os._exit(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)
        if error is not None:
            traceback.print_exception(kind, error, trace)
            refuse(self._sock, *refusal_of(error))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
