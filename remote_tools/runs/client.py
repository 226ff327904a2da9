"""Start, attach to, signal and list runs: the client of the supervisor."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from remote_tools.errors import SIGNALLED, RemoteError, SoftwareError, TransferError
from remote_tools.runs.terminal import controls
from remote_tools.ssh.session import Link, Reply

INLINE_BYTES = 16 * 1024 * 1024
"""Small results up to this size, all together, come back in the run's own session; the others by rsync."""


@dataclass(frozen=True)
class Spec:
    """What the host is to run, and how.

    Args:
        argv: the words; None where `shell` is given.
        shell: a string for the login shell.
        cache_dir: the cache root on the host.
        venv_path: the virtual environment on the host.
        python: what `python` means there without a virtual environment; None leaves it to the host.
        pty: give the command a terminal.
        size: that terminal's rows and columns.
        term: its TERM.
        on_disconnect: `keep` lets the run live without a client, `kill` ends it after `lease_s`.
        lease_s: how long the run lives without a client; 0 with `kill` means as soon as the loss is noticed.
        keep_runs: how many ended runs the host keeps.
        device_for: who the host's accelerator is locked for while it runs; None takes no lock.
        env: more variables.
    """

    argv: tuple[str, ...] | None
    cache_dir: str
    shell: str | None = None
    venv_path: str | None = None
    python: str | None = None
    pty: bool = False
    size: tuple[int, int] | None = None
    term: str | None = None
    on_disconnect: str = "keep"
    lease_s: float = 0
    keep_runs: int = 20
    device_for: str | None = None
    env: dict[str, str] = field(default_factory=dict)


FileTaker = Callable[[bytes, int, bytes], None]
"""Takes a small result: its path below the cache root, when it was written, its content."""


class Console:
    """Pass a run's output on to our own streams as it comes, and its small files to `take_file`."""

    def __init__(
        self, take_file: FileTaker | None = None, finished: Callable[[Reply], None] = lambda _reply: None
    ) -> None:
        """Start at the beginning of the output."""
        self._finished = finished
        self.position = 0
        self.run_id = ""
        self._take_file = take_file
        sys.stdout.flush()
        sys.stderr.flush()

    def output(self, kind: bytes, data: bytes) -> None:
        """Write output; a closed stdout (`| head`) raises BrokenPipeError."""
        fd = 1 if kind == b"O" else 2
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Take a small result file."""
        if self._take_file is not None:
            self._take_file(path, mtime_ns, data)

    def started(self, reply: dict[str, Any]) -> None:
        """Remember that the run is there, and show what ending the push before it told."""
        self.run_id = reply["started"]
        if reply.get("finish") is not None:
            self._finished(reply["finish"])


def results_wanted(rsync: str) -> dict[str, Any]:
    """Return what a request says for results to come back: small ones with it, others by that rsync."""
    return {"inline_bytes": INLINE_BYTES, "rsync": rsync}


def start(
    link: Link,
    run_id: str,
    spec: Spec,
    console: Console,
    *,
    stamp: str | None = None,
    finish: dict[str, Any] | None = None,
    detach: bool = False,
    wanted: Mapping[str, Any] | None = None,
) -> Reply:
    """Start a run and follow it to its end.

    Args:
        link: the host.
        run_id: names the run; a second start of the same id attaches to the first.
        spec: what to run.
        console: takes the output.
        stamp: the tree that must be there; the reply is {"stale": True} where it is not.
        finish: a push to be completed first (`sync.finish`).
        detach: return as soon as the run is there.
        wanted: what results are to come back too, see `results_wanted`; None of them.

    Returns:
        {"run": record, "outputs": [[path, size_bytes, mtime_ns]], "rsync": ...} or {"stale": True}.
    """
    params = {
        "id": run_id,
        "spec": asdict(spec),
        "stamp": stamp,
        "finish": finish,
        "detach": detach,
        **(wanted or {}),
    }
    return _follow(link, "run", params, console, run_id, spec.pty)


def attach(
    link: Link,
    run_id: str,
    console: Console,
    *,
    pty: bool = False,
    follow: bool = True,
    wanted: Mapping[str, Any] | None = None,
) -> Reply:
    """Show a run's output from its beginning, to its end or to what there is now."""
    params = {"id": run_id, "follow": follow, **(wanted or {})}
    return _follow(link, "attach", params, console, run_id, pty)


def _follow(link: Link, op: str, params: dict[str, Any], console: Console, run_id: str, pty: bool) -> Reply:
    try:
        with controls(pty, run_id, link) as taken:
            return link.stream(op, params, console, taken)
    except BrokenPipeError:
        # Who reads our output has gone: the run learns of it as it would in a local pipeline.
        link.close()
        link.call("signal", id=run_id, signal=int(signal.SIGPIPE))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise LetGoOfPipe("exec", "", "") from None


class LetGoOfPipe(RemoteError):
    """Nobody reads our output any more; ends as SIGPIPE does, without a word."""

    exit_code = SIGNALLED + signal.SIGPIPE

    def __init__(self, stage: str, message: str, hint: str) -> None:
        """Say nothing: the pipeline was ended on purpose."""
        super().__init__(stage, message, hint)
        self.message = ""


def exit_code(reply: Reply, say: Callable[[str], None]) -> int:
    """Return the command's own exit code, and say what else happened to the run.

    Raises:
        SoftwareError: the run's owner on the host was killed, so nobody knows how the command ended.
        TransferError: the command succeeded, but its output could not be recorded there.
    """
    record = reply["run"]
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
    code = int(record["exit"])
    if record.get("fault"):
        if code == 0:
            raise TransferError("exec", f"{record['host']}: {record['fault']}", "free some disk there")
        say(f"exec: {record['host']}: {record['fault']}")
    return code


def list_all(link: Link) -> list[dict[str, Any]]:
    """Return the records of the workspace's runs on the host, oldest first."""
    found: list[dict[str, Any]] = link.call("list")["runs"]
    return found


def send_signal(link: Link, run_id: str, number: int) -> bool:
    """Send a signal to a run's process group; False where nothing of it is left."""
    return bool(link.call("signal", id=run_id, signal=number)["delivered"])


def words_of(record: dict[str, Any]) -> str:
    """Return a run's command as one would type it."""
    import shlex

    argv: Sequence[str] | None = record.get("argv")
    return str(record["shell"]) if record.get("shell") is not None else shlex.join(argv or [])
