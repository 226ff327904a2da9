"""Start, attach to, signal and list runs: the client of the supervisor."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from remote_tools.errors import SIGNALLED, RemoteError, SoftwareError, TransferError
from remote_tools.host import messages
from remote_tools.host.frames import STDOUT
from remote_tools.host.messages import (
    AttachParams,
    PushEnded,
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

INLINE_BYTES = 16 * 1024 * 1024
"""Small results up to this size, all together, come back in the run's own session; the others by rsync."""


FileTaker = Callable[[bytes, int, bytes], None]
"""Takes a small result: its path below the cache root, when it was written, its content."""


class Console:
    """Pass a run's output on to our own streams as it comes, and its small files to `take_file`."""

    def __init__(
        self, take_file: FileTaker | None = None, pushed: Callable[[PushEnded], None] = lambda _reply: None
    ) -> None:
        """Start at the beginning of the output."""
        self._pushed = pushed
        self.position = 0
        self.run_id = ""
        self._take_file = take_file
        sys.stdout.flush()
        sys.stderr.flush()

    def output(self, kind: bytes, data: bytes) -> None:
        """Write output; a closed stdout (`| head`) raises BrokenPipeError."""
        fd = 1 if kind == STDOUT else 2
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Take a small result file."""
        if self._take_file is not None:
            self._take_file(path, mtime_ns, data)

    def started(self, reply: Started) -> None:
        """Remember that the run is there, and show what came of the push before it."""
        self.run_id = reply["started"]
        if reply["pushed"] is not None:
            self._pushed(reply["pushed"])


NO_RESULTS: ResultsWanted = {"inline_bytes": 0, "rsync": "rsync"}


def results_wanted(rsync: str) -> ResultsWanted:
    """Return what a request says for results to come back: small ones with it, others by that rsync."""
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
        run_id: names the run; a second start of the same id attaches to the first.
        spec: what to run.
        console: takes the output.
        stamp: the tree that must be there; the reply is `Stale` if it is not.
        ending: a push to be ended first.
        detach: return as soon as the run is there.
        wanted: what results are to come back too, see `results_wanted`.
    """
    params: RunParams = {
        "id": run_id,
        "spec": spec,
        "stamp": stamp,
        "ending": ending,
        "detach": detach,
        **wanted,
    }
    with _followed(link, run_id, spec["pty"]) as taken:
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
    """Show a run's output from its beginning, to its end or to what there is now."""
    params: AttachParams = {"id": run_id, "follow": follow, **wanted}
    with _followed(link, run_id, pty) as taken:
        return link.stream(messages.ATTACH(params), console, taken)


@contextmanager
def _followed(link: Link, run_id: str, pty: bool) -> Iterator[Controls]:
    """Take over what the user does; let go of the run if nobody reads its output any more."""
    try:
        with controls(pty, run_id, link) as taken:
            yield taken
    except BrokenPipeError:
        # Who reads our output has gone: the run learns of it as it would in a local pipeline.
        link.close()
        send_signal(link, run_id, signal.SIGPIPE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise PipeClosed("exec", "", "") from None


class PipeClosed(RemoteError):
    """Nobody reads our output any more; ends as SIGPIPE does, without a word."""

    exit_code = SIGNALLED + signal.SIGPIPE

    def __init__(self, stage: str, message: str, hint: str) -> None:
        """Say nothing: the pipeline was ended on purpose."""
        super().__init__(stage, message, hint)
        self.message = ""


def exit_code(record: RunRecord, say: Callable[[str], None]) -> int:
    """Return the command's own exit code, and say what else happened to the run.

    Raises:
        SoftwareError: the run's owner on the host was killed, so nobody knows how the command ended.
        TransferError: the command succeeded, but its output could not be recorded there.
    """
    if record["state"] == "lost":
        raise SoftwareError(
            "exec",
            f"run {record['id']}: its supervisor on the host was killed",
            f"inv runs.log {record['id']}",
        )
    if record.get("left_running"):
        say(f"processes of it still run on {record['host']}; inv runs.kill {record['id']} ends them")
    if record.get("lease_ended"):
        say(f"{record['id']} was ended there: no client for its lease")
    code = record["exit"]
    assert code is not None  # it has ended
    if record.get("fault"):
        if code == 0:
            raise TransferError("exec", f"{record['host']}: {record['fault']}", "free some disk there")
        say(f"exec: {record['host']}: {record['fault']}")
    return code


def list_all(link: Link) -> list[RunRecord]:
    """Return the records of the workspace's runs on the host, oldest first."""
    return link.call(messages.LIST({}))["runs"]


def send_signal(link: Link, run_id: str, number: int) -> bool:
    """Send a signal to a run's process group; False where nothing of it is left."""
    return link.call(messages.SIGNAL({"id": run_id, "signal": int(number)}))["delivered"]


def words_of(record: RunRecord | Record) -> str:
    """Return a run's command as one would type it."""
    import shlex

    argv: Sequence[str] | None = record.get("argv")
    return str(record["shell"]) if record.get("shell") is not None else shlex.join(argv or [])
