"""Record the sources of a run: git's commit, whether the work tree is dirty, and a patch of its changes."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from remote_tools.runs.records import Record
from remote_tools.settings import git
from remote_tools.settings.state_folder import state_folder

_LARGEST_FILE = 1 << 20
_LARGEST_PATCH = 10 << 20
_PATIENCE_S = 1.0  # after the run's end


class Source:
    """The sources of a run.

    git runs in the background, while the network is busy. `diff.patch` can be applied with `git apply`. Files
    above 1 MiB are not in it, nor is anything if it would be above 10 MiB, or takes longer than the run.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        """Start git."""
        self._patch, self._root = folder / "diff.patch", root
        self._found: Record = {"git_sha": None, "git_dirty": None}
        self._omitted: list[str] = []
        self._running: subprocess.Popen[bytes] | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._read, name="git", daemon=True)
        self._thread.start()

    def collect(self) -> Record:
        """Return `git_sha`, `git_dirty`, and what is not in the patch; None outside a git work tree."""
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self._abandoned = True
            if running := self._running:
                running.kill()
            self._thread.join()
            self._omitted.append("all: git took too long")
        return {**self._found, "diff_omitted": self._omitted} if self._omitted else self._found

    def _read(self) -> None:
        try:
            head = self._output("rev-parse", "HEAD")
        except OSError:  # git is not installed
            return
        if head is None:
            return
        sha = head.decode("ascii", "replace").strip()
        self._found = {"git_sha": sha, "git_dirty": None}
        status = self._output("status", "--porcelain", "-z", "-unormal", "--ignore-submodules=none")
        if status is None:
            return
        self._found = {"git_sha": sha, "git_dirty": bool(status)}
        changed = self._output("diff", "--name-only", "-z", "--no-renames", "HEAD")
        self._write([] if changed is None else changed.split(b"\0")[:-1])

    def _write(self, changed: list[bytes]) -> None:
        """Write the patch, without large files."""
        top = self._output("rev-parse", "--show-toplevel")
        if top is None:
            return
        large = [path for path in changed if _size(top.rstrip(b"\n") + b"/" + path) > _LARGEST_FILE]
        self._omitted += [f"{os.fsdecode(path)}: above 1 MiB" for path in large]
        excluded = [b":(top,exclude,literal)" + path for path in large]
        words: list[str | bytes] = ["diff", "--binary", *git.PLAIN_DIFF, "HEAD", "--", ":/", *excluded]
        patch = self._output(*words, limit=_LARGEST_PATCH) if changed else b""
        if patch is None and not self._abandoned:
            self._omitted.append("all: the patch would be above 10 MiB")
        if patch:
            try:
                state_folder(self._root)
                self._patch.parent.mkdir(parents=True, exist_ok=True)
                self._patch.write_bytes(patch)
            except OSError as error:  # the run goes on without it
                self._omitted.append(f"all: {error.strerror}")

    def _output(self, *words: str | bytes, limit: int = 1 << 30) -> bytes | None:
        """Return what git prints; None if it fails, prints more, or is given up."""
        if self._abandoned:
            return None
        with git.start(str(self._root), *words, stderr=subprocess.DEVNULL) as process:
            self._running = process
            assert process.stdout is not None
            data = process.stdout.read(limit + 1)
            if len(data) > limit:
                process.kill()
                return None
        return data if process.returncode == 0 and not self._abandoned else None


def _size(path: bytes) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
