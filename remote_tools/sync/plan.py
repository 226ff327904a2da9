"""Plan a push: the client's side of phase one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from remote_tools.errors import BusyError, DataError, SoftwareError, not_asked
from remote_tools.host import messages
from remote_tools.host.listing import digest_of, pack, size_of, unpack
from remote_tools.host.messages import (
    BeginReply,
    ChangesParams,
    Client,
    ComparisonParams,
    Holder,
    ListingParams,
    PlanReply,
)
from remote_tools.sync import rsync
from remote_tools.sync.last_push import LastPush, client_id
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.progress import count_text, size_text
from remote_tools.sync.workspace import Workspace, look, shown

MANY_DELETES = 20
MANY_DELETES_SHARE = 0.1
HEAVY_BYTES = 100_000_000
"""A push of this size is announced, with the files that make it large."""
POINTER_BYTES = 1024
"""A git-lfs pointer is smaller (git-lfs, docs/spec.md), and begins with `POINTER`."""
POINTER = b"version https://git-lfs.github.com/spec/"
BUSY_S = 3600
"""Longest wait for another push to the code path."""


@dataclass(frozen=True)
class PushMode:
    """Options of one push, besides the settings.

    Args:
        force: delete files even if they are many.
        dry_run: only plan.
        inline: send a small change inside `sync.finish` instead of by rsync.
    """

    force: bool = False
    dry_run: bool = False
    inline: bool = False


@dataclass(frozen=True)
class Plan:
    """What a push will do, path by path.

    Args:
        new, changed: paths to send.
        conflicts: paths to send that someone else changed or created on the host; that file is kept beside.
        blocked: folders or links on the host in the way of a file; they are moved aside.
        delete: paths that were pushed and are deleted here; they are deleted on the host.
        staying: paths that were pushed and are no longer sent, but stay on the host because they still exist
            here, or because of --no-delete.
        kept: (path, why) of files that are deleted here but stay on the host.
        left_out: paths that a filter in RSYNC_OPTIONS leaves out.
        sizes_bytes: the size of every path to send.
        pushed: how many files the last push left on the host.
        root: the code path on the host, absolute.
        pair: the rsync of both sides.
        client: this checkout's id and name.
        holder: the client that pushed to this code path last.
        date: the end of the names of kept files.
    """

    new: tuple[bytes, ...]
    changed: tuple[bytes, ...]
    conflicts: tuple[bytes, ...]
    blocked: tuple[bytes, ...]
    delete: tuple[bytes, ...]
    staying: tuple[bytes, ...]
    kept: tuple[tuple[bytes, str], ...]
    left_out: frozenset[bytes]
    sizes_bytes: Mapping[bytes, int]
    pushed: int
    root: str
    pair: rsync.Pair
    client: Client
    holder: Holder | None
    date: str

    @property
    def send(self) -> tuple[bytes, ...]:
        """The paths to send."""
        return (*self.new, *self.changed, *self.conflicts)

    @property
    def size_bytes(self) -> int:
        """Total size of the files to send."""
        return sum(self.sizes_bytes.values())

    def kept_as(self, path: bytes) -> bytes:
        """Return the name under which a file on the host is put aside."""
        return path + b".remote-" + self.date.encode("ascii")

    def items(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield (action, path, size in bytes) for each step of the push."""
        for what, paths in (("new", self.new), ("changed", self.changed), ("conflict", self.conflicts)):
            yield from ((what, path, self.sizes_bytes[path]) for path in paths)
        yield from (("moved aside", path, 0) for path in self.blocked)
        yield from (("deleted", path, 0) for path in self.delete)
        yield from (("kept", path, 0) for path, _ in self.kept)

    def lines(self) -> Iterator[str]:
        """Yield the plan as lines for people."""
        for what, path, size_bytes in self.items():
            size = size_text(size_bytes) if what in ("new", "changed", "conflict") else ""
            yield f"{what:<11} {size:>8}  {shown(path)}"
        if not (self.send or self.blocked or self.delete or self.kept):
            yield "nothing to do: the host holds the workspace"

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON values; names that are not UTF-8 hold lone surrogates (os.fsdecode)."""
        return {
            "root": self.root,
            "files": len(self.send),
            "size_bytes": self.size_bytes,
            "items": [
                {"what": what, "path": os.fsdecode(path), "size_bytes": size}
                for what, path, size in self.items()
            ],
        }

    def announcements(self, workspace: Workspace) -> Iterator[str]:
        """Yield what the user may want to know before the files are sent, a line each."""
        if self.size_bytes >= HEAVY_BYTES:
            large = [path for path in self.send if self.sizes_bytes[path] * 20 >= self.size_bytes]
            largest = sorted(large, key=lambda path: self.sizes_bytes[path], reverse=True)[:3]
            names = ", ".join(f"{shown(path)} ({size_text(self.sizes_bytes[path])})" for path in largest)
            total = size_text(self.size_bytes)
            which = f"the largest: {names}" if names else f"{count_text(len(self.send), 'file')}"
            yield f"sync: {total} to send; {which}; `exclude` in invoke.yaml keeps files here"
        pointers = self._pointers(workspace)
        if pointers:
            names = ", ".join(map(shown, pointers[:3])) + (", ..." if len(pointers) > 3 else "")
            yield (
                f"sync: {count_text(len(pointers), 'file')} of git-lfs not downloaded here: only "
                f"pointers are sent: {names}; git lfs pull"
            )

    def _pointers(self, workspace: Workspace) -> list[bytes]:
        """Return the paths to send that hold git-lfs's pointer in place of the content."""
        plain = (path for path, record in workspace.files.items() if record[:1] == b"f")
        if not any(_uses_lfs(workspace.root, path) for path in plain):
            return []
        small = (path for path in self.send if len(POINTER) < self.sizes_bytes[path] < POINTER_BYTES)
        return [path for path in small if _head(workspace.root, path).startswith(POINTER)]

    def warnings(self) -> Iterator[str]:
        """Yield the warnings for the user, a line each."""
        for path in self.conflicts:
            yield f"{shown(path)} was changed on the host too: kept there as {shown(self.kept_as(path))}"
        for path in self.blocked:
            yield f"{shown(path)} on the host is in the way: kept there as {shown(self.kept_as(path))}"
        for path, why in self.kept:
            yield f"{shown(path)} was deleted here but stays on the host: {why}"
        if self.staying:
            yield f"{count_text(len(self.staying), 'file')} pushed earlier, no longer sent, stay on the host"
        if self.left_out:
            yield f"{count_text(len(self.left_out), 'file')} left out by RSYNC_OPTIONS"
        if self.holder and self.holder["client"] != self.client["client"]:
            yield f"{self.root} was last pushed by {self.holder['name']}"


def _head(root: Path, path: bytes) -> bytes:
    """Return the beginning of a file of the workspace; empty if it cannot be read."""
    try:
        with (root / os.fsdecode(path)).open("rb") as file:
            return file.read(POINTER_BYTES)
    except OSError:
        return b""


def _uses_lfs(root: Path, path: bytes) -> bool:
    return path.rpartition(b"/")[2] == b".gitattributes" and b"filter=lfs" in _head(root, path)


def make_plan(host: OpenHost, workspace: Workspace, last: LastPush, dry_run: bool) -> Plan:
    """Compare the workspace with the host's tree; one round trip, two if the host has no base.

    Args:
        host: the host.
        workspace: a fresh scan.
        last: what was pushed there before.
        dry_run: do not change the host's state.

    Raises:
        RemoteError: the host rejects the request, or has no rsync.
    """
    link, settings = host.link, host.settings
    client: Client = {
        "client": client_id(workspace.root, make=not dry_run),
        "name": f"{getuser()}@{socket.gethostname()}",
    }
    asked: ComparisonParams = {
        **client,
        "stamp": workspace.stamp,
        "dry": dry_run,
        "rsync": host_rsync(settings.rsync_options),
        "more": _by_contents(settings.rsync_options),
    }
    reply: BeginReply = {"want_listing": True}
    replaced = last.replaced(workspace)
    asked["more"] |= bool(replaced)
    changes = last.changes(workspace)
    if changes is not None:
        changed, gone = map(pack, changes)
        less: ChangesParams = {**asked, "base": last.stamp, "changed": changed, "gone": gone}
        reply = _begin(host, less)
    if "want_listing" in reply:
        whole: ListingParams = {**asked, "listing": pack(workspace.files.values())}
        reply = _begin(host, whole)
    if "want_listing" in reply:
        raise SoftwareError("sync", f"{link.alias} asks for the whole listing again")
    return _read_plan(host, workspace, client, reply, (last, replaced))


def _begin(host: OpenHost, params: ChangesParams | ListingParams) -> BeginReply:
    """Ask the host to begin; wait for another push, and say for whose."""
    deadline, told = time.monotonic() + BUSY_S, False
    while True:
        try:
            return host.link.call(messages.BEGIN(params))
        except BusyError as error:  # the host has waited too
            if time.monotonic() > deadline:
                raise
            if not told:
                host.display.say(f"{error.reason}; waiting until that push has ended (Ctrl-C: stop)")
            told = True


def _by_contents(rsync_options: Sequence[str]) -> bool:
    """Return whether RSYNC_OPTIONS ask to compare contents."""
    return bool(rsync.names_of(rsync_options) & rsync.CHECKSUM)


def host_rsync(rsync_options: Sequence[str]) -> str:
    """Return the rsync to look for on the host; --rsync-path may also be a command of several words."""
    given = [word for word in rsync_options if word.startswith("--rsync-path=")]
    path = given[-1].partition("=")[2] if given else "rsync"
    return path if " " not in path else "rsync"


def _read_plan(
    host: OpenHost,
    workspace: Workspace,
    client: Client,
    reply: PlanReply,
    before: tuple[LastPush, Sequence[bytes]],
) -> Plan:
    link, settings = host.link, host.settings
    last, replaced = before
    pair = rsync.pair_with(link.alias, reply["rsync"], "sync")
    new, changed, blocked, candidates = (
        unpack(each) for each in (reply["new"], reply["changed"], reply["blocked"], reply["delete"])
    )
    _check_paths(link.alias, workspace, reply, (*new, *changed), (*blocked, *candidates))
    conflicts: list[bytes] = []
    top = os.fsencode(workspace.root) + b"/"
    for name, digest in reply["conflict"]:
        path = os.fsencode(name)
        alike = digest and digest == digest_of(top + path)
        (changed if alike else conflicts).append(path)
    if _by_contents(settings.rsync_options):
        named = {*new, *changed, *conflicts}
        rest = [path for path, record in workspace.files.items() if record[:1] == b"f" and path not in named]
        if rest:
            roots = (workspace.root, reply["root"])
            words, timeout_s = settings.rsync_options, settings.timeout_s
            transport = rsync.past_noise(link.ssh_words(), link.noise, words)
            changed += rsync.differing(link.alias, transport, pair, roots, rest, words, timeout_s)
    named = {*new, *changed, *conflicts}
    changed += [path for path in replaced if path not in named]
    left_out = rsync.left_out(workspace.root, [*new, *changed, *conflicts], settings.rsync_options)
    new, changed, conflicts = (
        [path for path in paths if path not in left_out] for paths in (new, changed, conflicts)
    )
    known = last.paths() if candidates else set()
    gone, staying = _sort_deletes(workspace, candidates, known, settings.delete)
    return Plan(
        new=tuple(new),
        changed=tuple(changed),
        conflicts=tuple(conflicts),
        blocked=tuple(blocked),
        delete=tuple(gone),
        staying=tuple(staying),
        kept=tuple((os.fsencode(path), why) for path, why in reply["kept"]),
        left_out=frozenset(left_out),
        sizes_bytes={path: size_of(workspace.files[path]) for path in (*new, *changed, *conflicts)},
        pushed=min(reply["pushed"], len(known)),
        root=reply["root"],
        pair=pair,
        client=client,
        holder=reply["holder"],
        date=time.strftime("%Y%m%d-%H%M%S"),
    )


def _check_paths(
    alias: str, workspace: Workspace, reply: PlanReply, wanted: Iterable[bytes], below: Iterable[bytes]
) -> None:
    """Check the paths of a plan before anything here is looked at.

    Args:
        alias: the host.
        workspace: what was listed.
        reply: the plan.
        wanted: paths that the host has not, or has otherwise.
        below: other paths; they need not exist here.

    Raises:
        ProtocolError: the host wants a file that was not listed, or names one outside of the workspace.
    """
    listed = [*wanted, *(os.fsencode(name) for name, _digest in reply["conflict"])]
    foreign = [path for path in listed if path not in workspace.files]
    foreign += [path for path in below if not {b"", b".", b".."}.isdisjoint(path.split(b"/"))]
    if not reply["root"].startswith("/"):
        foreign.append(os.fsencode(reply["root"]))
    if foreign:
        raise not_asked("sync", alias, f"the path {shown(foreign[0])}")


def _sort_deletes(
    workspace: Workspace, candidates: Iterable[bytes], known: set[bytes], delete: bool
) -> tuple[list[bytes], list[bytes]]:
    """Split paths into (to delete on the host, to keep there); without `delete` all are kept.

    A path that still exists here is kept, unless a file or a link of the workspace is now its parent. One
    that was never pushed from here is kept too, and not looked at: the host would learn whether it exists.
    """
    gone: list[bytes] = []
    staying: list[bytes] = []
    top = os.fsencode(workspace.root)
    for path in candidates:
        if path not in known:
            staying.append(path)
            continue
        above, under = path, False
        while b"/" in above and not under:
            above = above.rpartition(b"/")[0]
            under = above in workspace.files
        exists = not under and look(top, path) is not None
        (staying if exists or not delete else gone).append(path)
    return gone, staying


def check_deletes(plan: Plan, force: bool) -> None:
    """Reject a plan that deletes many files.

    Raises:
        DataError: it deletes more than a tenth of the pushed files, and more than 20.
    """
    count = len(plan.delete)
    if force or count <= MANY_DELETES or count <= MANY_DELETES_SHARE * plan.pushed:
        return
    raise DataError(
        "sync",
        f"{count:,} of {plan.pushed:,} pushed files are gone here and would be deleted in {plan.root}",
        "inv sync --dry-run lists them; inv sync --force deletes them; --no-delete keeps them",
    )
