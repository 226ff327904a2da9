"""Put what a run produced into the local results folder: small files as they come, the rest by rsync."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from remote_tools.errors import TransferError
from remote_tools.plan import PushOptions
from remote_tools.progress import Display, count_text, size_text
from remote_tools.pulls import pull, unsafe
from remote_tools.session import Link, Reply
from remote_tools.workspace import shown


@dataclass
class Results:
    """What has arrived of one run, or of a whole cache.

    Args:
        local_dir: where it is put; nothing is ever written outside of it.
    """

    local_dir: Path
    arrived: dict[bytes, int] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    _folders: set[bytes] = field(default_factory=set, repr=False)
    _unsafe: set[bytes] = field(default_factory=set, repr=False)

    def take(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Write one small file, whole or not at all.

        Raises:
            TransferError: it cannot be written here.
        """
        fault = unsafe(self.local_dir, path)
        if fault:
            self.refused.append((shown(path), fault))
            self._unsafe.add(path)
            return
        target = os.path.join(os.fsencode(self.local_dir), path)
        folder = os.path.dirname(target)
        part = os.path.join(folder, b".remote-tools-%d.part" % os.getpid())
        try:
            if folder not in self._folders:
                os.makedirs(folder, exist_ok=True)
                self._folders.add(folder)
            with open(part, "wb") as file:
                file.write(data)
            os.utime(part, ns=(mtime_ns, mtime_ns))
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                os.unlink(part)
            hint = "make room, or name another folder with --local-dir"
            raise TransferError("fetch", f"cannot write {shown(target)}: {error.strerror}", hint) from error
        self.arrived[path] = len(data)

    def complete(self, link: Link, reply: Reply, root: str, options: PushOptions, display: Display) -> None:
        """Bring by rsync what did not come along with the reply, and say what is here now."""
        entries = [(os.fsencode(name), int(size)) for name, size, _mtime in reply["outputs"]]
        left = [entry for entry in entries if entry[0] not in self.arrived and entry[0] not in self._unsafe]
        if left:
            pulled = pull(link, root, left, self.local_dir, options, display, reply["rsync"])
            self.refused += pulled.refused
            gone = set(pulled.missing) | {path for path, _ in left if unsafe(self.local_dir, path)}
            self.arrived.update((path, size) for path, size in left if path not in gone)
        for name, fault in self.refused:
            display.say(f"fetch: {name} was not written: {fault}")
        display.say(self.summary(), "✅" if entries else "")

    def summary(self) -> str:
        """Return the closing line: how many files of which kernels, how large, and where."""
        if not self.arrived:
            return "Nothing to fetch: the run wrote no files below the cache root"
        kernels = kernels_of(list(self.arrived))
        of = f" of {', '.join(kernels[:4])}{', ...' if len(kernels) > 4 else ''}" if kernels else ""
        amount = f"{count_text(len(self.arrived), 'file')} ({size_text(sum(self.arrived.values()))})"
        return f"Fetched {amount}{of} into {display_path(self.local_dir)}"


def kernels_of(paths: Sequence[bytes]) -> list[str]:
    """Return the kernels whose folders hold the paths: the first folder of each, except for the plots."""
    folders = {path.partition(b"/")[0] for path in paths if b"/" in path}
    return sorted(shown(folder) for folder in folders - {b"plots"})


def display_path(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
