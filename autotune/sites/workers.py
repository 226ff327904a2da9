"""The tuner's side of the processes that compile, run and time candidates.

The tuner never loads a candidate's code. It writes the inputs into shared memory and asks the keeper (see
`keeper.py`) to compile and to run. It checks the outputs, and only then has the candidate timed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from threadpoolctl import threadpool_limits

from autotune.backends import Artifact, Backend, Program
from autotune.model.budget import Limits
from autotune.model.errors import AutotuneError, CacheError, UnavailableError, UsageError
from autotune.model.kernel import Inputs, Kernel
from autotune.model.tensors import materialize
from autotune.model.timing import Timing
from autotune.model.trial import Status
from autotune.sites.correctness import Golden, Mismatch
from autotune.sites.keeper import Keeper
from autotune.sites.messages import (
    CompileReply,
    CompileRequest,
    FirstCall,
    MeasureReply,
    MeasureRequest,
    Settings,
    Verdict,
)
from autotune.sites.runner import Load
from autotune.sites.segment import Segment
from autotune.sites.wire import receive, send


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
        status: ok, crash, timeout, out_of_memory, wrong_output or error.
        message: one line that says what failed.
        log: what the candidate printed.
        samples_ms: milliseconds per call of every repeat, in the order taken, outliers included; empty unless
            ok.
        calls: calls that each sample is the mean of.
        mismatch: the first wrong output, if the status is wrong_output.
    """

    status: Status
    message: str = ""
    log: str = ""
    samples_ms: tuple[float, ...] = ()
    calls: int = 1
    mismatch: Mismatch | None = None


class Workers:
    """The processes of one tuning run; a context manager that ends all of them.

    `compile` may be called from any thread. Its futures are resolved in a thread of this class. `measure` and
    `reference` may be called from one thread at a time.

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
        self._kernel, self._inputs, self._backend = kernel, inputs, backend
        self._timing = timing or Timing()
        self._arrays = materialize(inputs)
        self._golden = Golden.of(kernel, inputs.specs, self._arrays)
        self._outputs = self._golden.specs
        self._segment = Segment(list(zip(inputs.specs, self._arrays, strict=True)), self._outputs)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._segment.close)
        with contextlib.ExitStack() as undo:
            undo.callback(self._stack.close)
            self._private = _temporary_folder()
            self._stack.callback(shutil.rmtree, self._private, ignore_errors=True)
            self._settings = Settings(
                backend=backend.name,
                runner=backend.runner(),
                inputs=inputs.specs,
                outputs=self._outputs,
                limits=limits or Limits(),
                segment=self._segment.file,
                size=self._segment.size,
                tensors=tuple(self._segment.offsets),
                protected=tuple(self._segment.protected),
                compile_jobs=compile_jobs or os.cpu_count() or 1,
                folder=self._folder("run"),
            )
            self._keeper = self._stack.enter_context(_Peer(self._settings, None))
            self._reference: _Peer | None = None
            self._numbers = itertools.count()
            self._pending: dict[int, tuple[Future[CompileOutcome], Artifact, str]] = {}
            self._built: set[Artifact] = set()
            self._lock = threading.Lock()
            self._closing = False
            self._reader = threading.Thread(target=self._read_compiles, name="autotune-compiles", daemon=True)
            self._reader.start()
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
        self._reader.join()

    def compile(self, source: str) -> Future[CompileOutcome]:
        """Start to compile a candidate; an object that was built before is used again."""
        future: Future[CompileOutcome] = Future()
        folder = self._private / "run"
        build = self._backend.build(source, self._kernel.entry, self._inputs.specs, self._outputs, folder)
        command = " ".join(build.command).replace(build.produces, build.artifact.files[0])
        head = f"$ {command}\n{self._backend.fingerprint()['version']}\n"
        if build.artifact in self._built:
            future.set_result(CompileOutcome(Status.OK, build.artifact, log=head + "(built before)\n"))
            return future
        number = next(self._numbers)
        target = build.artifact.files[0]
        request = CompileRequest(number, build.command, build.source, build.produces, target)
        with self._lock:
            self._pending[number] = (future, build.artifact, head)
            future.set_running_or_notify_cancel()
            try:
                send(self._keeper.control, request)
            except OSError:
                raise _keeper_gone() from None
        return future

    def measure(self, artifact: Artifact, timing: Timing | None = None) -> RunOutcome:
        """Check a candidate against the golden, then time it; no compiler runs meanwhile.

        Args:
            artifact: what `compile` made.
            timing: replaces the default for this measurement.
        """
        request = MeasureRequest(artifact.files[0], artifact.entry, timing or self._timing)
        return self._measure(self._keeper, request)

    def reference(self, threads: int = 0, timing: Timing | None = None) -> RunOutcome:
        """Check and time the kernel's reference, in the same kind of process.

        Args:
            threads: of NumPy's BLAS; 0 for its own default.
            timing: replaces the default for this measurement.

        Raises:
            UsageError: the kernel has none.
        """
        function = self._kernel.reference
        if function is None:
            raise UsageError(f"kernel {self._kernel.name!r} has no reference")
        if self._reference is None:
            load = _reference_loader(function, self._arrays, self._segment.outputs)
            settings = replace(self._settings, runner=(), folder=self._folder("reference"))
            self._reference = self._stack.enter_context(_Peer(settings, load))
        return self._measure(self._reference, MeasureRequest("", str(threads), timing or self._timing))

    def place_anew(self) -> None:
        """Move the tensors to other pages of memory; see `Segment.place_anew`."""
        self._segment.place_anew()

    # -- inside

    def _folder(self, name: str) -> str:
        folder = self._private / name
        folder.mkdir()
        return str(folder)

    def _measure(self, peer: _Peer, request: MeasureRequest) -> RunOutcome:
        self._segment.poison()
        mismatch = None
        try:
            send(peer.stage, request)
            if receive(peer.stage, FirstCall).returned:
                mismatch = self._check()
                send(peer.stage, Verdict(correct=mismatch is None))
            reply = receive(peer.stage, MeasureReply)
        except (EOFError, OSError):
            raise _keeper_gone() from None
        ending = reply.ending
        if ending.status is Status.OK:
            mismatch = self._check()  # right in the first call and wrong later is wrong
        if mismatch:
            return RunOutcome(Status.WRONG_OUTPUT, str(mismatch), reply.log, mismatch=mismatch)
        samples = tuple(each / reply.calls / 1e6 for each in reply.samples_ns)
        return RunOutcome(ending.status, ending.message, reply.log, samples, reply.calls)

    def _check(self) -> Mismatch | None:
        return self._segment.stray() or self._golden.compare(self._segment.outputs)

    def _read_compiles(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                reply = receive(self._keeper.control, CompileReply)
                with self._lock:
                    future, artifact, head = self._pending.pop(reply.number)
                if reply.disk_full:
                    future.set_exception(_disk_full())
                    continue
                compiled = _compiled(reply, artifact, head)
                if compiled.artifact:
                    self._built.add(compiled.artifact)
                future.set_result(compiled)
        with self._lock:
            for future, *_ in self._pending.values():
                closed = AutotuneError("the tuner's workers were closed")
                future.set_exception(closed if self._closing else _keeper_gone())


def _keeper_gone() -> AutotuneError:
    return AutotuneError("the keeper of the workers was killed: start again to continue")


def _disk_full() -> CacheError:
    advice = "free some space, or set TMPDIR to a folder with room, and run again: what is recorded is kept"
    return CacheError(f"no space for the compiler's files in {tempfile.gettempdir()}; {advice}")


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="autotune-"))
    except OSError as error:
        raise CacheError(f"cannot make a temporary folder: {error}; set TMPDIR to one with room") from error


def _compiled(reply: CompileReply, artifact: Artifact, head: str) -> CompileOutcome:
    ending = reply.ending
    made = artifact if ending.status is Status.OK else None
    return CompileOutcome(ending.status, made, ending.message, head + reply.log, reply.seconds)


def _reference_loader(function: Callable[..., Any], arrays: Sequence[Any], outputs: Sequence[Any]) -> Load:
    def load(_object: str, threads: str, _addresses: list[int]) -> Program:
        from autotune.backends.numpy import timed

        if threads != "0":
            threadpool_limits(int(threads))  # for as long as this process lives
        timing, returned = timed(function, arrays), function(*arrays)
        for output, value in zip(outputs, returned, strict=True):
            output[...] = value
        return timing

    return load


class _Peer:
    """A keeper and the two sockets to it.

    Args:
        settings: its first message.
        load: None to run the keeper as a program, which is small and forks fast. A loader is a Python
            function, which cannot be sent to a program: the keeper is then a fork of this process.
    """

    def __init__(self, settings: Settings, load: Load | None) -> None:
        self.control, control = socket.socketpair()
        self.stage, stage = socket.socketpair()
        with control, stage:
            if load is None:
                self._wait = self._run(control, stage, settings)
            else:
                self._wait = self._fork(control, stage, settings, load)

    def __enter__(self) -> _Peer:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the sockets: the keeper then kills all that it has started, and ends."""
        for sock in (self.control, self.stage):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._wait()

    def _run(self, control: socket.socket, stage: socket.socket, settings: Settings) -> Callable[[], object]:
        # An empty package instead of autotune/__init__.py, which would import NumPy into each fork.
        code = (
            f"import sys, types; sys.path[:] = {[*filter(None, sys.path)]!r}; "
            "package = types.ModuleType('autotune'); "
            f"package.__path__ = [{str(Path(__file__).parents[1])!r}]; sys.modules['autotune'] = package; "
            "import autotune.sites.keeper; autotune.sites.keeper.main()"
        )
        descriptors = (control.fileno(), stage.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=(*descriptors, settings.segment),
            start_new_session=True,  # Ctrl-C reaches the tuner alone, which then closes the keeper
        )
        send(self.control, settings)
        return process.wait

    def _fork(
        self,
        control: socket.socket,
        stage: socket.socket,
        settings: Settings,
        load: Load,
    ) -> Callable[[], object]:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # else the child would print the buffered text again
        with warnings.catch_warnings():
            # The other thread only waits in recv. It holds no lock that the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return lambda: os.waitpid(pid, 0)
        try:
            os.setsid()
            self.control.close()
            self.stage.close()
            Keeper(control, stage, settings, load).serve()
        finally:
            os._exit(0)
