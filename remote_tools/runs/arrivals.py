"""Write a run's results to the local results folder: small files from the reply, the others by rsync."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remote_tools.errors import not_asked
from remote_tools.host.messages import CacheReply, RunRecord, RunReply
from remote_tools.sync.open_host import OpenHost
from remote_tools.sync.progress import count_text, size_text
from remote_tools.sync.pull import pull
from remote_tools.sync.results_folder import Blocked, ResultsFolder
from remote_tools.sync.transfer import SAME_COMMAND
from remote_tools.sync.workspace import shown

REFUSED_SHOWN = 20
"""Most files that are named because they are not written."""


@dataclass
class Results:
    """Results fetched from one run, or from a whole cache.

    Args:
        local_dir: the results folder; nothing is written outside it.
        arrived: size in bytes of each file, by its path below `local_dir`.
        refused: paths that were rejected, with the reason.
    """

    local_dir: Path
    arrived: dict[bytes, int] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the folder."""
        self._folder = ResultsFolder(self.local_dir)

    def take(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Write one small file; it appears complete or not at all.

        Raises:
            TransferError: the file cannot be written.
        """
        fault = self._folder.fault(path)
        if fault:
            self.refused[path] = fault
            return
        try:
            self._folder.write(path, mtime_ns, data)
        except Blocked as blocked:
            self.refused[path] = str(blocked)
        else:
            self.arrived[path] = len(data)

    def complete(self, host: OpenHost, reply: RunReply | CacheReply, root: str) -> None:
        """Fetch the files that were not part of the reply by rsync, and print a summary.

        Raises:
            ProtocolError: files are left, and the host names no rsync or no folder to fetch them with.
            RemoteError: they cannot be fetched.
        """
        self._folder.close()
        entries = [(os.fsencode(name), int(size)) for name, size, _mtime in reply["outputs"]]
        left = [entry for entry in entries if entry[0] not in self.arrived and entry[0] not in self.refused]
        if left:
            if reply["rsync"] is None or not root.startswith("/"):
                raise not_asked("fetch", host.link.alias, "files that it cannot send")
            pulled = pull(host, root, left, reply["rsync"], _hint(host, reply), self.arrived)
            self.refused.update(pulled.refused)
            gone = {*pulled.missing, *pulled.refused}
            self.arrived.update((path, size) for path, size in left if path not in gone)
        for path, fault in list(self.refused.items())[:REFUSED_SHOWN]:
            host.display.say(f"fetch: {shown(path)} was not written: {fault}")
        if len(self.refused) > REFUSED_SHOWN:
            host.display.say(f"fetch: {count_text(len(self.refused), 'file')} were not written")
        if "cache_dir" in reply and reply.get("foreign"):
            others = count_text(reply["foreign"], "file")
            host.display.say(f"fetch: {others} of other accounts, in folders that all can write to, left out")
        if "run" in reply and reply["run"].get("unsure_files"):
            host.display.say(_unsure(reply["run"]))
        running = "run" in reply and reply["run"]["state"] in ("starting", "running")
        host.display.say(self.summary(running=running), "✅" if entries else "")

    def summary(self, *, running: bool = False) -> str:
        """Return the closing line: number of files, size, kernels and folder.

        Args:
            running: the run goes on, and may write more.
        """
        if not self.arrived and running:
            return "Nothing to fetch yet: the run still runs, and has written no files below the cache root"
        if not self.arrived:
            return "Nothing to fetch: the run wrote no files below the cache root"
        kernels = kernels_of(list(self.arrived))
        of = f" of {', '.join(kernels[:4])}{', ...' if len(kernels) > 4 else ''}" if kernels else ""
        amount = f"{count_text(len(self.arrived), 'file')} ({size_text(sum(self.arrived.values()))})"
        more = "; the run still runs, and may write more" if running else ""
        return f"Fetched {amount}{of} into {display_path(self.local_dir)}{more}"


def _unsure(run: RunRecord) -> str:
    """Say that files may be another run's."""
    files, others = (
        count_text(run["unsure_files"], "file"),
        ", ".join(shown(os.fsencode(name)) for name in run["beside"]),
    )
    return (
        f"fetch: {files} may be of another run: {others} wrote below the same cache root at the "
        "same time; a script names its own files in $AUTOTUNE_OUTPUTS"
    )


def _hint(host: OpenHost, reply: RunReply | CacheReply) -> str:
    """Return what to type after a failed fetch; `inv dev` would run the program again."""
    if "run" not in reply:
        return SAME_COMMAND
    words = [reply["run"]["id"], "--host", host.settings.host, "--local-dir", str(host.settings.local_dir)]
    return f"inv runs.fetch {shlex.join(words)}"


def kernels_of(paths: Sequence[bytes]) -> list[str]:
    """Return the kernels of the paths: the first folder of each, except `plots`."""
    folders = {path.partition(b"/")[0] for path in paths if b"/" in path}
    return sorted(shown(folder) for folder in folders - {b"plots"})


def display_path(path: Path) -> str:
    """Return a path relative to the working directory if it is below that."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
