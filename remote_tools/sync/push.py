"""Push the workspace in two phases: find out what differs, then send it. An interrupted transfer is resumed.

Phase one takes one round trip and no rsync. The scan makes a record of every local file. The records that
differ from this checkout's last push go to the host. The host checks every file that it should hold, and
replies with the paths to send, to delete and to keep (`plan`, `replica`). So both sides are compared in full
each time, by the quick check of rsync(1) with times in nanoseconds, but only changes are transferred. A host
without the base of the last push asks for the whole listing.

Phase two is rsync, through patchwork, with exactly the paths of phase one; -I because the comparison is done.
Two rsyncs run at once if there are many files (`MANY_FILES`). If phase one finds no difference, phase two is
skipped, also for `inv sync` and `--verify`: a dry run of rsync would compare the same sizes and times again,
and takes longer than phase one. Except for these two, a small change (`INLINE_PUSH_BYTES`) is sent in
`sync.finish` instead: that adds no round trip, and rsync takes about six.

rsync puts overwritten files aside (--backup-dir) until `sync.finish` has checked that nobody else changed
them: a file may change between the comparison and the transfer. `sync.finish` then deletes files, but only
those that are still as they were pushed, and writes the stamp. Its parameters may be sent with the next
request.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
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
from remote_tools.sync.workspace import Workspace, inode_of, look, shown

SENDINGS = 3
"""Most times that a file is sent if it changes during each transfer."""
INLINE_PUSH_BYTES = 128 * 1024
"""Total size up to which a change is sent in the next request: it takes less time than a round trip."""
MANY_FILES = 1_000
"""Number of files from which two rsyncs share a push: rsync makes two system calls for each byte of its list
(io.c, read_line), which takes longer than sending small files."""


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Args:
        plan: the result of phase one.
        stamp: of the tree that is on the host now.
        sent: how many files were sent.
        sent_bytes: their total size.
        warnings: for the user, a line each.
        ending: parameters of `sync.finish`, which the caller must still send; None after a dry run.
    """

    plan: Plan
    stamp: str
    sent: int
    sent_bytes: int
    warnings: tuple[str, ...]
    ending: PushEnding | None


def push(host: OpenHost, workspace: Workspace, mode: PushMode) -> PushResult:
    """Send the workspace to the host; the push is complete after `sync.finish`.

    Args:
        host: the host.
        workspace: a fresh scan.
        mode: the options of this push.

    Raises:
        DataError: many files would be deleted.
        TemporaryError: the connection was lost in every attempt.
        RemoteError: a file cannot be read or written, or rsync or the host failed.
    """
    return retry(host, "sync", lambda: _push(host, workspace, mode))


def finish(host: OpenHost, result: PushResult) -> list[str]:
    """Complete a push by a request of its own; return the messages for the user."""
    return [] if result.ending is None else ended_lines(host.link.call(messages.FINISH(result.ending)))


def ended_lines(reply: PushEnded) -> list[str]:
    """Return the messages for the user from the host's reply to `sync.finish`."""
    lines = [f"{shown(os.fsencode(path))} stays on the host: {why}" for path, why in reply["kept"]]
    lines += [
        f"{shown(os.fsencode(path))} on the host is kept as {shown(os.fsencode(name))}"
        for path, name in reply["beside"]
    ]
    lines += [
        f"{shown(os.fsencode(path))} on the host differs from the file sent" for path in reply["differs"]
    ]
    return lines


def changed_lines(paths: Sequence[str]) -> list[str]:
    """Return the messages about pushed files that a run, or somebody on the host, has changed there."""
    if not paths:
        return []
    names = ", ".join(shown(os.fsencode(path)) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return [
        f"the run reads another content than here: {names} changed on the host since the push; "
        "inv sync sends yours, and keeps theirs beside it"
    ]


def _push(host: OpenHost, workspace: Workspace, mode: PushMode) -> PushResult:
    last = LastPush(workspace.root, host.link.alias, host.settings.code_path)
    plan = make_plan(host, workspace, last, mode.dry_run)
    if mode.dry_run:
        warnings = (*workspace.warnings, *plan.announcements(workspace), *plan.warnings())
        return PushResult(plan, workspace.stamp, 0, 0, warnings, None)
    check_deletes(plan, mode.force)
    for line in plan.announcements(workspace):
        host.display.say(line)
    sent = _Sent(host, plan, dict(workspace.files), workspace.folders, dict(workspace.inodes))
    parts = _parts(plan, host.settings.rsync_options)
    _make_way(sent, parts)
    if plan.send and not (
        mode.inline
        and _fits_inline(plan, host.settings.rsync_options)
        and sent.load(os.fsencode(workspace.root))
    ):
        last.note(plan.send)
        with host.display.bar("Uploading", len(plan.send), plan.size_bytes, "📤") as bar:
            _send_until_unchanged(sent, parts, bar)
    arrived = workspace.with_files(sent.files, sent.inodes)
    last.save(arrived)
    return PushResult(
        plan,
        arrived.stamp,
        len(plan.send) - len(sent.vanished),
        sum(size_of(sent.files[path]) for path in plan.send if path in sent.files),
        (*workspace.warnings, *plan.warnings(), *sent.warnings),
        sent.ending(arrived.stamp),
    )


def _fits_inline(plan: Plan, rsync_options: Sequence[str]) -> bool:
    """Return whether a change is small and RSYNC_OPTIONS are empty: they apply to rsync only."""
    return not rsync_options and plan.size_bytes <= INLINE_PUSH_BYTES


def _parts(plan: Plan, rsync_options: Sequence[str]) -> list[Sequence[bytes]]:
    """Split the paths among rsyncs; one rsync if there are RSYNC_OPTIONS."""
    paths = sorted(plan.send)
    half = len(paths) // 2
    return [paths] if len(paths) < MANY_FILES or rsync_options else [paths[:half], paths[half:]]


def _make_way(sent: _Sent, parts: Sequence[Sequence[bytes]]) -> None:
    """Have the host move blocking paths aside, and create the folder that two rsyncs would both create."""
    plan = sent.plan
    shared = [path for one, two in pairwise(parts) if (path := os.path.commonpath((one[-1], two[0])))]
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
    """The state of the files that were sent, for `sync.finish`.

    Args:
        files: the record of every path, as it was sent.
        folders: empty folders.
        inodes: see `Workspace`.
        later: the records of files that changed after the scan.
        vanished: paths that were deleted here during the push.
        removed: paths that the host has already deleted.
        contents: the files to send inline, in Base64.
    """

    host: OpenHost
    plan: Plan
    files: dict[bytes, bytes]
    folders: Sequence[bytes]
    inodes: dict[bytes, bytes]
    later: dict[bytes, bytes] = field(default_factory=dict)
    vanished: set[bytes] = field(default_factory=set)
    removed: set[bytes] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)

    def load(self, top: bytes) -> bool:
        """Read the files to send inline; return False if one has changed since the scan."""
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
        """Compare the files again after sending; return those that changed meanwhile."""
        changed = []
        for path in paths:
            now = look(top, path)
            with suppress(OSError):
                if now is not None and path in self.inodes:
                    self.inodes[path] = inode_of(os.lstat(top + b"/" + path))
            if now is None:
                self.vanished.add(path)
                self.files.pop(path, None)
                self.inodes.pop(path, None)
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
            "sent": pack(self.plan.send),
            "folders": pack(self.folders),
            "aside": secrets.token_hex(8),
            "altering": bool(rsync.names_of(self.host.settings.rsync_options) & rsync.ALTERING),
        }


def _send_until_unchanged(sent: _Sent, parts: Sequence[Sequence[bytes]], bar: Bar) -> None:
    """Send the files of the plan; send files that change meanwhile again, up to `SENDINGS` times in all."""
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
    """The part of a Connection that patchwork reads.

    A real Connection does not serve: its host is the resolved name, so that the options of the alias in
    ~/.ssh/config would be lost, and its `local` keeps all output in memory (invoke#1079).
    """

    user: str
    host: str
    port: str
    local: Callable[[str], None]
    connect_kwargs: Mapping[str, Any] = field(default_factory=dict)


def _send(sent: _Sent, parts: Sequence[Sequence[bytes]], bar: Bar) -> None:
    """Send files with rsync; quote the strings because patchwork puts them into a shell line as they are."""
    link, settings = sent.host.link, sent.host.settings
    plan, output, patchwork_rsync = sent.plan, RsyncOutput(bar), _patchwork_rsync()
    more, shell = rsync.past_noise(link.ssh_words(), link.noise, settings.rsync_options)
    # patchwork's own --rsh begins with ssh; of two, rsync takes the last.
    last = f" {shlex.quote(f'--rsh={rsync.rsh(shell)}')}" if more else ""
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
                    partial(_start, processes, output.reader(), last),
                ),
                shlex.quote(f"{settings.root}/"),
                shlex.quote(rsync.remote_path(plan.pair, f"{plan.root}/")),
                rsync_opts=shlex.join([*words, *more]),
                ssh_opts=rsync.rsh(link.ssh_words()[1:]).replace("'", "'\\''"),
            )
        outcomes = processes.finish()
    for outcome in outcomes:
        rsync.check(outcome, link.alias, "sync", settings.timeout_s)


def _start(processes: Processes, take: Callable[[bytes], None], last: str, command: str) -> None:
    """Start patchwork's command line with more words at its end."""
    processes.start(command + last, take)


def _patchwork_rsync() -> Callable[..., Any]:
    """Return patchwork.transfers.rsync.

    Its last release imports `invoke.vendor.six`, which Invoke 2.0 removed, and pins fabric<3, so that no
    installer can install it as a dependency.

    Raises:
        UnavailableError: patchwork or six is not installed.
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
