"""The cache directory: the place of each file, and atomic writes.

    {root}/{kernel}/{shapes}/{config}/performance_result.pkl   the trial and its context, builtins only
                                      compilation_output.log   the compiler's command, version and messages
                                      execution_output.log     what the candidate printed, how it ended
    {root}/{kernel}/{shapes}/perf_metrics.json                 every trial, best first: what others read
    {root}/{kernel}/index/{time}-{host}-{pid}-{random}.jsonl   journals: what a resumed run reads
    {root}/{kernel}/{shapes}/estimates.json                    what a model said; nothing of it was measured
    {root}/plots/                                              the report's

The name of the shapes contains the dtypes if they are not all float32. The name of the config begins with
`backend=numpy,` if the backend is not the kernel's first. The journals are authoritative. `perf_metrics.json`
is their summary for one workload. The pickle is a copy of one trial, for programs that expect it there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autotune.model.errors import CacheError, DataError
from autotune.store import journal, safe_pickle
from autotune.store.incoming import read_file

SCHEMA = 2
"""Of `perf_metrics.json` and of the pickles: 2 has `baselines`, 1 had one `reference`."""
RESULT = "performance_result.pkl"
COMPILATION = "compilation_output.log"
EXECUTION = "execution_output.log"
METRICS = "perf_metrics.json"
INDEX = "index"
_UNFINISHED = (
    ".unfinished-"  # prefix of files and folders in the making; `clean` removes what killed tuners left
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BARRED = {errno.EACCES, errno.EPERM, errno.EROFS}


def root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache root: the argument, else $AUTOTUNE_CACHE_DIR, else ~/.cache/autotune."""
    chosen = cache_dir or os.environ.get("AUTOTUNE_CACHE_DIR") or "~/.cache/autotune"
    return Path(chosen).expanduser().absolute()


@contextmanager
def _advising(path: Path) -> Iterator[None]:
    """Turn an OSError into a message with advice."""
    try:
        yield
    except OSError as fault:
        if fault.errno in _FULL:
            advice = "free some space and run the same command again: what is recorded is kept"
        elif fault.errno in _BARRED:
            advice = "give this user the right to write there, or choose another place with --cache-dir"
        else:
            advice = "choose another place with --cache-dir"
        raise CacheError(f"cache {path}: cannot be written: {fault.strerror}; {advice}") from fault


def prepare(folder: Path, root: Path) -> None:
    """Make a folder of the cache, and check that files can be created and filled there.

    Args:
        folder: the folder.
        root: the cache root, or the folder that the user named. A link below it is not followed: the cache
            may come from elsewhere, and so would the link.

    Raises:
        CacheError: they cannot, or a link leads to the folder.
    """
    refuse_link(folder, root)
    probe = folder / f"{_UNFINISHED}{secrets.token_hex(6)}"
    with _advising(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _create(os.fspath(probe), b"probe")
        finally:
            probe.unlink(missing_ok=True)


def refuse_link(folder: Path, root: Path) -> None:
    """Raise CacheError if a link leads from a root to a folder below it."""
    with _advising(folder):
        link = link_to(folder, root)
    if link:
        raise CacheError(f"cache {folder}: not written: {link} is a link; remove it, or choose another place")


def link_to(path: Path, root: Path) -> Path | None:
    """Return the first link on the way from a folder to a path below it; None if there is none."""
    parents = [each for each in (*reversed(path.parents), path) if each != root and each.is_relative_to(root)]
    return next((each for each in parents if each.is_symlink()), None)


def journal_writer(index: Path) -> journal.Writer:
    """Return the writer of a new journal; its name sorts by time and is used once."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())[:64]
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{host}-{os.getpid()}-{secrets.token_hex(4)}"
    return journal.Writer(index, name, created=note_outputs)


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old one or the new one.

    Raises:
        CacheError: it could not be written; the old one stands.
    """
    fresh = path.with_name(f"{_UNFINISHED}{secrets.token_hex(6)}")
    with _advising(path):
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave the new name without content
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    note_outputs(path)


def write_trial(folder: Path, result: Mapping[str, Any], compilation: str, execution: str) -> None:
    """Write a trial's three files as one folder, or replace those of an older trial one by one.

    Args:
        folder: the config's folder.
        result: what the pickle holds: builtins only.
        compilation: the compiler's command, version and messages.
        execution: what the kernel's process printed and how it ended.

    Raises:
        CacheError: they could not be written; the older ones stand.
    """
    contents = {
        RESULT: safe_pickle.dumps(dict(result)),
        COMPILATION: compilation.encode(errors="replace"),
        EXECUTION: execution.encode(errors="replace"),
    }
    target = os.fspath(folder)
    fresh = os.fspath(folder.parent / f"{_UNFINISHED}{secrets.token_hex(6)}")
    with _advising(folder):
        try:
            os.mkdir(fresh)  # noqa: PTH102  os is faster than pathlib, and this runs for every config
            for name, data in contents.items():
                _create(f"{fresh}/{name}", data)
            if os.path.islink(target):  # noqa: PTH114
                os.unlink(target)  # noqa: PTH108  as a link in a file's place is replaced
            try:
                os.rename(fresh, target)  # noqa: PTH104
            except OSError:
                if not os.path.isdir(target):  # noqa: PTH112  the errno of a full folder differs
                    raise
                for name in contents:
                    Path(fresh, name).replace(folder / name)
                Path(fresh).rmdir()
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    note_outputs(*(folder / name for name in contents))


def _create(path: str, data: bytes) -> None:
    """Write a new file with as few system calls as possible."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def note_outputs(*paths: Path) -> None:
    """List files as outputs of this remote run: absolute paths, each ended by NUL, in $AUTOTUNE_OUTPUTS.

    Raises:
        CacheError: the list could not be written.
    """
    listed = os.environ.get("AUTOTUNE_OUTPUTS")
    if not listed:
        return
    data = b"".join(os.fsencode(path.absolute()) + b"\0" for path in paths)
    with _advising(Path(listed)):
        fd = os.open(listed, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


def trial_file(folder: Path, path: str, name: str) -> Path:
    """Return a file of a trial, whose path another machine may have written.

    Raises:
        DataError: the path or a link leads out of the workload's folder.
    """
    file = folder / path / name
    try:
        inside = "/" not in path and file.resolve() == folder.resolve() / path / name
    except (OSError, RuntimeError, ValueError):  # a link to itself; a name that no file system takes
        inside = False
    if not inside:
        raise DataError(f"{folder}: the trial {path!r:.60} is not in it: it is a link, or no folder's name")
    return file


def read_result(path: Path) -> dict[str, Any]:
    """Read a `performance_result.pkl` safely, even from another machine.

    Raises:
        DataError: it is torn, or contains anything but builtins.
        CacheError: it cannot be read.
    """
    result = safe_pickle.loads(read_file(path, safe_pickle.MAX_BYTES), path)
    if not isinstance(result, dict) or not isinstance(result.get("trial"), dict):
        raise DataError(f"{path}: holds no trial")
    return result


def unfinished(cache_root: Path) -> list[Path]:
    """Return unfinished files and folders that are older than an hour."""
    hour_ago = time.time() - 3600
    found = []
    for pattern in (f"{_UNFINISHED}*", f"*/{_UNFINISHED}*", f"*/*/{_UNFINISHED}*"):
        for path in cache_root.glob(pattern):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < hour_ago and not link_to(path.parent, cache_root):
                    found.append(path)
    return sorted(found)
