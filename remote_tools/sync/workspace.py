"""Scan the workspace for the files to send, and compute its stamp.

In a git work tree these are exactly the files of `git ls-files -co --exclude-standard`, and the files of its
submodules; elsewhere all files. `exclude` patterns remove files; `include` patterns add files, even those
that git ignores. Patterns have the syntax of gitignore(5): a pattern without a slash matches a name at any
depth, one with a slash starts at the root; a final slash matches folders only; `*` and `?` stop at a slash,
`**` does not.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from remote_tools.errors import ConfigError
from remote_tools.escape import one_line
from remote_tools.host.listing import SENT_MODE, file_record, join, link_record, size_of
from remote_tools.settings import git
from remote_tools.sync.patterns import EDITORS, Rules

NEVER = (".git", ".remote", ".remote_config", ".remote-displaced", ".remote-partial")
"""Never sent, whatever `include` says: repositories, our own state, and the user's settings."""


@dataclass(frozen=True)
class Workspace:
    """The local tree at the moment it was scanned.

    Args:
        root: its folder.
        files: the record of each path, see `listing`; sorted by path.
        folders: empty folders, which travel outside of git only.
        inodes: for each regular file the time of its last change of any kind (ctime) and its inode, in the
            same order. A file may be replaced by another of the same size and mtime; these tell.
        settings: the settings that affect what the host should hold; part of the stamp.
        warnings: files that were left out or look wrong, a line each.
    """

    root: Path
    files: Mapping[bytes, bytes]
    settings: bytes = b""
    warnings: tuple[str, ...] = ()
    inodes: Mapping[bytes, bytes] = field(default_factory=dict)
    folders: tuple[bytes, ...] = ()

    @cached_property
    def stamp(self) -> str:
        """Digest of the records and the settings; equal only for equal trees."""
        folders = b"\0\0" + join(self.folders) if self.folders else b""
        return hashlib.sha256(join(self.files.values()) + folders + b"\0\0" + self.settings).hexdigest()

    @cached_property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(map(size_of, self.files.values()))

    def with_files(self, files: Mapping[bytes, bytes], inodes: Mapping[bytes, bytes]) -> Workspace:
        """Return the workspace with the records and inodes of the files as they were sent."""
        if files == self.files and inodes == self.inodes:
            return self
        return replace(self, files=dict(sorted(files.items())), inodes=dict(sorted(inodes.items())))


def scan(
    root: Path,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    never: Sequence[str] = (),
    salt: Sequence[str] = (),
) -> Workspace:
    """Scan the workspace.

    Args:
        root: its folder.
        exclude: patterns of files to leave out.
        include: patterns of files to send although they are excluded, or ignored by git.
        never: patterns of files to leave out even if included, such as the folder of fetched results.
        salt: the other settings that affect what the host should hold; part of the stamp.

    Raises:
        UnavailableError: the root is in a git work tree, but git is not installed.
        ConfigError: the root is not a folder, or git cannot list it.
    """
    rules = Rules(exclude, include, (*NEVER, *never))
    warnings: list[str] = []
    top = os.fsencode(root)
    if not os.path.isdir(top):
        raise ConfigError("sync", f"{root} is not a folder")
    empty: list[bytes] = []
    names = _git_names(top, b"", rules, warnings) if _in_git(root) else _walk(top, rules, empty)
    inodes: dict[bytes, bytes] = {}
    found = _records(top, names, rules, warnings, inodes)
    settings = "\0".join(["", *exclude, "", *include, "", *never, "", *salt])
    files = dict(sorted(found.items()))
    inodes = dict(sorted(inodes.items()))
    return Workspace(Path(root), files, os.fsencode(settings), tuple(warnings), inodes, tuple(sorted(empty)))


def inode_of(info: os.stat_result) -> bytes:
    """Return what changes if a file is written or replaced, whatever its mtime then is."""
    return b"%d %d" % (info.st_ctime_ns, info.st_ino)


def look(top: bytes, path: bytes) -> bytes | None:
    """Return the record of one local file; None if it is missing, or neither a file nor a link."""
    full = top + b"/" + path
    try:
        info = os.lstat(full)
        if stat.S_ISREG(info.st_mode):
            return file_record(path, info, SENT_MODE)
        return link_record(path, os.readlink(full)) if stat.S_ISLNK(info.st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def shown(path: bytes) -> str:
    """Return a path as one line of printable text."""
    return one_line(path.decode(errors="surrogateescape"))


def _in_git(root: Path) -> bool:
    """Return whether the root is in a git work tree and not ignored by it."""
    top = root.resolve()
    work_tree = git.work_tree(top)
    if work_tree in (top, None):
        return work_tree is not None
    null = subprocess.DEVNULL
    with git.start(os.fsencode(top), "check-ignore", "-q", ".", stdout=null, stderr=null) as question:
        return question.wait() != 0


def _start(top: bytes, *words: str) -> subprocess.Popen[bytes]:
    try:
        return git.start(top, "ls-files", "-z", *words)
    except FileNotFoundError as error:
        raise git.missing(os.fsdecode(top)) from error


def _read(process: subprocess.Popen[bytes], top: bytes) -> list[bytes]:
    out, errors = process.communicate()
    if process.returncode != 0:
        reason = errors.decode(errors="replace").strip().splitlines()[:1]
        message = f"git cannot list {os.fsdecode(top)}: {''.join(reason)}"
        raise ConfigError("sync", message, f"git -C {os.fsdecode(top)} status")
    return out.split(b"\0")[:-1]


def _git_names(top: bytes, below: bytes, rules: Rules, warnings: list[str]) -> Iterator[tuple[bytes, bool]]:
    """Yield (path, whether git tracks it) for the files of `git ls-files -co --exclude-standard`."""
    cached = _start(top, "-c")
    other = _start(top, "-o", "--exclude-standard")
    ignored = _start(top, "-o", "-i", "--exclude-standard") if rules.including else None
    for name in dict.fromkeys(_read(cached, top)):
        yield below + name, True
    for name in _read(other, top):
        if EDITORS.search(name):
            continue
        if name.endswith(b"/"):
            if not rules.drops(below + name[:-1]):
                warnings.append(f"{shown(below + name)} is a git repository but no submodule: not sent")
        else:
            yield below + name, False
    for name in _read(ignored, top) if ignored else ():
        if not name.endswith(b"/") and rules.adds(below + name):
            yield below + name, False


def _walk(top: bytes, rules: Rules, empty: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield every path below a folder, except folders; collect the empty folders. Git tracks none of them."""
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(top + b"/" + folder))
        except FileNotFoundError:
            continue
        if not entries and folder:
            empty.append(folder[:-1])
        for entry in entries:
            path = folder + entry.name
            if not entry.is_dir(follow_symlinks=False):
                if not EDITORS.search(path):
                    yield path, False
            elif not rules.prunes(path):
                folders.append(path + b"/")


def _records(
    top: bytes,
    names: Iterable[tuple[bytes, bool]],
    rules: Rules,
    warnings: list[str],
    inodes: dict[bytes, bytes],
) -> dict[bytes, bytes]:
    """Make a record of every file; the types of S_IFMT are numbers here because this loop must be fast."""
    found: dict[bytes, bytes] = {}
    lstat, drops, prefix = os.lstat, rules.drops, top + b"/"
    for path, tracked in names:
        if drops(path):
            continue
        try:
            info = lstat(prefix + path)
            kind = info.st_mode & 0o170000
            if kind == stat.S_IFREG:
                found[path] = file_record(path, info, SENT_MODE)
                inodes[path] = inode_of(info)
            elif kind == stat.S_IFLNK:
                target = os.readlink(prefix + path)
                found[path] = link_record(path, target)
                if _leaves(path, target):
                    warnings.append(f"{shown(path)} leads out of the tree: {shown(target)}")
            elif kind == stat.S_IFDIR:
                if os.path.exists(prefix + path + b"/.git"):
                    names_below = _git_names(prefix + path, path + b"/", rules, warnings)
                    found.update(_records(top, names_below, rules, warnings, inodes))
            else:
                warnings.append(f"{shown(path)} is neither a file nor a link: not sent")
        except (FileNotFoundError, NotADirectoryError):
            if not tracked:  # a tracked file may be deleted without a commit
                warnings.append(f"{shown(path)} vanished while it was scanned")
        except OSError as error:
            warnings.append(f"{shown(path)} cannot be read: {error.strerror}")
    return found


def _leaves(path: bytes, target: bytes) -> bool:
    """Return whether a link's target is outside the tree; the file system is not read."""
    if target.startswith(b"/"):
        return True
    reached = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return reached == b".." or reached.startswith(b"../")
