"""The gate for results: which files of a host are written into the results folder, and how.

A result is a file of data. The host chooses its name and its bytes, so a name that git, Invoke, Fabric,
Python or we obey is rejected, and so is one that leads out of the folder. Every folder is opened below its
parent by descriptor and never through a link: a link that somebody swaps in meanwhile leads nowhere.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from remote_tools.errors import TransferError
from remote_tools.host.tree import PARTIAL_DIR
from remote_tools.sync.workspace import shown

CONTROLS = bytes([*range(32), 127])
OPEN_FOLDERS = 32
"""How many folders are kept open at a time."""
_IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
"""Characters that HFS+ ignores in names (git's utf8.c, next_hfs_char): `.g<zero width>it` is `.git` there."""

# fmt: off
_OBEYED = (
    (r"\.git.*|git~\d", "git obeys it"),
    (r"\.?invoke\..*|tasks\.py.?", "Invoke obeys it"),
    (r"\.?fabric\..*|fabfile.*", "Fabric obeys it"),
    (r"(site|user)customize.*|.*\._?pth|pyvenv\.cfg", "Python obeys it"),
    (r"\.remote.*", "our own tools obey it"),
)
# fmt: on
"""Names that a tool obeys in the folder where it is started or in one above, whatever the case."""
_NAMES = [(re.compile(pattern, re.DOTALL), why) for pattern, why in _OBEYED]


def fault_of(path: bytes) -> str:
    """Return why a result must not have this path; empty if it may."""
    parts = path.split(b"/")
    if path.startswith(b"/") or b".." in parts:
        return "it leads out of the folder"
    if b"" in parts or b"." in parts:
        return "it is no plain path"
    if path.translate(None, CONTROLS) != path:
        return "its name holds control characters"
    plain = [_plain(part) for part in parts]
    for part in plain:
        for pattern, why in _NAMES:
            if pattern.fullmatch(part):
                return why
    if plain[-1] == "head":  # without HEAD, git takes no folder for a bare repository (setup.c)
        return "git obeys it"
    if plain[-2:-1] == ["tasks"] and plain[-1].startswith("__init__."):
        return "Invoke obeys it"
    return ""


def _plain(part: bytes) -> str:
    """Return a name as a file system that ignores case, or final dots, compares it."""
    return os.fsdecode(part).translate(_IGNORED).casefold().rstrip(". ")


class Blocked(Exception):
    """A folder cannot be entered: it is a link, or no folder."""


class Folders:
    """The folders below a top folder, each opened from its parent without following a link.

    Args:
        top: descriptor of the top folder; closed at the end.
        name: its name, for messages.
    """

    def __init__(self, top: int, name: bytes) -> None:
        """Start with the top folder open."""
        self.top, self._name = top, name
        self._open: dict[bytes, int] = {}

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])
        if self.top >= 0:
            os.close(self.top)
        self.top = -1

    def __del__(self) -> None:
        """Close what an error has left open."""
        self.close()

    def fd(self, folder: bytes, make: bool = False) -> int:
        """Return the descriptor of a folder, which stays open until others need the place.

        Args:
            folder: its path below the top folder; empty for that itself.
            make: create what is missing.

        Raises:
            Blocked: it, or a folder above it, is a link or no folder.
            FileNotFoundError: it is missing.
        """
        if not folder:
            return self.top
        if folder not in self._open:
            above, _, name = folder.rpartition(b"/")
            parent = self.fd(above, make)
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=parent)
            found = self._enter(folder, name, parent)
            if len(self._open) >= OPEN_FOLDERS:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[folder] = found
        return self._open[folder]

    def _enter(self, folder: bytes, name: bytes, parent: int) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            is_link = stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode)
            what = "a link" if is_link else "no folder"
            raise Blocked(f"{shown(self._name + b'/' + folder)} is {what}") from error


class ResultsFolder:
    """The folder for results; nothing is written outside it.

    Args:
        path: the folder; it is created when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; do not open it."""
        self.path = path
        self._folders: Folders | None = None
        self._secret, self._count = secrets.token_hex(8).encode(), 0

    def __enter__(self) -> ResultsFolder:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        self.close()

    def close(self) -> None:
        """Close what is open; it is opened again when it is needed."""
        if self._folders is not None:
            self._folders.close()
            self._folders = None

    def _opened(self, make: bool) -> Folders:
        if self._folders is None:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            name = os.fsencode(self.path)
            self._folders = Folders(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name)
        return self._folders

    def fault(self, path: bytes) -> str:
        """Return why a file of a host must not be written; empty if it may be.

        Raises:
            TransferError: the folder cannot be read.
        """
        fault = fault_of(path)
        if fault:
            return fault
        try:
            self._opened(make=False).fd(path.rpartition(b"/")[0])
        except FileNotFoundError:
            return ""
        except Blocked as blocked:
            return str(blocked)
        except OSError as error:
            raise self.unwritable(path, error) from error
        return ""

    def unwritable(self, path: bytes, error: OSError) -> TransferError:
        """Return the error for a file that cannot be written."""
        target = shown(os.path.join(os.fsencode(self.path), path))
        hint = "free disk space, or name another folder with --local-dir"
        return TransferError("fetch", f"cannot write {target}: {error.strerror}", hint)

    def write(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Write a file and its mtime; it appears complete or not at all. `path` must be without a `fault`.

        Raises:
            Blocked: a link stands in the place of a folder.
            TransferError: it cannot be written.
        """

        def fill(fd: int) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.utime(fd, ns=(mtime_ns, mtime_ns))

        try:
            self._create(path, fill)
        except OSError as error:
            raise self.unwritable(path, error) from error

    def _create(self, path: bytes, fill: Callable[[int], None]) -> None:
        """Create a file under a name that nobody can guess, fill it, and rename it."""
        above, _, name = path.rpartition(b"/")
        folder = self._opened(make=True).fd(above, make=True)
        self._count += 1
        part = b".remote-tools-%s-%d.part" % (self._secret, self._count)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(part, flags, 0o666, dir_fd=folder)
        try:
            try:
                fill(fd)
            finally:
                os.close(fd)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=folder)
            raise

    @contextmanager
    def incoming(self, key: str) -> Iterator[Incoming]:
        """Make a fresh, private folder for what rsync fetches, below this one, so that a rename is enough.

        It stays if the fetch fails: the next fetch with the same key goes on where this one ended.

        Args:
            key: what is fetched, and from where.

        Raises:
            TransferError: it cannot be made.
        """
        token = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
        try:
            top = self._opened(make=True).top
            name, fd = _make_private(f".remote-incoming-{token}", top)
        except OSError as error:
            raise self.unwritable(b"", error) from error
        incoming = Incoming(self, Folders(fd, os.fsencode(name)), self.path / name)
        try:
            yield incoming
            incoming.remove()
        finally:
            with suppress(OSError):  # of nothing that could be resumed
                os.rmdir(name, dir_fd=top)
            incoming.close()


def _make_private(name: str, parent: int) -> tuple[str, int]:
    """Make a private folder and open it; return its name, which is longer if another fetch has this one."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    with suppress(OSError):
        return name, _private(name, parent)
    name = f"{name}-{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=parent)
    return name, _private(name, parent)


def _private(name: str, parent: int) -> int:
    """Open a folder of ours that nobody else can enter, and lock it.

    Raises:
        OSError: it is not ours, others can enter it, or another fetch uses it.
    """
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        info = os.fstat(fd)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise PermissionError(errno.EACCES, "not private")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


class Incoming:
    """The private folder that rsync writes to; only what was asked for is moved on.

    Args:
        results: where the files go.
        folders: this folder.
        path: its path.
    """

    def __init__(self, results: ResultsFolder, folders: Folders, path: Path) -> None:
        """Start empty."""
        self._results, self._folders, self.path = results, folders, path

    def close(self) -> None:
        """Close what is open."""
        self._folders.close()

    @property
    def cwd(self) -> str:
        """A working directory for rsync that stays this folder if somebody moves it, where /proc has one."""
        by_number = Path(f"/proc/self/fd/{self._folders.top}")
        return str(by_number if by_number.is_dir() else self.path)

    def take(self, paths: Iterable[bytes]) -> dict[bytes, str]:
        """Move the files that have arrived to their places; return those that cannot go there, and why.

        Raises:
            TransferError: a file cannot be written.
        """
        refused = {}
        for path in paths:
            above, _, name = path.rpartition(b"/")
            try:
                folder = self._folders.fd(above)
                info = os.lstat(name, dir_fd=folder)
            except (FileNotFoundError, Blocked):  # not yet, or no longer there: or a file in a folder's place
                continue
            if not stat.S_ISREG(info.st_mode):
                continue
            try:
                self._move(path, name, folder)
            except Blocked as blocked:
                refused[path] = str(blocked)
            except OSError as error:
                raise self._results.unwritable(path, error) from error
        return refused

    def _move(self, path: bytes, name: bytes, folder: int) -> None:
        """Move one file by a rename; copy it if its place is on another file system."""
        above, _, target = path.rpartition(b"/")
        place = self._results._opened(make=True).fd(above, make=True)
        try:
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(source, "rb"):
                self._results._create(path, lambda fd: _copy(source, fd))
            os.unlink(name, dir_fd=folder)

    def left(self) -> list[bytes]:
        """Return what arrived without having been asked for, after `take`."""
        return [
            os.path.relpath(os.path.join(above, name), os.fsencode(self.path))
            for above, _, names in os.walk(os.fsencode(self.path))
            for name in names
            if os.path.basename(above) != PARTIAL_DIR
        ]

    def remove(self) -> None:
        """Delete the folder; rmtree follows no link."""
        shutil.rmtree(self.path, ignore_errors=True)


def _copy(source: int, target: int) -> None:
    info = os.fstat(source)
    with os.fdopen(source, "rb", closefd=False) as one, os.fdopen(target, "wb", closefd=False) as two:
        shutil.copyfileobj(one, two)
    os.fchmod(target, info.st_mode & 0o777)
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))


def told(paths: Iterable[bytes]) -> str:
    """Return some of the paths for a message."""
    names = [shown(path) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
