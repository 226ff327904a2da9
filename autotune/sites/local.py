"""A device of this machine: the tuner's side of the processes that compile, run and time candidates.

The tuner never loads a candidate's code. It writes the inputs into shared memory and asks the keeper (see
`keeper.py`) to compile and to run. It checks the outputs, and only then has the candidate timed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from autotune.backends import Artifact, Backend, Binding, Program
from autotune.backends.numpy import Returning, keep_freed_memory
from autotune.backends.travel import pack
from autotune.machine.cpu import not_private, program_folder, usable_cores
from autotune.model.budget import Limits
from autotune.model.errors import (
    AutotuneError,
    CacheError,
    DeviceLostError,
    UnavailableError,
    UsageError,
)
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.tensors import array_at, materialize
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.correctness import Golden
from autotune.sites.measurement import Failed, Measurement
from autotune.sites.messages import (
    Call,
    Called,
    CompileReply,
    CompileRequest,
    Ending,
    Load,
    Settings,
    Unload,
    Unloaded,
    Unusable,
)
from autotune.sites.peer import Peer
from autotune.sites.runner import Loader
from autotune.sites.sampling import Samples
from autotune.sites.segment import Segment
from autotune.sites.site import BuildOutcome, RunOutcome
from autotune.sites.wire import receive, send

_MOST_DEATHS = 20  # of keepers: a candidate can kill its own, but not so many in a row


class LocalSite:
    """One device of this machine, and the processes of one tuning run; a context manager that ends them.

    The futures of `build` are resolved in a thread of this class. For what the methods do, see `Site`.

    Args:
        kernel: its golden defines the right outputs.
        inputs: the workload.
        backend: how candidates are built and called.
        timing: how they are timed.
        limits: what they may use; the backend's by default.
        compile_jobs: compilers at a time; 0 for one a core.
        device: its name, of `Backend.devices`.
        golden: the right outputs, if another site has computed them.

    Raises:
        DataError: the inputs or the golden are invalid.
        UsageError: a dtype has no tolerance.
        UnavailableError: no working compiler for the backend's runner, or not Linux.
    """

    def __init__(
        self,
        kernel: Kernel,
        inputs: Inputs,
        backend: Backend,
        timing: Timing | None = None,
        limits: Limits | None = None,
        compile_jobs: int = 0,
        device: str = "0",
        golden: Golden | None = None,
    ) -> None:
        if not hasattr(os, "memfd_create"):
            raise UnavailableError(
                "kernels are run on Linux only: subreapers and memory files are Linux's own"
            )
        _open_standard_streams()
        self.device = device
        self._kernel, self._inputs, self._backend = kernel, inputs, backend
        self._timing = timing or Timing()
        self._arrays = materialize(inputs)
        self._rng = np.random.default_rng()
        self._outputs = tuple(kernel.outputs(inputs.specs))
        fork = backend.isolation() == "fork"
        changed = kernel.changed(inputs.specs)
        self._in_place = [inputs.specs.index(spec) for spec in changed]
        values = list(zip(inputs.specs, self._arrays, strict=True))
        self._segment = Segment(values, self._outputs, self._in_place, spares=fork)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._segment.close)
        with contextlib.ExitStack() as undo:
            undo.callback(self._stack.close)
            self._private = _temporary_folder(executable=bool(backend.runner()))
            self._stack.callback(shutil.rmtree, self._private, ignore_errors=True)
            self._settings = Settings(
                backend=pack(backend),
                runner=backend.runner(),
                inputs=inputs.specs,
                outputs=self._outputs,
                limits=limits or backend.limits(),
                segment=self._segment.file,
                size=self._segment.size,
                tensors=self._segment.tensors,
                spares=self._segment.spares,
                rooms=self._segment.rooms,
                protected=tuple(self._segment.protected),
                compile_jobs=compile_jobs or usable_cores(),
                imports=kernel.imports,
                folder=self._folder("run"),
                device="" if fork else device,
                own_clock=not fork and backend.own_clock(),
                restored=self._segment.restored,
            )
            # Forked before the golden runs: a fork has none of the threads that a library may start for it.
            self._baselines = self._start_baselines() if kernel.baselines and not golden else None
            self.golden = golden or Golden.of(kernel, inputs.specs, self._arrays)
            self._numbers = itertools.count()
            self._pending: dict[int, _Pending] = {}
            self._built: set[Artifact] = set()
            self._users: Counter[Artifact] = Counter()
            self._emptied: list[str] = []
            self._lock = threading.RLock()
            self._closing = False
            self._readers: list[threading.Thread] = []
            self._deaths, self._unusable = 0, ""
            self._start_keeper()
            undo.pop_all()

    def __enter__(self) -> LocalSite:
        """Return itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End every process; futures that have not ended are cancelled."""
        self._closing = True
        self._stack.close()
        for reader in self._readers:
            reader.join()

    def build(self, source: str) -> Future[BuildOutcome]:
        """See `Site`."""
        if self._closing:
            raise _closed()
        future: Future[BuildOutcome] = Future()
        folder = self._private / "run"
        build = self._backend.build(source, self._kernel.entry, self._inputs.specs, self._outputs, folder)
        command = " ".join(build.command).replace(build.part, build.artifact.folder)
        head = f"$ {command}\n{self._backend.fingerprint()['version']}\n"
        with self._lock:
            if build.artifact in self._built:
                self._users[build.artifact] += 1
                future.set_result(BuildOutcome(Status.OK, build.artifact, log=head + "(built before)\n"))
                return future
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._unusable:
                raise UnavailableError(self._unusable)
            self._users[build.artifact] += 1
            number = next(self._numbers)
            part = f"{build.part}.{number}"  # two configs may have one source
            if self._emptied:
                with contextlib.suppress(OSError):  # it went with a keeper that was killed
                    os.rename(self._emptied.pop(), part)  # noqa: PTH104
            words = tuple(word.replace(build.part, part) for word in build.command)
            request = CompileRequest(number, words, build.source, part, build.artifact.folder)
            self._pending[number] = _Pending(future, build.artifact, head, request)
            with contextlib.suppress(OSError):  # it is dead: its reader sends to the next
                send(self._keeper.control, request)
        return future

    def discard(self, artifact: Artifact) -> None:
        """See `Site`."""
        with self._lock:
            self._users[artifact] -= 1
            if self._users[artifact]:
                return
            self._built.discard(artifact)
            self._remove(artifact.folder)

    def measure(self, artifact: Artifact, timing: Timing | None = None, *, again: bool = False) -> RunOutcome:
        """See `Site`; no compiler runs meanwhile, unless the device has a clock of its own."""
        request = Load(artifact.path, artifact.entry)
        for _attempt in range(2):  # the system may have killed the keeper: only twice is it the candidate
            keeper = self._keeper
            try:
                return self._measure(keeper, request, timing, again)
            except (EOFError, OSError):
                if self._closing:
                    raise _closed() from None
                self._replace_keeper(keeper)
        return RunOutcome(Status.CRASH, "killed the process that watches it")

    def baseline(self, name: str, threads: int = 0, timing: Timing | None = None) -> RunOutcome:
        """See `Site`; it runs in the same kind of process as a C candidate."""
        if name not in self._kernel.baselines:
            raise UsageError(f"kernel {self._kernel.name!r} has no baseline {name!r}")
        place = list(self._kernel.baselines).index(name)
        for _attempt in range(2):
            self._baselines = self._baselines or self._start_baselines()
            try:
                return self._measure(self._baselines, Load(str(place), str(threads)), timing)
            except (EOFError, OSError):
                self._baselines = None
        return RunOutcome(Status.CRASH, "killed the process that watches it")

    def place_anew(self) -> None:
        """See `Site`, and `Segment.place_anew`."""
        self._segment.place_anew()

    # -- inside

    def _remove(self, folder: str) -> None:
        """Empty an artifact's folder, and keep it for the next build.

        To remove a folder takes milliseconds on some file systems, and a search removes one for each config.
        """
        emptied = f"{folder}.{len(self._emptied)}.empty"
        try:
            for name in os.listdir(folder):  # noqa: PTH208
                os.unlink(f"{folder}/{name}")  # noqa: PTH108
            os.rename(folder, emptied)  # noqa: PTH104
        except OSError:  # it has folders in it
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._emptied.append(emptied)

    def _folder(self, name: str) -> str:
        folder = self._private / name
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _start_baselines(self) -> Peer:
        specs = (*self._inputs.specs, *self._outputs)
        functions = list(self._kernel.baselines.values())
        load = _baseline_loader(functions, self._arrays, specs, self._in_place)
        settings = replace(self._settings, runner=(), device="", folder=self._folder("baselines"))
        return self._stack.enter_context(Peer(settings, load))

    def _start_keeper(self) -> None:
        self._folder("run")
        self._keeper = self._stack.enter_context(Peer(self._settings, None))
        reader = threading.Thread(target=self._read_compiles, args=(self._keeper,), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _replace_keeper(self, dead: Peer) -> None:
        """Start another keeper, and have it compile what the dead one has not.

        Raises:
            AutotuneError: keepers die again and again.
        """
        with self._lock:
            if self._keeper is not dead or self._closing:
                return
            if self._unusable:
                raise UnavailableError(self._unusable)
            self._deaths += 1
            if self._deaths > _MOST_DEATHS:
                raise _keeper_gone()
            self._start_keeper()
            for pending in self._pending.values():
                send(self._keeper.control, pending.request)

    def _measure(self, peer: Peer, request: Load, timing: Timing | None, again: bool = False) -> RunOutcome:
        def call(order: Call) -> Called:
            send(peer.stage, order)
            return receive(peer.stage, Called)

        limits = self._settings.limits
        measurement = Measurement(call, self._segment, self.golden, limits, self._rng)
        status, message, mismatch, taken = Status.OK, "", None, Samples([], 1)
        lost: DeviceLostError | None = None
        send(peer.stage, request)
        try:
            taken = measurement.run(timing or self._timing, again=again)
        except Failed as failure:
            status, message, mismatch = failure.status, str(failure), failure.mismatch
        except DeviceLostError as fault:
            lost = fault
        send(peer.stage, Unload(distrusted=status is Status.IMPLAUSIBLE))
        log = receive(peer.stage, Unloaded).log
        if lost:
            raise lost
        samples = tuple(each / taken.calls / 1e6 for each in taken.nanoseconds)
        return RunOutcome(status, message, log, samples, taken.calls, mismatch, measurement.waited)

    def _read_compiles(self, keeper: Peer) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                reply = receive(keeper.control, CompileReply, Unusable)
                if not isinstance(reply, CompileReply):
                    self._unusable = getattr(reply, "reason", "")
                    break
                with self._lock:
                    pending = self._pending.pop(reply.number)
                if reply.disk_full:
                    pending.future.set_exception(_disk_full())
                    continue
                compiled = _compiled(reply, pending, self._backend)
                if compiled.artifact:
                    self._built.add(compiled.artifact)
                pending.future.set_result(compiled)
        with self._lock:
            try:
                self._replace_keeper(keeper)
            except AutotuneError as fault:
                self._fail_pending(fault)
            if self._closing:
                self._fail_pending(_closed())

    def _fail_pending(self, fault: AutotuneError) -> None:
        while self._pending:
            _, pending = self._pending.popitem()
            pending.future.set_exception(fault)


@dataclass(frozen=True)
class _Pending:
    """A compilation that was asked for."""

    future: Future[BuildOutcome]
    artifact: Artifact
    head: str
    request: CompileRequest


def _closed() -> AutotuneError:
    return AutotuneError("the site was closed")


def _keeper_gone() -> AutotuneError:
    return AutotuneError(
        "the process that runs the candidates was killed again and again, by a candidate or by the system; "
        "what is recorded is kept: run again to continue"
    )


def _disk_full() -> CacheError:
    advice = "free some space, or set TMPDIR to a folder with room, and run again: what is recorded is kept"
    return CacheError(f"no space for the compiler's files in {tempfile.gettempdir()}; {advice}")


def _temporary_folder(*, executable: bool) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="autotune-"))
        if not_private(folder):  # others can replace it, such as a volume of a container at /tmp
            folder.rmdir()
            program_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="autotune-", dir=program_folder()))
        why = not_private(folder)
        flags = os.statvfs(folder).f_flag
    except OSError as error:
        raise CacheError(f"cannot make a temporary folder: {error}; set TMPDIR to one with room") from error
    if why:
        folder.rmdir()
        raise UnavailableError(f"{why}; or set TMPDIR to a folder of yours: candidates are loaded from it")
    if executable and flags & os.ST_NOEXEC:
        folder.rmdir()
        raise UnavailableError(
            f"{folder.parent} is mounted noexec, so no compiled candidate can be loaded from it; set TMPDIR "
            "to a folder on another file system"
        )
    return folder


def _open_standard_streams() -> None:
    """Open closed ones of stdin, stdout and stderr: else a socket of ours would take their place."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)


def _compiled(reply: CompileReply, pending: _Pending, backend: Backend) -> BuildOutcome:
    ending = reply.ending
    if ending.status is Status.COMPILE_ERROR and (known := backend.compile_failure(reply.log)):
        ending = Ending(*known)
    made = pending.artifact if ending.status is Status.OK else None
    return BuildOutcome(ending.status, made, ending.message, pending.head + reply.log, reply.seconds)


def _baseline_loader(
    functions: Sequence[Callable[..., Any]],
    arrays: Sequence[Any],
    specs: Sequence[TensorSpec],
    in_place: Sequence[int],
) -> Loader:
    """Return what loads a baseline. It gets our arrays, and for those that it changes the shared ones.

    Args:
        functions: the baselines.
        arrays: the inputs.
        specs: of the inputs, then of the outputs.
        in_place: which inputs they change.
    """

    def load(place: str, threads: str) -> Binding:
        keep_freed_memory()
        if threads != "0":
            threadpool_limits(int(threads))  # for as long as this process lives

        def bind(addresses: Sequence[int]) -> Program:
            shared = [array_at(*pair) for pair in zip(addresses, specs, strict=True)]
            given = [shared[number] if number in in_place else array for number, array in enumerate(arrays)]
            written = [*shared[len(arrays) :], *(shared[number] for number in in_place)]
            return Returning(functions[int(place)]).program(given, written)

        return bind

    return load
