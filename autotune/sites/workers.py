"""The tuner's side of the processes that compile, run and time candidates.

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
from autotune.backends.numpy import Returning, array_at, keep_freed_memory
from autotune.backends.travel import pack
from autotune.machine.cpu import not_private, program_folder, usable_cores
from autotune.model.budget import Limits
from autotune.model.errors import AutotuneError, CacheError, UnavailableError, UsageError
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.tensors import materialize
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.correctness import Golden, Mismatch
from autotune.sites.measurement import Failed, Measurement
from autotune.sites.messages import (
    Call,
    Called,
    CompileReply,
    CompileRequest,
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
from autotune.sites.wire import receive, send

_MOST_DEATHS = 20  # of keepers: a candidate can kill its own, but not so many in a row


@dataclass(frozen=True)
class CompileOutcome:
    """How one compilation ended.

    Args:
        status: ok, compile_error, compile_timeout, out_of_memory or error.
        artifact: what can be measured; None unless ok.
        message: one line that says what failed.
        log: the command, and what the compiler printed.
        seconds: how long the compiler took; 0 if the object existed.
    """

    status: Status
    artifact: Artifact | None
    message: str = ""
    log: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended.

    Args:
        status: ok, crash, timeout, out_of_memory, wrong_output, implausible or error.
        message: one line that says what failed.
        log: what the candidate printed.
        samples_ms: milliseconds per call of every repeat, in the order taken, outliers included; empty unless
            ok.
        calls: calls that each sample is the mean of.
        mismatch: the first wrong output, if the status is wrong_output.
        waited: time that it waited for a core, as a fraction of the time that it was timed.
    """

    status: Status
    message: str = ""
    log: str = ""
    samples_ms: tuple[float, ...] = ()
    calls: int = 1
    mismatch: Mismatch | None = None
    waited: float = 0.0


class Workers:
    """The processes of one tuning run; a context manager that ends all of them.

    `compile` may be called from any thread. Its futures are resolved in a thread of this class. `measure` and
    `baseline` may be called from one thread at a time.

    Args:
        kernel: its golden defines the right outputs.
        inputs: the workload.
        backend: how candidates are built and called.
        timing: how they are timed.
        limits: what they may use.
        compile_jobs: compilers at a time; 0 for one a core.

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
    ) -> None:
        if not hasattr(os, "memfd_create"):
            raise UnavailableError(
                "kernels are run on Linux only: subreapers and memory files are Linux's own"
            )
        _open_standard_streams()
        self._kernel, self._inputs, self._backend = kernel, inputs, backend
        self._timing = timing or Timing()
        self._arrays = materialize(inputs)
        self._rng = np.random.default_rng()
        self._outputs = tuple(kernel.outputs(inputs.specs))
        self._segment = Segment(list(zip(inputs.specs, self._arrays, strict=True)), self._outputs)
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
                limits=limits or Limits(),
                segment=self._segment.file,
                size=self._segment.size,
                tensors=self._segment.tensors,
                spares=self._segment.spares,
                protected=tuple(self._segment.protected),
                compile_jobs=compile_jobs or usable_cores(),
                imports=kernel.imports,
                folder=self._folder("run"),
            )
            # Forked before the golden runs: a fork has none of the threads that a library may start for it.
            self._baselines = self._start_baselines() if kernel.baselines else None
            self._golden = Golden.of(kernel, inputs.specs, self._arrays)
            self._numbers = itertools.count()
            self._pending: dict[int, _Pending] = {}
            self._built: set[Artifact] = set()
            self._users: Counter[Artifact] = Counter()
            self._lock = threading.RLock()
            self._closing = False
            self._readers: list[threading.Thread] = []
            self._deaths, self._unusable = 0, ""
            self._start_keeper()
            undo.pop_all()

    def __enter__(self) -> Workers:
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

    def compile(self, source: str) -> Future[CompileOutcome]:
        """Start to compile a candidate; an object that was built before is used again."""
        future: Future[CompileOutcome] = Future()
        folder = self._private / "run"
        build = self._backend.build(source, self._kernel.entry, self._inputs.specs, self._outputs, folder)
        command = " ".join(build.command).replace(build.part, build.artifact.folder)
        head = f"$ {command}\n{self._backend.fingerprint()['version']}\n"
        with self._lock:
            if build.artifact in self._built:
                self._users[build.artifact] += 1
                future.set_result(CompileOutcome(Status.OK, build.artifact, log=head + "(built before)\n"))
                return future
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._unusable:
                raise UnavailableError(self._unusable)
            self._users[build.artifact] += 1
            number = next(self._numbers)
            part = f"{build.part}.{number}"  # two configs may have one source
            words = tuple(word.replace(build.part, part) for word in build.command)
            request = CompileRequest(number, words, build.source, part, build.artifact.folder)
            self._pending[number] = _Pending(future, build.artifact, head, request)
            with contextlib.suppress(OSError):  # it is dead: its reader sends to the next
                send(self._keeper.control, request)
        return future

    def discard(self, artifact: Artifact) -> None:
        """Remove an object once all who had it compiled discard it; a candidate can be compiled again."""
        with self._lock:
            self._users[artifact] -= 1
            if self._users[artifact]:
                return
            self._built.discard(artifact)
            _remove(artifact)

    def measure(self, artifact: Artifact, timing: Timing | None = None, *, again: bool = False) -> RunOutcome:
        """Check a candidate against the golden, then time it; no compiler runs meanwhile.

        Args:
            artifact: what `compile` made.
            timing: replaces the default for this measurement.
            again: it was measured before: leave out the calls with spare copies of the outputs.
        """
        request = Load(artifact.path, artifact.entry)
        for _attempt in range(2):  # the system may have killed the keeper: only twice is it the candidate
            keeper = self._keeper
            try:
                return self._measure(keeper, request, timing, again)
            except (EOFError, OSError):
                self._replace_keeper(keeper)
        return RunOutcome(Status.CRASH, "killed the process that watches it")

    def baseline(self, name: str, threads: int = 0, timing: Timing | None = None) -> RunOutcome:
        """Check and time one of the kernel's baselines, in the same kind of process.

        Args:
            name: of the baseline.
            threads: of NumPy's BLAS; 0 for its own default.
            timing: replaces the default for this measurement.

        Raises:
            UsageError: the kernel has none of this name.
        """
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
        """Move the tensors to other pages of memory; see `Segment.place_anew`."""
        self._segment.place_anew()

    # -- inside

    def _folder(self, name: str) -> str:
        folder = self._private / name
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _start_baselines(self) -> Peer:
        load = _baseline_loader(list(self._kernel.baselines.values()), self._arrays, self._outputs)
        settings = replace(self._settings, runner=(), folder=self._folder("baselines"))
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
        measurement = Measurement(call, self._segment, self._golden, limits, self._rng)
        status, message, mismatch, taken = Status.OK, "", None, Samples([], 1)
        send(peer.stage, request)
        try:
            taken = measurement.run(timing or self._timing, again=again)
        except Failed as failure:
            status, message, mismatch = failure.status, str(failure), failure.mismatch
        send(peer.stage, Unload())
        log = receive(peer.stage, Unloaded).log
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
                compiled = _compiled(reply, pending)
                if compiled.artifact:
                    self._built.add(compiled.artifact)
                pending.future.set_result(compiled)
        with self._lock:
            try:
                self._replace_keeper(keeper)
            except AutotuneError as fault:
                self._fail_pending(fault)
            if self._closing:
                self._fail_pending(AutotuneError("the tuner's workers were closed"))

    def _fail_pending(self, fault: AutotuneError) -> None:
        while self._pending:
            _, pending = self._pending.popitem()
            pending.future.set_exception(fault)


@dataclass(frozen=True)
class _Pending:
    """A compilation that was asked for."""

    future: Future[CompileOutcome]
    artifact: Artifact
    head: str
    request: CompileRequest


def _keeper_gone() -> AutotuneError:
    return AutotuneError(
        "the process that runs the candidates was killed again and again, by a candidate or by the system; "
        "what is recorded is kept: run again to continue"
    )


def _remove(artifact: Artifact) -> None:
    """Remove an artifact in two calls if it is one file: rmtree hands the interpreter over eight times."""
    try:
        os.unlink(artifact.path)  # noqa: PTH108
        os.rmdir(artifact.folder)  # noqa: PTH106
    except OSError:
        shutil.rmtree(artifact.folder, ignore_errors=True)


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


def _compiled(reply: CompileReply, pending: _Pending) -> CompileOutcome:
    ending = reply.ending
    made = pending.artifact if ending.status is Status.OK else None
    return CompileOutcome(ending.status, made, ending.message, pending.head + reply.log, reply.seconds)


def _baseline_loader(
    functions: Sequence[Callable[..., Any]], arrays: Sequence[Any], outputs: Sequence[TensorSpec]
) -> Loader:
    def load(place: str, threads: str) -> Binding:
        keep_freed_memory()
        if threads != "0":
            threadpool_limits(int(threads))  # for as long as this process lives

        def bind(addresses: Sequence[int]) -> Program:
            pairs = zip(addresses[len(arrays) :], outputs, strict=True)
            return Returning(functions[int(place)]).program(arrays, [array_at(*pair) for pair in pairs])

        return bind

    return load
