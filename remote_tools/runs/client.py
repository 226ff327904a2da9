"""Start, attach to, signal and list runs: the client of the supervisor."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from remote_tools.errors import SIGNALLED, RemoteError, SoftwareError, TransferError
from remote_tools.host import messages
from remote_tools.host.frames import PIPE_BYTES, STDERR, STDOUT
from remote_tools.host.messages import (
    AttachParams,
    ListReply,
    PushEnding,
    ResultsWanted,
    RunAnswer,
    RunParams,
    RunRecord,
    RunReply,
    Spec,
    Started,
)
from remote_tools.runs.records import Record
from remote_tools.runs.terminal import controls
from remote_tools.ssh.link import Link
from remote_tools.ssh.session import Controls
from remote_tools.sync.progress import silence

INLINE_BYTES = 16 * 1024 * 1024
"""Small results are sent in the run's own session if their total is no larger than this; else by rsync."""


FileTaker = Callable[[bytes, int, bytes], None]
"""Called with a small result: path below the cache root, mtime in ns, content."""


class Stream:
    """Our stdout or stderr, written without waiting for who reads it: a pager, or a terminal after Ctrl-S.

    The flag O_NONBLOCK would hold for every process that shares the stream, so a terminal is opened anew. A
    pipe that is writable takes PIPE_BUF bytes at least (pipe(7)).
    """

    def __init__(self, number: int) -> None:
        """Find out what the stream is."""
        self.number = self.fd = number
        self._most = PIPE_BYTES if stat.S_ISREG(os.fstat(number).st_mode) else select.PIPE_BUF
        if os.isatty(number):
            with suppress(OSError):
                self.fd = os.open(os.ttyname(number), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def write(self, data: memoryview) -> int:
        """Write what is taken now."""
        if not select.select([], [self.fd], [], 0)[1]:
            return 0
        try:
            return os.write(self.fd, data[: self._most])
        except BlockingIOError:
            return 0


class Console:
    """Writes a run's output to our own streams, and passes its small files to `take_file`."""

    def __init__(
        self, take_file: FileTaker | None = None, on_start: Callable[[Started], None] = lambda _reply: None
    ) -> None:
        """Start at position 0 of the output."""
        self._on_start = on_start
        self.position = 0
        self.run_id = ""
        self._take_file = take_file
        self.fault = ""
        """Why a part of the output was not written here."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._streams = {STDOUT: Stream(1), STDERR: Stream(2)}

    def output(self, kind: bytes, data: memoryview) -> int:
        """Write output, as much as is taken without waiting; return how much that was.

        Raises:
            BrokenPipeError: our stdout or stderr is closed (`| head`).
        """
        stream = self._streams[kind]
        try:
            return stream.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.fault = self.fault or f"the output could not be written here: {error.strerror}"
            silence(stream.number)
            self._streams[kind] = Stream(stream.number)
            return len(data)

    def descriptor(self, kind: bytes) -> int:
        """Return what becomes writable when output of this kind can be written."""
        return self._streams[kind].fd

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Pass on a small result file."""
        if self._take_file is not None:
            self._take_file(path, mtime_ns, data)

    def started(self, reply: Started) -> None:
        """Note that the run was started, and pass on what the host reports with it."""
        self.run_id = reply["started"]
        self._on_start(reply)


NO_RESULTS: ResultsWanted = {"inline_bytes": 0, "rsync": "rsync"}


def results_wanted(rsync: str) -> ResultsWanted:
    """Return the fields of a request that ask for results.

    Args:
        rsync: the host's rsync program for large results.
    """
    return {"inline_bytes": INLINE_BYTES, "rsync": rsync}


def start(
    link: Link,
    run_id: str,
    spec: Spec,
    console: Console,
    *,
    stamp: str | None = None,
    ending: PushEnding | None = None,
    detach: bool = False,
    wanted: ResultsWanted = NO_RESULTS,
) -> RunAnswer:
    """Start a run and follow it to its end.

    Args:
        link: the host.
        run_id: a new id; starting the same id twice attaches to the first run.
        spec: what to run.
        console: writes the output.
        stamp: the stamp that the host's tree must have; else the reply is `Stale`.
        ending: parameters of `sync.finish`, to complete a push first.
        detach: return as soon as the run has started.
        wanted: which results to send, see `results_wanted`.
    """
    params: RunParams = {
        "id": run_id,
        "spec": spec,
        "stamp": stamp,
        "ending": ending,
        "detach": detach,
        **wanted,
    }
    with _followed(link, run_id, spec["pty"], feed=True) as taken:
        return link.stream(messages.RUN(params), console, taken)


def attach(
    link: Link,
    run_id: str,
    console: Console,
    *,
    pty: bool = False,
    follow: bool = True,
    wanted: ResultsWanted = NO_RESULTS,
) -> RunReply:
    """Show a run's output from the beginning: until the run ends, or without `follow` up to now."""
    params: AttachParams = {"id": run_id, "follow": follow, **wanted}
    with _followed(link, run_id, pty) as taken:
        return link.stream(messages.ATTACH(params), console, taken)


@contextmanager
def _followed(link: Link, run_id: str, pty: bool, feed: bool = False) -> Iterator[Controls]:
    """Handle the user's keys and signals; if our stdout is closed, send the run SIGPIPE.

    Raises:
        PipeClosed: our stdout is closed.
    """
    try:
        with controls(pty, run_id, link, feed) as taken:
            yield taken
    except BrokenPipeError:
        # A local pipeline would send the command SIGPIPE too.
        link.close()
        send_signal(link, run_id, signal.SIGPIPE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise PipeClosed("exec", "", "") from None


class PipeClosed(RemoteError):
    """Our stdout was closed; exits with the code for SIGPIPE and without a message."""

    exit_code = SIGNALLED + signal.SIGPIPE

    def __init__(self, stage: str, message: str, hint: str) -> None:
        """Clear the message: the user ended the pipeline on purpose."""
        super().__init__(stage, message, hint)
        self.message = ""


def exit_code(record: RunRecord, say: Callable[[str], None]) -> int:
    """Return the command's exit code, and print what else happened to the run.

    Raises:
        SoftwareError: the run's supervisor on the host was killed, so the exit code is unknown.
        TransferError: the command succeeded, but the host could not record its output.
    """
    if record["state"] == "lost":
        raise SoftwareError(
            "exec",
            f"run {record['id']}: its supervisor on the host was killed (a logout, a restart, no memory)",
            f"inv runs.log {record['id']}; inv doctor tells whether the host ends runs at logout",
        )
    if record.get("left_running"):
        names = [f"{pid} ({words})" if words else str(pid) for pid, _start, words in record.get("left", ())]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        left = f"processes of {record['id']} still run on {record['host']}: {', '.join(names[:3])}{more}"
        say(f"{left}; inv runs.kill {record['id']} ends them")
    if record.get("lease_ended"):
        say(f"{record['id']} was ended on {record['host']}: its lease ran out without a client")
    code = record["exit"]
    assert code is not None  # the run has ended
    if record.get("fault"):
        if code == 0:
            raise TransferError(
                "exec", f"{record['host']}: {record['fault']}", f"free disk space on {record['host']}"
            )
        say(f"exec: {record['host']}: {record['fault']}")
    return code


NEWEST = 200
"""How many runs are listed unless all are asked for."""


def list_runs(link: Link, newest: int = NEWEST) -> ListReply:
    """Return the records of the workspace's newest runs on the host, oldest first; 0 for all of them."""
    return link.call(messages.LIST({"newest": newest}))


def send_signal(link: Link, run_id: str, number: int) -> bool:
    """Send a signal to a run's process group; return False if no process is left."""
    return link.call(messages.SIGNAL({"id": run_id, "signal": int(number)}))["delivered"]


def words_of(record: RunRecord | Record) -> str:
    """Return a run's command, quoted for a shell."""
    import shlex

    argv: Sequence[str] | None = record.get("argv")
    return str(record["shell"]) if record.get("shell") is not None else shlex.join(argv or [])
