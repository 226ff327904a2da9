"""Pull results: exactly the files that the host named; a transfer that gave out goes on where it stopped."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_tools import rsync
from remote_tools.plan import Link, PushOptions
from remote_tools.progress import Bar, Display, RsyncOutput
from remote_tools.replica import size_of
from remote_tools.rsync_processes import run
from remote_tools.transfers import LARGE_BYTES, again
from remote_tools.workspace import look, shown

CONTROLS = bytes([*range(32), 127])


@dataclass(frozen=True)
class PullResult:
    """What a pull brought.

    Args:
        files: how many of the files asked for are here.
        size_bytes: their size.
        missing: what was asked for and is not on the host any more.
        refused: (name, why) of what must not be written here.
    """

    files: int
    size_bytes: int
    missing: tuple[bytes, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def pull(
    link: Link,
    remote_root: str,
    entries: Sequence[tuple[bytes, int]],
    local_dir: Path,
    options: PushOptions,
    display: Display,
    host_rsync: Mapping[str, Any],
) -> PullResult:
    """Bring exactly these files; each appears whole or not at all.

    Args:
        link: the host.
        remote_root: the folder there, absolute.
        entries: (path below it, size in bytes), as the host told them.
        local_dir: the folder here.
        options: rsync options and timeout.
        display: where progress is shown.
        host_rsync: which rsync the host has, see `replica.rsync_here`.

    Raises:
        TemporaryError: the connection gave out again and again.
        RemoteError: anything else that went wrong; says what.
    """
    pair = rsync.pair_with(link.alias, dict(host_rsync))
    faults = {path: fault for path, _ in entries if (fault := unsafe(local_dir, path))}
    wanted = {path: size for path, size in entries if path not in faults}
    refused = tuple((shown(path), fault) for path, fault in faults.items())
    if not wanted:
        return PullResult(0, 0, (), refused)
    local_dir.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        _receive(link, pair, remote_root, wanted, local_dir, options, bar)

    with display.bar("Downloading", len(wanted), sum(wanted.values()), "📦") as bar:
        again(link, display, attempt)
    top = os.fsencode(local_dir)
    missing = tuple(path for path in wanted if look(top, path) is None)
    sizes = [size_of(record) for path in wanted if (record := look(top, path)) is not None]
    return PullResult(len(sizes), sum(sizes), missing, refused)


def _receive(
    link: Link,
    pair: rsync.Pair,
    remote_root: str,
    wanted: Mapping[bytes, int],
    local_dir: Path,
    options: PushOptions,
    bar: Bar,
) -> None:
    """Run rsync for a pull: patchwork only pushes."""
    with rsync.listed(wanted) as listing:
        large = any(size_bytes > LARGE_BYTES for size_bytes in wanted.values())
        words = rsync.pull_words(pair, options.rsync_options, options.timeout_s, listing, large)
        command = ["rsync", *words, f"--rsh={rsync.rsh(link.ssh_words())}"]
        path = rsync.remote_path(pair, remote_root + "/")
        command += [rsync.address(link.alias, path), f"{local_dir}/"]
        outcome = run(command, RsyncOutput(bar).reader(), rsync.patience_s(pair, options.timeout_s))
    rsync.check(outcome, link.alias, "fetch", options.timeout_s)


def unsafe(local_dir: Path, path: bytes) -> str:
    """Return why a path that the host named must not be written below a folder; nothing where it may."""
    parts = path.split(b"/")
    if path.startswith(b"/") or b".." in parts:
        return "it leads out of the folder"
    if b"" in parts or b"." in parts:
        return "it is no plain path"
    if path.translate(None, CONTROLS) != path:
        return "its name holds control characters"
    top = os.fsencode(local_dir)
    for count in range(1, len(parts)):
        folder = top + b"/" + b"/".join(parts[:count])
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return ""
        if not stat.S_ISDIR(mode):
            return f"{shown(folder)} is no folder" if not stat.S_ISLNK(mode) else f"{shown(folder)} is a link"
    return ""
