"""The loop as plain functions: sync, execute, fetch, and dev, which is all three.

Each takes frozen settings and returns what happened; only `Display` speaks to the user. A run travels like
this: the ssh session is opened first, so that its round trips hide behind the scan; where this checkout's
last push left the very tree that is here now, the run's request carries its stamp and the host starts at
once; otherwise the tree is pushed first, and the run's request completes the push.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from remote_tools.errors import RemoteError, UsageError
from remote_tools.host import messages
from remote_tools.host.device_lock import user
from remote_tools.host.messages import (
    Ask,
    CacheReply,
    PushEnded,
    PushEnding,
    ResultsWanted,
    RunAnswer,
    RunReply,
    Spec,
)
from remote_tools.runs import client, summaries, terminal
from remote_tools.runs.arrivals import Results
from remote_tools.runs.records import Record, Records, Source, new_id
from remote_tools.runs.reporting import write_report
from remote_tools.runs.target import target_argv
from remote_tools.settings.settings import Settings
from remote_tools.sync.last_push import LastPush
from remote_tools.sync.open_host import OpenHost, open_host
from remote_tools.sync.patterns import literal
from remote_tools.sync.plan import PushMode, host_rsync
from remote_tools.sync.progress import Display, count_text, size_text
from remote_tools.sync.push import PushResult, ended_lines, finish, push
from remote_tools.sync.workspace import Workspace, scan


@dataclass(frozen=True)
class How:
    """How a command is run, beside its words.

    Args:
        auto_fetch: bring what the run wrote, also after a failure.
        verify: compare the trees in full although the stamp says that they are equal.
        detach: return as soon as the run is there.
        pty: give the command a terminal.
        on_disconnect: `keep` or `kill`.
        lease_s: with `kill`: how long the run lives without a client.

    Raises:
        UsageError: they contradict each other.
    """

    auto_fetch: bool = False
    verify: bool = False
    detach: bool = False
    pty: bool = False
    on_disconnect: str = "keep"
    lease_s: float = 0

    def __post_init__(self) -> None:
        """Reject what does nothing or is unknown."""
        if self.on_disconnect not in ("keep", "kill"):
            raise UsageError("exec", f"--on-disconnect {self.on_disconnect}: it is keep or kill")
        if self.lease_s and self.on_disconnect == "keep":
            raise UsageError("exec", "--lease-s does nothing without --on-disconnect kill")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        run_id: the run.
        exit_code: the command's own; 0 where the run was detached.
        fetched: paths below `local_dir`, empty where nothing was fetched.
    """

    run_id: str
    exit_code: int
    fetched: tuple[str, ...] = ()


def _user_here() -> str:
    """Name the person here, for those who wait for the accelerator."""
    return os.environ.get("USER") or user()


def workspace_of(settings: Settings) -> Workspace:
    """Scan the local tree."""
    inside = settings.local_dir.is_relative_to(settings.root)
    never = [literal(settings.local_dir.relative_to(settings.root))] if inside else []
    # Beside the patterns these decide what the host should hold.
    salt = [settings.code_path, str(settings.delete), *settings.rsync_options]
    return scan(settings.root, settings.exclude, settings.include, never, salt=salt)


def _wanted(host: OpenHost) -> ResultsWanted:
    """Return what a request says for results to come back."""
    return client.results_wanted(host_rsync(host.settings.rsync_options))


# Sync -------------------------------------------------------------------------------------------------------


def push_and_report(host: OpenHost, tree: Workspace, mode: PushMode) -> PushResult:
    """Push the workspace up to `sync.finish`, and say what was sent."""
    result = push(host, tree, mode)
    for warning in result.warnings:
        host.display.say(f"sync: {warning}")
    if not mode.dry_run:
        deleted = f", {count_text(len(result.plan.delete), 'file')} deleted" if result.plan.delete else ""
        if result.sent or deleted:
            amount = f"{count_text(result.sent, 'file')} ({size_text(result.sent_bytes)})"
            host.display.say(f"Uploaded {amount} to {_place(host)}{deleted}", "✅")
    return result


def _place(host: OpenHost) -> str:
    return f"{host.link.alias}:{host.settings.code_path}"


def sync(settings: Settings, mode: PushMode, display: Display) -> PushResult:
    """Make the host's code path hold the workspace, comparing both sides in full."""
    with open_host(settings, display) as host:
        result = push_and_report(host, workspace_of(settings), mode)
        for line in finish(host, result):
            display.say(f"sync: {line}")
    if not mode.dry_run and not (result.sent or result.plan.delete):
        display.say(f"{_place(host)} is up to date", "✅")
    return result


# Execute ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRequest:
    """A run that this machine asks a host for: its id, its spec, and its local record."""

    settings: Settings
    spec: Spec
    how: How
    run_id: str
    words: tuple[str, ...]

    @classmethod
    def of(
        cls,
        settings: Settings,
        how: How,
        argv: Sequence[str] | None,
        shell: str | None = None,
        words: Sequence[str] = (),
        device_lock: bool = False,
    ) -> RunRequest:
        """Describe a run; nothing is started or written."""
        spec: Spec = {
            "argv": list(argv) if argv is not None else None,
            "shell": shell,
            "cache_dir": settings.cache_dir,
            "venv_path": settings.venv_path,
            "python": settings.python,
            "pty": how.pty,
            "size": list(terminal.terminal_size()) if how.pty else None,
            "term": os.environ.get("TERM", "dumb") if how.pty else None,
            "on_disconnect": how.on_disconnect,
            "lease_s": how.lease_s,
            "keep_runs": settings.keep_runs,
            "device_for": f"{_user_here()}@{socket.gethostname()}" if device_lock else None,
            # Its output is a pipe there and a terminal here: tables should fit.
            "env": {"COLUMNS": str(terminal.terminal_size()[1])} if sys.stdout.isatty() else {},
        }
        return cls(settings, spec, how, new_id(argv or ["shell"]), tuple(words or argv or ()))

    @classmethod
    def target(cls, settings: Settings, words: Sequence[str], how: How) -> RunRequest:
        """Describe a run of TARGET and its arguments.

        Raises:
            UsageError: there is no such script here.
        """
        argv = target_argv(words, settings.root)
        return cls.of(settings, how, argv, words=words, device_lock=settings.device_lock)

    @contextmanager
    def recorded(self) -> Iterator[Record]:
        """Keep the run's local record: written before it starts, and when it ended or was let go of."""
        records = Records(self.settings.root)
        source = Source(records.folder(self.run_id), self.settings.root)
        record: Record = {
            "id": self.run_id,
            "host": self.settings.host,
            "code_path": self.settings.code_path,
            "argv": self.spec["argv"],
            "shell": self.spec["shell"],
            "words": list(self.words),
            "auto_fetch": self.how.auto_fetch,
            "pty": self.how.pty,
            "local_dir": str(self.settings.local_dir),
            "started": time.time(),
            "state": "started",
        }
        records.write(record)
        try:
            yield record
        finally:
            record.update(source.collect())
            records.write(record)

    def execute(
        self,
        host: OpenHost,
        *,
        stamp: str | None = None,
        ending: PushEnding | None = None,
        results: Results | None = None,
    ) -> RunAnswer:
        """Start the run and follow it to its end; see `runs.start`."""

        def pushed(reply: PushEnded) -> None:
            for line in ended_lines(reply):
                host.display.say(f"sync: {line}")

        console = client.Console(results.take if results else None, pushed)
        try:
            return client.start(
                host.link,
                self.run_id,
                self.spec,
                console,
                stamp=stamp,
                ending=ending,
                detach=self.how.detach,
                wanted=_wanted(host) if results else client.NO_RESULTS,
            )
        except (terminal.Detached, client.PipeClosed):
            raise
        except RemoteError:
            if console.run_id:
                host.display.say(
                    f"run {console.run_id} goes on; inv runs.attach {console.run_id} comes back to it"
                )
            raise


def execute(
    settings: Settings, argv: Sequence[str] | None, how: How, display: Display, shell: str | None = None
) -> Outcome:
    """Run a command in the code path as it is there now."""
    request = RunRequest.of(settings, how, argv, shell)
    with open_host(settings, display) as host:
        return run_without_push(host, request)


def run_without_push(host: OpenHost, request: RunRequest) -> Outcome:
    """Run the command in the code path as it is there now, and bring its results."""
    with request.recorded() as record:
        results = Results(host.settings.local_dir) if request.how.auto_fetch else None
        reply = _not_stale(request.execute(host, results=results))
        return _outcome(host, request, record, reply, results)


def dev(settings: Settings, words: Sequence[str], how: How, display: Display) -> Outcome:
    """Push what changed, run TARGET, and bring back what it wrote.

    Raises:
        RemoteError: a stage of ours failed; the command's own failure is the outcome's exit code.
    """
    request = RunRequest.target(settings, words, how)
    with open_host(settings, display) as host:
        return push_and_run(host, request)


def push_and_run(host: OpenHost, request: RunRequest, tree: Workspace | None = None) -> Outcome:
    """Push the tree, run the command, and bring its results.

    Args:
        host: the host.
        request: the run.
        tree: a fresh scan, if there is one.
    """
    settings = host.settings
    with request.recorded() as record:
        tree = tree or workspace_of(settings)
        results = Results(settings.local_dir) if request.how.auto_fetch else None
        reply: RunAnswer = {"stale": True}
        last = LastPush(tree.root, host.link.alias, settings.code_path)
        if not request.how.verify and last.stamp == tree.stamp:
            reply = request.execute(host, stamp=tree.stamp, results=results)
        if "stale" in reply:
            pushed = push_and_report(host, tree, PushMode(inline=not request.how.verify))
            reply = _not_stale(request.execute(host, ending=pushed.ending, results=results))
        return _outcome(host, request, record, reply, results)


def _not_stale(reply: RunAnswer) -> RunReply:
    """Return the reply to a request that expected no stamp, so that it cannot be stale."""
    assert "stale" not in reply
    return reply


def _outcome(
    host: OpenHost, request: RunRequest, record: Record, reply: RunReply, results: Results | None
) -> Outcome:
    """Fetch what the run wrote, whatever its exit code, and record how it ended."""
    if request.how.detach:
        host.display.say(
            f"{request.run_id} runs on {host.link.alias}; inv runs.attach {request.run_id} shows it"
        )
        return Outcome(request.run_id, 0)
    return _fetch_and_record(host, record, reply, results)


def _fetch_and_record(host: OpenHost, record: Record, reply: RunReply, results: Results | None) -> Outcome:
    there, settings = reply["run"], host.settings
    came: Record = {
        "state": there["state"],
        "exit": there.get("exit"),
        "ended": there.get("ended"),
        "there": there,
    }
    record.update(came)
    fetched: tuple[str, ...] = ()
    if results is not None:
        results.complete(host, reply, there["cache_dir"])
        fetched = tuple(sorted(os.fsdecode(path) for path in results.arrived))
        record["fetched"] = list(fetched)
        summaries.keep(Records(settings.root).folder(there["id"]), settings.local_dir, fetched)
        write_report(settings.local_dir, fetched, host.display)
    return Outcome(there["id"], client.exit_code(there, host.display.say), fetched)


def attach(host: OpenHost, run_id: str, *, pty: bool = False) -> Outcome:
    """Follow a run that was started before; bring what it wrote if that was asked for then."""
    records = Records(host.settings.root)
    record = records.read(run_id)
    results = Results(host.settings.local_dir) if record.get("auto_fetch") else None
    wanted = _wanted(host) if results else client.NO_RESULTS
    console = client.Console(results.take if results else None)
    pty = pty or bool(record.get("pty"))
    reply = client.attach(host.link, run_id, console, pty=pty, wanted=wanted)
    try:
        return _fetch_and_record(host, record, reply, results)
    finally:
        if "id" in record:  # a run that was started from here
            records.write(record)


# Fetch ------------------------------------------------------------------------------------------------------


def fetch_run(host: OpenHost, run_id: str) -> None:
    """Bring what a run wrote; one that still runs has written nothing yet."""
    _fetch(host, messages.OUTPUTS({"id": run_id, **_wanted(host)}))


def fetch_cache(host: OpenHost, kernel: str | None) -> None:
    """Bring a kernel's folder of the host's cache, or all of it."""
    cache_dir = host.settings.cache_dir
    _fetch(host, messages.CACHE({"cache_dir": cache_dir, "kernel": kernel, **_wanted(host)}))


def _fetch(host: OpenHost, ask: Ask[RunReply | CacheReply]) -> None:
    results = Results(host.settings.local_dir)
    reply = host.link.stream(ask, client.Console(results.take))
    root = reply["cache_dir"] if "cache_dir" in reply else reply["run"]["cache_dir"]
    results.complete(host, reply, root)
