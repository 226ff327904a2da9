"""Find out what a push has to do: phase one, the client's side."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from getpass import getuser

from remote_tools.errors import DataError, SoftwareError
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


@dataclass(frozen=True)
class PushMode:
    """What one push does, besides what the settings say.

    Args:
        force: delete even if that is much at once.
        dry_run: only plan.
        inline: a small change may travel inside `sync.finish` instead of by an rsync of its own.
    """

    force: bool = False
    dry_run: bool = False
    inline: bool = False


@dataclass(frozen=True)
class Plan:
    """What a push will do, path by path.

    Args:
        new, changed: what is sent.
        conflicts: sent too; there each was changed, or made, by someone else, whose file is kept beside it.
        blocked: what stands in the way there, a folder or a link, and is moved aside.
        delete: what was pushed and is gone here.
        staying: what was pushed, is no longer sent, and stays since it still exists here, or by --no-delete.
        kept: (path, why) of what is gone here and stays there.
        sizes_bytes: of every path that is sent.
        pushed: how many files the last push left there.
        root: the code path, absolute.
        pair: both sides' rsync.
        client: who we are to the host.
        holder: who pushed there last.
        date: what names of kept files end with.
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
        """The paths that are sent."""
        return (*self.new, *self.changed, *self.conflicts)

    @property
    def size_bytes(self) -> int:
        """Size of what is sent."""
        return sum(self.sizes_bytes.values())

    def kept_as(self, path: bytes) -> bytes:
        """Return the name that a file of the host's gets when it gives way."""
        return path + b".remote-" + self.date.encode("ascii")

    def items(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield (what, path, size in bytes) of everything that will be done."""
        for what, paths in (("new", self.new), ("changed", self.changed), ("conflict", self.conflicts)):
            yield from ((what, path, self.sizes_bytes[path]) for path in paths)
        yield from (("moved aside", path, 0) for path in self.blocked)
        yield from (("deleted", path, 0) for path in self.delete)
        yield from (("kept", path, 0) for path, _ in self.kept)

    def lines(self) -> Iterator[str]:
        """Yield the plan for people, a line each."""
        for what, path, size_bytes in self.items():
            size = size_text(size_bytes) if what in ("new", "changed", "conflict") else ""
            yield f"{what:<11} {size:>8}  {shown(path)}"
        if not (self.send or self.blocked or self.delete or self.kept):
            yield "nothing to do: the host holds the workspace"

    def to_json(self) -> dict[str, object]:
        """Return the plan for programs; names that are no UTF-8 hold lone surrogates (os.fsdecode)."""
        return {
            "root": self.root,
            "files": len(self.send),
            "size_bytes": self.size_bytes,
            "items": [
                {"what": what, "path": os.fsdecode(path), "size_bytes": size}
                for what, path, size in self.items()
            ],
        }

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know, a line each."""
        for path in self.conflicts:
            yield f"{shown(path)} was changed on the host too: kept there as {shown(self.kept_as(path))}"
        for path in self.blocked:
            yield f"{shown(path)} on the host is in the way: kept there as {shown(self.kept_as(path))}"
        for path, why in self.kept:
            yield f"{shown(path)} is gone here and stays on the host: {why}"
        if self.staying:
            yield f"{count_text(len(self.staying), 'file')} pushed earlier, no longer sent, stay on the host"
        if self.left_out:
            yield f"{count_text(len(self.left_out), 'file')} left out by RSYNC_OPTIONS"
        if self.holder and self.holder["client"] != self.client["client"]:
            yield f"{self.root} was last pushed by {self.holder['name']}"


def make_plan(host: OpenHost, workspace: Workspace, dry_run: bool) -> Plan:
    """Compare the workspace with the host's tree, in one round trip.

    Raises:
        RemoteError: the host refuses, or has no rsync.
    """
    link, settings = host.link, host.settings
    last = LastPush(workspace.root, link.alias, settings.code_path)
    client: Client = {"client": client_id(workspace.root), "name": f"{getuser()}@{socket.gethostname()}"}
    asked: ComparisonParams = {
        **client,
        "stamp": workspace.stamp,
        "dry": dry_run,
        "rsync": host_rsync(settings.rsync_options),
        "more": _by_contents(settings.rsync_options),
    }
    reply: BeginReply = {"want_listing": True}
    changes = last.changes(workspace)
    if changes is not None:
        changed, gone = map(pack, changes)
        less: ChangesParams = {**asked, "base": last.stamp, "changed": changed, "gone": gone}
        reply = link.call(messages.BEGIN(less))
    if "want_listing" in reply:
        whole: ListingParams = {**asked, "listing": pack(workspace.files.values())}
        reply = link.call(messages.BEGIN(whole))
    if "want_listing" in reply:
        raise SoftwareError("sync", f"{link.alias} asks for the whole listing again")
    return _read_plan(host, workspace, client, reply)


def _by_contents(rsync_options: Sequence[str]) -> bool:
    """Tell whether RSYNC_OPTIONS say to compare the contents."""
    return bool(rsync.names_of(rsync_options) & rsync.CHECKSUM)


def host_rsync(rsync_options: Sequence[str]) -> str:
    """Return the program to look for on the host; --rsync-path may also be a whole command."""
    given = [word for word in rsync_options if word.startswith("--rsync-path=")]
    path = given[-1].partition("=")[2] if given else "rsync"
    return path if " " not in path else "rsync"


def _read_plan(
    host: OpenHost,
    workspace: Workspace,
    client: Client,
    reply: PlanReply,
) -> Plan:
    link, settings = host.link, host.settings
    pair = rsync.pair_with(link.alias, reply["rsync"], "sync")
    new, changed = unpack(reply["new"]), unpack(reply["changed"])
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
            changed += rsync.differing(link.alias, link.ssh_words(), pair, roots, rest, words, timeout_s)
    left_out = rsync.left_out(workspace.root, [*new, *changed, *conflicts], settings.rsync_options)
    new, changed, conflicts = (
        [path for path in paths if path not in left_out] for paths in (new, changed, conflicts)
    )
    gone, staying = _sort_deletes(workspace, unpack(reply["delete"]), settings.delete)
    return Plan(
        new=tuple(new),
        changed=tuple(changed),
        conflicts=tuple(conflicts),
        blocked=tuple(unpack(reply["blocked"])),
        delete=tuple(gone),
        staying=tuple(staying),
        kept=tuple((os.fsencode(path), why) for path, why in reply["kept"]),
        left_out=frozenset(left_out),
        sizes_bytes={path: size_of(workspace.files[path]) for path in (*new, *changed, *conflicts)},
        pushed=reply["pushed"],
        root=reply["root"],
        pair=pair,
        client=client,
        holder=reply["holder"],
        date=time.strftime("%Y%m%d-%H%M%S"),
    )


def _sort_deletes(
    workspace: Workspace, candidates: Iterable[bytes], delete: bool
) -> tuple[list[bytes], list[bytes]]:
    """Tell what is gone here from what is only excluded now; below a file or a link nothing exists."""
    gone: list[bytes] = []
    staying: list[bytes] = []
    top = os.fsencode(workspace.root)
    for path in candidates:
        above, under = path, False
        while b"/" in above and not under:
            above = above.rpartition(b"/")[0]
            under = above in workspace.files
        exists = not under and look(top, path) is not None
        (staying if exists or not delete else gone).append(path)
    return gone, staying


def check_deletes(plan: Plan, force: bool) -> None:
    """Stop where much would be deleted at once.

    Raises:
        DataError: more than a tenth of what was pushed, and more than 20 files.
    """
    count = len(plan.delete)
    if force or count <= MANY_DELETES or count <= MANY_DELETES_SHARE * plan.pushed:
        return
    raise DataError(
        "sync",
        f"{count:,} of {plan.pushed:,} pushed files are gone here and would be deleted in {plan.root}",
        "if that is right, inv sync --force; to look first, inv sync --dry-run; to keep them, --no-delete",
    )
