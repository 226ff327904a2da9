"""Pull results: exactly the files that the host listed; an interrupted transfer is resumed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remote_tools.host.listing import size_of
from remote_tools.host.messages import RsyncHere
from remote_tools.sync import rsync
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.progress import Bar
from remote_tools.sync.rsync_output import RsyncOutput
from remote_tools.sync.rsync_processes import run_rsync
from remote_tools.sync.transfer import LARGE_BYTES, SAME_COMMAND, retry
from remote_tools.sync.workspace import look, shown

CONTROLS = bytes([*range(32), 127])


@dataclass(frozen=True)
class PullResult:
    """The result of a pull.

    Args:
        files: how many of the requested files are on this machine now.
        size_bytes: their total size.
        missing: requested paths that the host no longer has.
        refused: rejected paths, each with the reason.
    """

    files: int
    size_bytes: int
    missing: tuple[bytes, ...] = ()
    refused: Mapping[bytes, str] = field(default_factory=dict)


def pull(
    host: OpenHost,
    remote_root: str,
    entries: Sequence[tuple[bytes, int]],
    host_rsync: RsyncHere,
    hint: str = SAME_COMMAND,
    before: Mapping[bytes, int] | None = None,
) -> PullResult:
    """Fetch exactly these files; each appears complete or not at all.

    Args:
        host: the host; files are written below its settings' `local_dir`.
        remote_root: the folder on the host, absolute.
        entries: (path below `remote_root`, size in bytes), as the host reported them.
        host_rsync: the rsync of the host.
        hint: what to type next if every attempt fails.
        before: size in bytes of the files of the same fetch that are here already; the bar counts them too.

    Raises:
        TemporaryError: the connection was lost in every attempt.
        RemoteError: rsync is missing or failed.
    """
    local_dir = host.settings.local_dir
    pair = rsync.pair_with(host.link.alias, host_rsync, "fetch")
    fence = Fence(local_dir)
    refused = {path: fault for path, _ in entries if (fault := fence.fault(path))}
    wanted = {path: size for path, size in entries if path not in refused}
    if not wanted:
        return PullResult(0, 0, (), refused)
    local_dir.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        _receive(host, pair, remote_root, wanted, bar)

    done = before or {}
    count, size_bytes = len(wanted) + len(done), sum(wanted.values()) + sum(done.values())
    with host.display.bar("Downloading", count, size_bytes, "📦") as bar:
        bar.advance(len(done), sum(done.values()))
        retry(host, "fetch", attempt, hint)
    top = os.fsencode(local_dir)
    missing = tuple(path for path in wanted if look(top, path) is None)
    sizes = [size_of(record) for path in wanted if (record := look(top, path)) is not None]
    return PullResult(len(sizes), sum(sizes), missing, refused)


def _receive(
    host: OpenHost,
    pair: rsync.Pair,
    remote_root: str,
    wanted: Mapping[bytes, int],
    bar: Bar,
) -> None:
    """Run rsync directly; patchwork can only push."""
    link, settings = host.link, host.settings
    with rsync.listed(wanted) as listing:
        large = any(size_bytes > LARGE_BYTES for size_bytes in wanted.values())
        words = rsync.pull_words(pair, settings.rsync_options, settings.timeout_s, listing, large)
        more, shell = rsync.past_noise(link.ssh_words(), link.noise, settings.rsync_options)
        command = ["rsync", *words, *more, f"--rsh={rsync.rsh(shell)}"]
        path = rsync.remote_path(pair, remote_root + "/")
        command += [rsync.address(link.alias, path), f"{settings.local_dir}/"]
        outcome = run_rsync(command, RsyncOutput(bar).reader(), rsync.patience_s(pair, settings.timeout_s))
    rsync.check(outcome, link.alias, "fetch", settings.timeout_s)


class Fence:
    """Reject paths that would be written outside a folder; real folders are cached.

    Args:
        local_dir: the folder.
    """

    def __init__(self, local_dir: Path) -> None:
        """Take the folder, which need not exist yet."""
        self._top = os.fsencode(local_dir)
        self._real = {b""}

    def fault(self, path: bytes) -> str:
        """Return why a path from the host must be rejected; empty if it may be written."""
        parts = path.split(b"/")
        if path.startswith(b"/") or b".." in parts:
            return "it leads out of the folder"
        if b"" in parts or b"." in parts:
            return "it is no plain path"
        if path.translate(None, CONTROLS) != path:
            return "its name holds control characters"
        return self._obstacle(path.rpartition(b"/")[0])

    def _obstacle(self, folder: bytes) -> str:
        """Return what blocks a folder or one of its parents; a missing folder blocks nothing."""
        if folder in self._real:
            return ""
        obstacle = self._obstacle(folder.rpartition(b"/")[0])
        if obstacle:
            return obstacle
        full = self._top + b"/" + folder
        try:
            mode = os.lstat(full).st_mode
        except FileNotFoundError:
            return ""
        if not stat.S_ISDIR(mode):
            return f"{shown(full)} is {'a link' if stat.S_ISLNK(mode) else 'no folder'}"
        self._real.add(folder)
        return ""
