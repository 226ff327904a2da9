"""Record the sources of a run: git's commit, whether the work tree is dirty, and a patch of its changes."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from remote_tools.runs.records import Record
from remote_tools.settings import git
from remote_tools.settings.state_folder import make_private, state_folder
from remote_tools.settings.whole_file import write_whole

_LARGEST_FILE = 1 << 20
_LARGEST_PATCH = 10 << 20
_PATIENCE_S = 1.0  # after the run's end
_SUBMODULE = re.compile(rb"(?:^|\0)160000 [^\t\0]*\t([^\0]*)")
"""In the output of `git ls-files -s -z`."""


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
            self._look()
        except FileNotFoundError:  # git is not installed
            return
        except OSError as error:  # no process, or too many names for a command line
            self._omitted.append(f"all: {error.strerror}")

    def _look(self) -> None:
        said = self._output("rev-parse", "--show-toplevel", "HEAD")
        if said is None:
            return
        top, _, sha = said.rstrip(b"\n").rpartition(b"\n")
        work_tree = git.work_tree(self._root.resolve())
        if work_tree is None or not work_tree.samefile(os.fsdecode(top)):  # core.worktree leads elsewhere
            return
        self._found = {"git_sha": sha.decode("ascii", "replace"), "git_dirty": None}
        filters_off = self._filters_off(top)
        dirty = None if filters_off is None else self._is_dirty(top, filters_off)
        if filters_off is None or dirty is None:
            return
        self._found["git_dirty"] = dirty
        changed = self._output(
            "diff", "--name-only", "-z", "--no-renames", *git.PLAIN_DIFF, "HEAD", settings=filters_off
        )
        self._write(top, changed.split(b"\0")[:-1] if changed else [], filters_off)

    def _filters_off(self, top: bytes) -> list[bytes] | None:
        """Return the settings that keep git from starting the repository's own filters."""
        listing = self._output(*git.LIST_SETTINGS, top=top)
        return None if listing is None else git.filters_off(listing)

    def _is_dirty(self, top: bytes, filters_off: Sequence[bytes]) -> bool | None:
        """Return whether a work tree or one of its submodules differs from its commit; None if unknown.

        git itself would look into a submodule with that one's own filters.
        """
        status = ("status", "--porcelain", "-z", "-unormal", "--ignore-submodules=dirty")
        differs = self._output(*status, top=top, settings=filters_off)
        if differs is None or differs:
            return None if differs is None else True
        tracked = self._output("ls-files", "-s", "-z", top=top)
        if tracked is None:
            return None
        inside = [self._is_submodule_dirty(top, name) for name in _SUBMODULE.findall(tracked)]
        return True if True in inside else None if None in inside else False

    def _is_submodule_dirty(self, top: bytes, name: bytes) -> bool | None:
        folder = top + b"/" + name
        if os.path.realpath(folder) != folder or not os.path.lexists(folder + b"/.git"):
            return False
        filters_off = self._filters_off(folder)
        dirty = None if filters_off is None else self._is_dirty(folder, filters_off)
        if dirty:
            self._omitted.append(f"{os.fsdecode(name)}: a submodule with changes of its own")
        return dirty

    def _write(self, top: bytes, changed: list[bytes], filters_off: Sequence[bytes]) -> None:
        """Write the patch, without large files."""
        large = [path for path in changed if _size(top + b"/" + path) > _LARGEST_FILE]
        self._omitted += [f"{os.fsdecode(path)}: above 1 MiB" for path in large]
        excluded = [b":(top,exclude,literal)" + path for path in large]
        words: list[str | bytes] = ["diff", "--binary", *git.PLAIN_DIFF, "HEAD", "--", ":/", *excluded]
        patch = self._output(*words, limit=_LARGEST_PATCH, settings=filters_off) if changed else b""
        if patch is None and not self._abandoned:
            self._omitted.append("all: the patch would be above 10 MiB")
        if patch:
            try:
                make_private(self._patch.parent, state_folder(self._root).parent)
                write_whole(self._patch, patch)
            except OSError as error:  # the run goes on without it
                self._omitted.append(f"all: {error.strerror}")

    def _output(
        self,
        *words: str | bytes,
        top: bytes | None = None,
        limit: int = 1 << 30,
        settings: Sequence[bytes] = (),
    ) -> bytes | None:
        """Return what git prints; None if it fails, prints more, or is given up."""
        if self._abandoned:
            return None
        folder = os.fsencode(self._root) if top is None else top
        with git.start(folder, *words, settings=settings, stderr=subprocess.DEVNULL) as process:
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
