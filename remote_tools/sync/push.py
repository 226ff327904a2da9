"""Push the workspace: two phases, and a transfer that gave out goes on where it stopped.

A push first finds out what differs, then sends just that.

Phase one needs no rsync and one round trip. The scan gives a record of every local file; what differs from
this checkout's last push goes to the host, which looks at every file that it should hold and answers with the
paths to send, to delete and to keep (`plan`, `replica`). So both sides are compared in full each time, by the
quick check of rsync(1) with times to the nanosecond, while what travels follows the change and not the tree.
A host that knows nothing of that last push asks for the whole listing.

Phase two is rsync, through patchwork, with exactly the paths of phase one, and -I since what to send is
decided; two rsyncs at once where there are many (`MANY_FILES`). Where phase one names nothing there is no
phase two, for `inv sync` and `--verify` neither: a dry run of rsync over the whole list would look at the
same sizes and times once more, and by itself takes longer than all of phase one. A small change
(`INLINE_PUSH_BYTES`) may travel in `sync.finish` instead, though not for these two: rsync takes about six
round trips, that none.
What is overwritten is put aside (--backup-dir) until `sync.finish` has seen that it was nobody's work; that
closes the gap between looking and overwriting. Deleting comes last, there, and only of files that are still
as they were pushed. `sync.finish` also writes the stamp; its parameters may ride along with the next request.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from remote_tools.errors import UnavailableError
from remote_tools.host import messages
from remote_tools.host.listing import pack, size_of, unpack
from remote_tools.host.messages import ClearParams, PushEnded, PushEnding
from remote_tools.sync import rsync
from remote_tools.sync.last_push import LastPush
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.plan import Plan, PushMode, check_deletes, make_plan
from remote_tools.sync.progress import Bar, count_text
from remote_tools.sync.rsync_output import RsyncOutput
from remote_tools.sync.rsync_processes import Processes
from remote_tools.sync.transfer import LARGE_BYTES, retry
from remote_tools.sync.workspace import Workspace, look, shown

SENDINGS = 3
"""How often a file is sent that changes while it is sent, before it is left at that."""
INLINE_PUSH_BYTES = 128 * 1024
"""Size up to which a whole change rides in the next request: less than a round trip's worth of bytes."""
MANY_FILES = 1_000
"""From so many files on two rsyncs share a push: each reads its list byte by byte, in two system calls each
(rsync's io.c, read_line), which takes longer than sending small files does."""


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Args:
        plan: what phase one named.
        stamp: of the tree that is there now.
        sent: how many files were sent.
        sent_bytes: their size.
        warnings: what the user should know, a line each.
        ending: parameters of `sync.finish`, which is still to be asked; None after a dry run.
    """

    plan: Plan
    stamp: str
    sent: int
    sent_bytes: int
    warnings: tuple[str, ...]
    ending: PushEnding | None


def push(host: OpenHost, workspace: Workspace, mode: PushMode) -> PushResult:
    """Make the host's folder hold the workspace, up to `sync.finish`.

    Args:
        host: the host.
        workspace: a fresh scan.
        mode: what this push does.

    Raises:
        DataError: much would be deleted at once.
        TemporaryError: the connection gave out again and again.
        RemoteError: anything else that went wrong; says what.
    """
    return retry(host, "sync", lambda: _push(host, workspace, mode))


def finish(host: OpenHost, result: PushResult) -> list[str]:
    """End a push, where nothing carries its parameters along; return what the user should know."""
    return [] if result.ending is None else ended_lines(host.link.call(messages.FINISH(result.ending)))


def ended_lines(reply: PushEnded) -> list[str]:
    """Return what the user should know of a push that has ended, from the host's reply."""
    lines = [f"{shown(os.fsencode(path))} stays on the host: {why}" for path, why in reply["kept"]]
    lines += [
        f"{shown(os.fsencode(path))} on the host is kept as {shown(os.fsencode(name))}"
        for path, name in reply["beside"]
    ]
    lines += [f"{shown(os.fsencode(path))} on the host is not as it was sent" for path in reply["differs"]]
    return lines


def _push(host: OpenHost, workspace: Workspace, mode: PushMode) -> PushResult:
    plan = make_plan(host, workspace, mode.dry_run)
    if mode.dry_run:
        return PushResult(plan, workspace.stamp, 0, 0, (*workspace.warnings, *plan.warnings()), None)
    check_deletes(plan, mode.force)
    sent = _Sent(host, plan, dict(workspace.files))
    parts = _parts(plan, host.settings.rsync_options)
    _make_way(sent, parts)
    if plan.send and not (
        mode.inline
        and _fits_inline(plan, host.settings.rsync_options)
        and sent.load(os.fsencode(workspace.root))
    ):
        with host.display.bar("Uploading", len(plan.send), plan.size_bytes, "📤") as bar:
            _send_until_unchanged(sent, parts, bar)
    arrived = workspace.with_files(sent.files)
    LastPush(workspace.root, host.link.alias, host.settings.code_path).save(arrived)
    return PushResult(
        plan,
        arrived.stamp,
        len(plan.send) - len(sent.vanished),
        sum(size_of(sent.files[path]) for path in plan.send if path in sent.files),
        (*workspace.warnings, *plan.warnings(), *sent.warnings),
        sent.ending(arrived.stamp),
    )


def _fits_inline(plan: Plan, rsync_options: Sequence[str]) -> bool:
    """Tell whether a change is small, and rsync was not told to send it in a way of its own."""
    return not rsync_options and plan.size_bytes <= INLINE_PUSH_BYTES


def _parts(plan: Plan, rsync_options: Sequence[str]) -> list[Sequence[bytes]]:
    """Share what is sent among rsyncs; one of them where it was told to send it in a way of its own."""
    paths = sorted(plan.send)
    half = len(paths) // 2
    return [paths] if len(paths) < MANY_FILES or rsync_options else [paths[:half], paths[half:]]


def _make_way(sent: _Sent, parts: Sequence[Sequence[bytes]]) -> None:
    """Have moved aside what stands in the way there, and made what two rsyncs would make at once."""
    plan = sent.plan
    shared = [os.path.commonpath((one[-1], two[0])) for one, two in pairwise(parts)]
    if plan.blocked or shared:
        making: ClearParams = {
            **plan.client,
            "blocked": pack(plan.blocked),
            "delete": pack(plan.delete),
            "folders": pack(shared),
            "date": plan.date,
        }
        cleared = sent.host.link.call(messages.CLEAR(making))
        sent.removed.update(unpack(cleared["removed"]))


@dataclass
class _Sent:
    """The files as they were really sent, which `sync.finish` asks for."""

    host: OpenHost
    plan: Plan
    files: dict[bytes, bytes]
    later: dict[bytes, bytes] = field(default_factory=dict)
    vanished: set[bytes] = field(default_factory=set)
    removed: set[bytes] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)

    def load(self, top: bytes) -> bool:
        """Read what is to be sent, for riding along; False where a file is another one by now."""
        found = {}
        for path in self.plan.send:
            record = self.files[path]
            try:
                data = b"" if record[:1] == b"l" else Path(os.fsdecode(top + b"/" + path)).read_bytes()
            except OSError:
                return False
            if look(top, path) != record:
                return False
            found[os.fsdecode(path)] = base64.b64encode(data).decode("ascii")
        self.contents = found
        return True

    def recheck(self, top: bytes, paths: Iterable[bytes]) -> list[bytes]:
        """Look at what was sent once more; return what changed meanwhile."""
        changed = []
        for path in paths:
            now = look(top, path)
            if now is None:
                self.vanished.add(path)
                self.files.pop(path, None)
                self.warnings.append(f"{shown(path)} vanished while it was sent")
            elif now != self.files.get(path):
                self.files[path] = self.later[path] = now
                changed.append(path)
        return changed

    def ending(self, stamp: str) -> PushEnding:
        """Return the parameters of `sync.finish`."""
        return {
            **self.plan.client,
            "stamp": stamp,
            "date": self.plan.date,
            "records": pack(self.later.values()),
            "vanished": pack(self.vanished),
            "absent": pack(self.plan.left_out),
            "delete": pack(path for path in self.plan.delete if path not in self.removed),
            "kept": pack(self.plan.staying),
            "contents": self.contents,
            "aside": secrets.token_hex(8),
            "altering": bool(rsync.names_of(self.host.settings.rsync_options) & rsync.ALTERING),
        }


def _send_until_unchanged(sent: _Sent, parts: Sequence[Sequence[bytes]], bar: Bar) -> None:
    """Send what the plan names, and again what changes while it is sent."""
    top = os.fsencode(sent.host.settings.root)
    for _ in range(SENDINGS):
        _send(sent, parts, bar)
        paths = sent.recheck(top, chain.from_iterable(parts))
        if not paths:
            return
        parts = [paths]
        bar.grow(len(paths), sum(size_of(sent.files[path]) for path in paths))
    names = ", ".join(map(shown, paths[:3])) + (", ..." if len(paths) > 3 else "")
    sent.warnings.append(f"{count_text(len(paths), 'file')} changed each time it was sent: {names}")


@dataclass(frozen=True)
class _Endpoint:
    """What patchwork reads of a Connection.

    A real Connection's host is the resolved name, with which all that ~/.ssh/config says of the alias is
    lost, and its `local` holds all output in memory (invoke#1079).
    """

    user: str
    host: str
    port: str
    local: Callable[[str], None]
    connect_kwargs: Mapping[str, Any] = field(default_factory=dict)


def _send(sent: _Sent, parts: Sequence[Sequence[bytes]], bar: Bar) -> None:
    """Send files with rsync; patchwork pastes every string as it is into one line for the shell."""
    link, settings = sent.host.link, sent.host.settings
    plan, output, patchwork_rsync = sent.plan, RsyncOutput(bar), _patchwork_rsync()
    with ExitStack() as stack:
        patience_s = rsync.patience_s(plan.pair, settings.timeout_s)
        processes = stack.enter_context(Processes(patience_s))
        for paths in parts:
            listing = stack.enter_context(rsync.listed(paths))
            large = any(size_of(sent.files[path]) > LARGE_BYTES for path in paths if path in sent.files)
            aside = secrets.token_hex(8)
            words = rsync.push_words(
                plan.pair, settings.rsync_options, settings.timeout_s, listing, large, aside
            )
            patchwork_rsync(
                _Endpoint(
                    shlex.quote(link.master.resolved["user"]),
                    shlex.quote(link.alias.rpartition("@")[2]),
                    link.master.resolved["port"],
                    partial(processes.start, take=output.reader()),
                ),
                shlex.quote(f"{settings.root}/"),
                shlex.quote(rsync.remote_path(plan.pair, f"{plan.root}/")),
                rsync_opts=shlex.join(words),
                ssh_opts=rsync.rsh(link.ssh_words()[1:]).replace("'", "'\\''"),
            )
        outcomes = processes.finish()
    for outcome in outcomes:
        rsync.check(outcome, link.alias, "sync", settings.timeout_s)


def _patchwork_rsync() -> Callable[..., Any]:
    """Return patchwork.transfers.rsync.

    Its last release imports `six` through Invoke, which stopped shipping it in 2.0, and pins fabric<3, so
    that no installer brings it along.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import six

        sys.modules.setdefault("invoke.vendor.six", six)
        from patchwork.transfers import rsync as patchwork_rsync
    except ImportError as error:
        hint = "pip install --no-deps patchwork==1.0.1"
        raise UnavailableError("sync", f"{error.name or 'patchwork'} is not installed", hint) from error
    found: Callable[..., Any] = patchwork_rsync
    return found
