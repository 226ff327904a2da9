"""Pull results: exactly the files that the host listed; an interrupted transfer is resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from remote_tools.host.listing import size_of
from remote_tools.host.messages import RsyncHere
from remote_tools.sync import rsync
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.progress import Bar
from remote_tools.sync.results_folder import Incoming, ResultsFolder, told
from remote_tools.sync.rsync_output import RsyncOutput
from remote_tools.sync.rsync_processes import run_rsync
from remote_tools.sync.transfer import LARGE_BYTES, SAME_COMMAND, retry
from remote_tools.sync.workspace import look


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
    with ResultsFolder(local_dir) as results:
        refused = {path: fault for path, _ in entries if (fault := results.fault(path))}
        wanted = {path: size for path, size in entries if path not in refused}
        if not wanted:
            return PullResult(0, 0, (), refused)
        done = before or {}
        count, size_bytes = len(wanted) + len(done), sum(wanted.values()) + sum(done.values())
        with (
            results.incoming(f"{host.link.alias}\0{remote_root}") as incoming,
            host.display.bar("Downloading", count, size_bytes, "📦") as bar,
        ):

            def attempt() -> None:
                try:
                    _receive(host, pair, remote_root, wanted, bar, incoming)
                finally:
                    refused.update(incoming.take(wanted))

            bar.advance(len(done), sum(done.values()))
            retry(host, "fetch", attempt, hint)
            left = incoming.left()
        if left:
            host.display.say(f"fetch: {told(left)} came without being asked for, and was not kept")
    top = os.fsencode(local_dir)
    came = {path: look(top, path) for path in wanted if path not in refused}
    missing = tuple(path for path, record in came.items() if record is None)
    sizes = [size_of(record) for record in came.values() if record is not None]
    return PullResult(len(sizes), sum(sizes), missing, refused)


def _receive(
    host: OpenHost,
    pair: rsync.Pair,
    remote_root: str,
    wanted: Mapping[bytes, int],
    bar: Bar,
    incoming: Incoming,
) -> None:
    """Run rsync directly; patchwork can only push. What is here already is compared with, and not sent."""
    link, settings = host.link, host.settings
    with rsync.listed(wanted) as listing:
        large = any(size_bytes > LARGE_BYTES for size_bytes in wanted.values())
        words = rsync.pull_words(pair, settings.rsync_options, settings.timeout_s, listing, large)
        more, shell = rsync.past_noise(link.ssh_words(), link.noise, settings.rsync_options)
        command = ["rsync", *words, *more, f"--rsh={rsync.rsh(shell)}"]
        path = rsync.remote_path(pair, remote_root + "/")
        command += [f"--compare-dest={settings.local_dir}", rsync.address(link.alias, path), "./"]
        patience_s = rsync.patience_s(pair, settings.timeout_s)
        outcome = run_rsync(command, RsyncOutput(bar).reader(), patience_s, incoming.cwd)
    rsync.check(outcome, link.alias, "fetch", settings.timeout_s)
