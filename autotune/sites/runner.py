"""Loads candidates that are Python and calls them; the same protocol as `backends/runner.c`.

Runs as a process of its own, forked from the keeper, of which each candidate is a fork in turn.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from autotune.backends import Binding
from autotune.machine.limits import lower_limit
from autotune.model.budget import Limits
from autotune.sites.messages import HEADER, Settings

Loader = Callable[[str, str], Binding]
"""(object, entry) -> the loaded candidate."""

REFUSED, REFUSED_MEMORY, REFUSED_INPUT = 1, 2, 3
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2))."""
    _libc.prctl(option, value, 0, 0, 0)


def serve(sock: socket.socket, settings: Settings, load: Loader) -> NoReturn:
    """Fork a candidate for each request, until the keeper hangs up."""
    segment = mmap.mmap(settings.segment, settings.size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(segment))
    for offset, length, protection in settings.protected:
        _libc.mprotect(ctypes.c_void_p(base + offset), ctypes.c_size_t(length), protection)
    _confine(settings.limits, settings.size)
    for number in (signal.SIGCHLD, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # else each fork would copy the pages that the collector writes
    places, restore = _places(base, settings), _restorer(base, settings)
    while True:
        request, passed, _, _ = socket.recv_fds(sock, 16384, 1)
        if not request:
            os._exit(0)
        own, cpu = socket.socket(fileno=passed[0]), _libc.sched_getcpu()
        name, entry = request.decode().split("\0")[:2]
        pid = _fork_for_keeper(
            lambda: _be_candidate(own, cpu, segment, lambda: load(name, entry), places, restore)  # noqa: B023
        )
        own.close()
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


def _places(base: int, settings: Settings) -> list[list[int]]:
    """Return the addresses of the tensors: where they are timed, then with each spare copy of the outputs."""
    timed = [base + first for first, _, _ in settings.tensors]
    return [timed] + [
        [base + spare + copy * stride for _, spare, stride in settings.tensors]
        for copy in range(settings.spares)
    ]


def _restorer(base: int, settings: Settings) -> Callable[[list[int]], None]:
    """Return what restores the inputs that a kernel changes, given the addresses of all tensors."""

    def restore(addresses: list[int]) -> None:
        for place, pristine, below, size in settings.restored:
            ctypes.memmove(addresses[place] - below, base + pristine, size)

    return restore


def _be_candidate(
    sock: socket.socket,
    cpu: int,
    segment: mmap.mmap,
    load: Callable[[], Binding],
    places: list[list[int]],
    restore: Callable[[list[int]], None],
) -> None:
    os.setsid()
    _begin_on(cpu)
    with _Exit(sock):
        bind, program, done, sweep_buffer = None, None, 0, None
        while command := sock.recv(40):
            if not bind or not program:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the keeper is the parent only now
                bind = load()
                program = bind(places[0])
            spares, warm, calls, samples, sweep = struct.unpack("=5q", command)
            for addresses in places[1 : 1 + spares]:
                restore(addresses)
                bind(addresses)(1)
            if warm:
                restore(places[0])
                program(warm)
            for place in range(samples):
                restore(places[0])
                if sweep:
                    sweep_buffer = sweep_buffer or ctypes.create_string_buffer(sweep)
                    ctypes.memset(sweep_buffer, 1, sweep)
                struct.pack_into("=q", segment, HEADER.size + 8 * place, program(calls))
            sys.stdout.flush()
            done += 1
            struct.pack_into("=i", segment, 4, done)
            os.kill(os.getpid(), signal.SIGSTOP)  # all threads; the next command continues them


class _Exit:
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
            refusal = REFUSED_MEMORY if isinstance(error, MemoryError) else REFUSED
            if isinstance(error, ValueError) and "read-only" in str(error):  # NumPy, of an array or a buffer
                refusal = REFUSED_INPUT
            self._sock.send(struct.pack("=q", refusal) + f"{type(error).__name__}: {error}".encode()[:1000])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
