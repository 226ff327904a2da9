"""The process of one device: it runs candidates one after another, as the keeper commands.

It is a fork of the runner. After each command it stops itself with all its threads, as a candidate's own
process does. It lives until a candidate kills it, does not return, or leaves a thread behind.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from autotune.backends import Artifact, Backend
from autotune.backends.device import Device, DeviceFault, Fault, HostTensor, Loaded
from autotune.sites.messages import CALL, COMMAND, LARGEST_MESSAGE, LOAD, LOST, OPEN, REFUSALS, REFUSED
from autotune.sites.runner import (
    PR_SET_PDEATHSIG,
    Exit,
    Place,
    addresses_of,
    artifact_at,
    prctl,
    record_sample,
    refusal_of,
    refuse,
    restore,
    stand_still,
)


def be_device(backend: Backend, place: Place, _name: str, _entry: str) -> None:
    """Run candidates until the keeper hangs up."""
    os.setsid()
    with Exit(place.sock):
        _Process(backend, place).serve()


class _Process:
    def __init__(self, backend: Backend, place: Place) -> None:
        self._backend, self._place, self._done = backend, place, 0
        self._scratch = os.getcwd()  # noqa: PTH109  a candidate may change it
        self._device: Device | None = None
        self._artifact: Artifact | None = None
        self._loaded: Loaded | None = None
        self._threads = 0

    def serve(self) -> None:
        sock = self._place.sock
        while message := sock.recv(LARGEST_MESSAGE):
            kind, rest = message[:1], message[1:]
            if kind == LOAD:
                self._begin(*rest.decode().split("\0")[:2])
                continue
            self._done += 1
            with _Reported(self._place, opening=kind == OPEN):
                if kind == OPEN:
                    self._open()
                elif kind == CALL:
                    self._call(*COMMAND.unpack(rest))
                else:
                    self._unload()
                stand_still(self._place, self._done)

    def _open(self) -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the keeper is the parent only now
        settings = self._place.settings
        tensors = host_tensors(self._place)
        count = len(settings.inputs)
        self._device = self._backend.open(settings.device, tensors[:count], tensors[count:])
        self._threads = _python_threads()

    def _begin(self, path: str, entry: str) -> None:
        self._artifact = artifact_at(path, entry, self._backend.name, self._place.settings)
        self._done = 0
        sys.stdout = sys.__stdout__
        os.chdir(self._scratch)

    def _call(self, _spares: int, warm: int, calls: int, samples: int, sweep: int) -> None:
        assert self._device is not None and self._artifact is not None
        if self._loaded is None:
            self._loaded = self._device.load(self._artifact)
        if warm:
            self._run(self._loaded, warm, 1, cold=False)
        taken = self._run(self._loaded, calls, samples, cold=bool(sweep))
        self._loaded.fetch()
        for number, nanoseconds in zip(range(samples), taken, strict=True):
            record_sample(self._place, number, int(nanoseconds))

    def _run(self, loaded: Loaded, calls: int, samples: int, *, cold: bool) -> Sequence[int]:
        """Call the candidate, once a sample if its inputs must be restored before each call."""
        if not self._place.settings.restored:
            loaded.poison()
            return loaded.run(calls, samples, cold=cold)
        taken: list[int] = []
        for _ in range(samples):
            restore(self._place, addresses_of(self._place))
            loaded.poison()
            taken += loaded.run(calls, 1, cold=cold)
        return taken

    def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.unload()
        del loaded
        if _python_threads() > self._threads:
            os._exit(0)  # they would run beside the next candidate, and could write its outputs


def host_tensors(place: Place) -> Sequence[HostTensor]:
    """Return the inputs and the outputs in the memory that is shared with the tuner."""
    settings = place.settings
    specs = (*settings.inputs, *settings.outputs)
    rooms = [(place.base + begin, place.base + end) for begin, end in settings.rooms]
    return [
        HostTensor(spec, address, begin, end, settings.segment, address - place.base)
        for spec, address, (begin, end) in zip(specs, addresses_of(place), rooms, strict=True)
    ]


def _python_threads() -> int:
    return len(sys._current_frames())


class _Reported(AbstractContextManager[None]):
    """Answer how a candidate failed, and go on, if the process still can.

    It is a context manager because a candidate in Python may raise any exception.
    """

    def __init__(self, place: Place, *, opening: bool) -> None:
        self._sock, self._opening = place.sock, opening

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Report the exception."""
        if error is None:
            return True
        traceback.print_exception(kind, error, trace)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if self._opening or isinstance(error, DeviceFault):
            known = isinstance(error, DeviceFault)
            refuse(self._sock, LOST, str(error) if known else f"{type(error).__name__}: {error}")
            os._exit(0)
        refuse(self._sock, *_refusal(error))
        if isinstance(error, Fault) and error.fatal:
            os._exit(0)
        return True


def _refusal(error: BaseException) -> tuple[int, str]:
    if isinstance(error, Fault):
        return {status: number for number, status in REFUSALS.items()}[error.status], str(error)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        return REFUSED, f"ended the process with exit code {code} before it returned"
    return refusal_of(error)
