"""The steps of the loop as plain functions: sync, execute, fetch, and dev, which does all three.

Each takes frozen settings and returns the outcome; only `Display` prints. `dev` opens the ssh session first,
and scans the tree while it connects. If the tree has the stamp of this checkout's last push, the request to
run contains that stamp, and a host with the same stamp starts the run at once. Otherwise the tree is pushed,
and the request to run completes the push.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from remote_tools.errors import RemoteError, UsageError
from remote_tools.host import messages
from remote_tools.host.device_lock import user
from remote_tools.host.messages import (
    Ask,
    CacheReply,
    PushEnding,
    ResultsWanted,
    RunAnswer,
    RunReply,
    Spec,
    Started,
)
from remote_tools.runs import client, logout, summaries, terminal
from remote_tools.runs.arrivals import Results
from remote_tools.runs.records import Record, Records, new_id
from remote_tools.runs.reporting import write_report
from remote_tools.runs.source import Source
from remote_tools.runs.target import check_is_sent, target_argv
from remote_tools.settings.settings import Settings
from remote_tools.sync.last_push import LastPush
from remote_tools.sync.open_host import OpenHost, open_host
from remote_tools.sync.patterns import literal
from remote_tools.sync.plan import PushMode, host_rsync
from remote_tools.sync.progress import Display, count_text, size_text
from remote_tools.sync.push import PushResult, changed_lines, ended_lines, finish, push
from remote_tools.sync.workspace import Workspace, scan


@dataclass(frozen=True)
class How:
    """Options of a run.

    Args:
        auto_fetch: fetch the files that the run wrote, also after a failure.
        verify: compare the trees in full even if the stamps are equal.
        detach: return as soon as the run has started.
        pty: give the command a terminal.
        on_disconnect: `keep` the run, or `kill` it, if no client is connected.
        lease_s: with `kill`: how long the run may go on without a client.

    Raises:
        UsageError: a value is invalid, or has no effect.
    """

    auto_fetch: bool = False
    verify: bool = False
    detach: bool = False
    pty: bool = False
    on_disconnect: str = "keep"
    lease_s: float = 0

    def __post_init__(self) -> None:
        """Reject invalid values."""
        if self.on_disconnect not in ("keep", "kill"):
            raise UsageError("exec", f"--on-disconnect must be keep or kill, got {self.on_disconnect}")
        if self.lease_s and self.on_disconnect == "keep":
            raise UsageError("exec", "--lease-s has no effect without --on-disconnect kill")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        run_id: the run.
        exit_code: the command's own; 0 if the run was started detached.
        fetched: paths of the fetched files below `local_dir`.
    """

    run_id: str
    exit_code: int
    fetched: tuple[str, ...] = ()


def _user_here() -> str:
    """Return the local user's name, for runs that wait for the device lock."""
    return os.environ.get("USER") or user()


def workspace_of(settings: Settings) -> Workspace:
    """Scan the local tree."""
    inside = settings.local_dir.is_relative_to(settings.root)
    never = [literal(settings.local_dir.relative_to(settings.root))] if inside else []
    # These settings too affect what the host should hold.
    salt = [settings.code_path, str(settings.delete), *settings.rsync_options]
    return scan(settings.root, settings.exclude, settings.include, never, salt=salt)


def _wanted(host: OpenHost) -> ResultsWanted:
    """Return the fields of a request that ask for results."""
    return client.results_wanted(host_rsync(host.settings.rsync_options))


# Sync -------------------------------------------------------------------------------------------------------


def push_and_report(host: OpenHost, tree: Workspace, mode: PushMode) -> PushResult:
    """Push the workspace up to `sync.finish`, and print what was sent."""
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
    """Push the workspace, comparing both sides in full."""
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
    """A run to start on a host: its id, its spec and its local record.

    Args:
        words: the command as typed, for the record.
    """

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
        """Make the request; nothing is started or written.

        Args:
            settings: of the host.
            how: options of the run.
            argv: the command; None for `shell`.
            shell: a line for the login shell, instead of `argv`.
            words: the command as typed; `argv` by default.
            device_lock: wait until no other run holds the host's accelerator.
        """
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
            # The command's stdout is a pipe, so it cannot ask for the width of our terminal.
            "env": {"COLUMNS": str(terminal.terminal_size()[1])} if sys.stdout.isatty() else {},
        }
        return cls(settings, spec, how, new_id(argv or ["shell"]), tuple(words or argv or ()))

    @classmethod
    def target(cls, settings: Settings, words: Sequence[str], how: How) -> RunRequest:
        """Make the request for TARGET and its arguments.

        Raises:
            UsageError: the script does not exist.
        """
        argv = target_argv(words, settings.root)
        return cls.of(settings, how, argv, words=words, device_lock=settings.device_lock)

    @contextmanager
    def recorded(self, say: Callable[[str], None]) -> Iterator[Record]:
        """Write the run's local record before the run starts, and again at the end of the `with`."""
        records = Records(self.settings.root, say)
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
            records.prune(self.settings.keep_runs)

    def execute(
        self,
        host: OpenHost,
        *,
        stamp: str | None = None,
        ending: PushEnding | None = None,
        results: Results | None = None,
    ) -> RunAnswer:
        """Start the run and follow it until it ends; see `client.start`."""

        def started(reply: Started) -> None:
            for line in ended_lines(reply["pushed"]) if reply["pushed"] else changed_lines(reply["changed"]):
                host.display.say(f"sync: {line}")

        console = client.Console(results.take if results else None, started)
        try:
            reply = client.start(
                host.link,
                self.run_id,
                self.spec,
                console,
                stamp=stamp,
                ending=ending,
                detach=self.how.detach,
                wanted=_wanted(host) if results else client.NO_RESULTS,
            )
            if "run" in reply and console.fault:
                reply["run"]["fault"] = reply["run"].get("fault") or console.fault
            return reply
        except (terminal.Detached, client.PipeClosed):
            raise
        except RemoteError:
            if console.run_id:
                host.display.say(
                    f"run {console.run_id} still runs on the host; inv runs.attach {console.run_id} shows it"
                )
            raise


def execute(
    settings: Settings, argv: Sequence[str] | None, how: How, display: Display, shell: str | None = None
) -> Outcome:
    """Run a command in the code path without a push."""
    request = RunRequest.of(settings, how, argv, shell)
    with open_host(settings, display) as host:
        return run_without_push(host, request)


def run_without_push(host: OpenHost, request: RunRequest) -> Outcome:
    """Run the command in the code path without a push, and fetch its results."""
    with request.recorded(host.display.say) as record:
        results = Results(host.settings.local_dir) if request.how.auto_fetch else None
        reply = _not_stale(request.execute(host, results=results))
        return _outcome(host, request, record, reply, results)


def dev(settings: Settings, words: Sequence[str], how: How, display: Display) -> Outcome:
    """Push changes, run TARGET, and fetch its results.

    Raises:
        RemoteError: the push, the connection or the fetch failed. If the command fails, that is the outcome's
            exit code and no error.
    """
    request = RunRequest.target(settings, words, how)
    with open_host(settings, display) as host:
        return push_and_run(host, request)


def push_and_run(host: OpenHost, request: RunRequest, tree: Workspace | None = None) -> Outcome:
    """Push the tree, run the command, and fetch its results.

    Args:
        host: the host.
        request: the run.
        tree: the result of a fresh scan; scanned here by default.
    """
    settings = host.settings
    with request.recorded(host.display.say) as record:
        tree = tree or workspace_of(settings)
        check_is_sent(request.words, tree)
        results = Results(settings.local_dir) if request.how.auto_fetch else None
        reply: RunAnswer = {"stale": True}
        last = LastPush(tree.root, host.link.alias, settings.code_path)
        if not request.how.verify and last.stamp == tree.stamp and not last.replaced(tree):
            reply = request.execute(host, stamp=tree.stamp, results=results)
        if "stale" in reply:
            pushed = push_and_report(host, tree, PushMode(inline=not request.how.verify))
            reply = _not_stale(request.execute(host, ending=pushed.ending, results=results))
        return _outcome(host, request, record, reply, results)


def _not_stale(reply: RunAnswer) -> RunReply:
    """Return the reply; it cannot be `Stale` because the request had no stamp."""
    assert "stale" not in reply
    return reply


def _outcome(
    host: OpenHost, request: RunRequest, record: Record, reply: RunReply, results: Results | None
) -> Outcome:
    """Fetch the results and record the end of the run; for a detached run print its id only."""
    if request.how.detach:
        host.display.say(
            f"{request.run_id} runs on {host.link.alias}; inv runs.attach {request.run_id} shows it"
        )
        warning = logout.warned(host.link)
        if warning:
            host.display.say(warning)
        return Outcome(request.run_id, 0)
    return _fetch_and_record(host, record, reply, results)


def _fetch_and_record(host: OpenHost, record: Record, reply: RunReply, results: Results | None) -> Outcome:
    """Fetch the results, whatever the exit code, and record the end of the run."""
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
        records = Records(settings.root, host.display.say)
        with records.tolerant():
            summaries.keep(records.make(there["id"]), settings.local_dir, fetched)
        write_report(settings.local_dir, fetched, host.display)
    return Outcome(there["id"], client.exit_code(there, host.display.say), fetched)


def attach(host: OpenHost, run_id: str, *, pty: bool = False) -> Outcome:
    """Follow a run that was started before; fetch its results if it was started with auto-fetch."""
    records = Records(host.settings.root, host.display.say)
    record = records.read(run_id)
    results = Results(host.settings.local_dir) if record.get("auto_fetch") else None
    wanted = _wanted(host) if results else client.NO_RESULTS
    console = client.Console(results.take if results else None)
    pty = pty or bool(record.get("pty"))
    reply = client.attach(host.link, run_id, console, pty=pty, wanted=wanted)
    try:
        return _fetch_and_record(host, record, reply, results)
    finally:
        if "id" in record:  # the run was started from this checkout
            records.write(record)


# Fetch ------------------------------------------------------------------------------------------------------


def fetch_run(host: OpenHost, run_id: str) -> None:
    """Fetch the results of a run; a run has no results until it has ended."""
    _fetch(host, messages.OUTPUTS({"id": run_id, **_wanted(host)}))


def fetch_cache(host: OpenHost, kernel: str | None) -> None:
    """Fetch a kernel's folder of the host's cache, or the whole cache."""
    cache_dir = host.settings.cache_dir
    _fetch(host, messages.CACHE({"cache_dir": cache_dir, "kernel": kernel, **_wanted(host)}))


def _fetch(host: OpenHost, ask: Ask[RunReply | CacheReply]) -> None:
    results = Results(host.settings.local_dir)
    reply = host.link.stream(ask, client.Console(results.take))
    root = reply["cache_dir"] if "cache_dir" in reply else reply["run"]["cache_dir"]
    results.complete(host, reply, root)
