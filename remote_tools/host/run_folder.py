"""Read and write a run's files.

Below `<state>/<workspace>/`, where <state> is `~/.cache/remote-tools` or what `settle` was given, and
<workspace> is the code path's last name and a checksum of its path and of the host's name:

    stamp                     digest of the tree that was pushed last; missing during a push
    runs/<id>/run.json        the record; replaced atomically, never edited
    runs/<id>/output.frames   the command's output, in the frames that are sent to clients
    runs/<id>/claims          files that the run claimed, NUL-terminated ($AUTOTUNE_OUTPUTS)
    runs/<id>/ending          the signal by which a client asked the run to end
    runs/<id>/outputs.json    files that the run wrote below the cache root: [path, size, mtime_ns]

`output.frames` holds O and E frames only, so a client that lost its connection resumes at the number of bytes
that it has consumed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import zlib
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from .processes import alive, members, words_of

if TYPE_CHECKING:
    from .messages import Entry, RunRecord

JSON_BYTES = 64 * 1024 * 1024
"""Most of a file of ours that is read."""
RECORD_MOST_BYTES = 8 * 1024 * 1024
"""Most of a run's record that is read; Linux passes a command line of 6 MiB at most."""
_NONE = type(None)
BEGUN: dict[str, Any] = {
    **dict.fromkeys(("id", "state", "host", "user", "cwd", "cache_dir", "python"), (str,)),
    "argv": (list,),
    "env": (dict,),
    "pty": (bool,),
    "started": (int, float),
}
"""What every record of a run holds, and of which types."""
LATER: dict[str, Any] = {
    **dict.fromkeys(("pid", "output_bytes", "files", "files_bytes", "unsure_files"), (int,)),
    **dict.fromkeys(("exit", "signal", "since_ns"), (int, _NONE)),
    **dict.fromkeys(("left_running", "lease_ended"), (bool,)),
    **dict.fromkeys(("left", "beside"), (list,)),
    **dict.fromkeys(("owner", "process"), (list, _NONE)),
    **dict.fromkeys(("tty", "fault"), (str,)),
    "shell": (str, _NONE),
    "ended": (int, float),
}
"""What a record may hold too."""
RECORD_BYTES = 16 * 1024
"""Disk space reserved for a run's record before it starts."""


_home = ""
_umask = 0o022


def settle(folder: str, umask: int) -> None:
    """Take what the session's beginning found out.

    Args:
        folder: holds the state of all workspaces; it is writable, and by nobody else.
        umask: the account's own; ours is 077.
    """
    global _home, _umask
    _home, _umask = folder, umask


def account_umask() -> int:
    """Return the account's umask, for what is the user's: the command of a run."""
    return _umask


def make_folders(path: bytes | str) -> None:
    """Make a folder of the code path, and those above it, as the account would, closed to other writers."""
    ours = os.umask(_umask | 0o022)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(ours)


def state_home() -> str:
    """Return the folder that holds the state of all workspaces."""
    return _home or os.path.expanduser("~/.cache/remote-tools")


def write_json(path: str, message: object) -> None:
    """Replace a JSON file atomically."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "w", encoding="ascii") as file:
        json.dump(message, file)
    os.replace(part, path)


def write_reserved(reserved: str, path: str, message: Mapping[str, object]) -> None:
    """Replace a JSON file by one whose disk space was reserved, so that it succeeds on a full disk."""
    with open(reserved, "r+b") as file:
        file.write(json.dumps(message).encode("ascii").ljust(RECORD_BYTES))
    os.replace(reserved, path)


def remove_tree(folder: str) -> None:
    """Remove a folder; leave what cannot be removed."""
    shutil.rmtree(folder, ignore_errors=True)


def read_json(path: str, most_bytes: int = JSON_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is damaged, too large, or no file: a pipe would never end.
        FileNotFoundError: it is missing.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > most_bytes:
            raise ValueError(path)
        try:
            return json.loads(file.read(most_bytes), parse_constant=float_of)
        except RecursionError as error:
            raise ValueError(path) from error


def float_of(word: str) -> float:
    """Reject NaN and infinity: json would write them again as what is no JSON."""
    raise ValueError(word)


def is_record(found: Any) -> bool:
    """Return whether a run's record has what every one has, and all of the right types."""
    try:
        known = {**BEGUN, **{name: kinds for name, kinds in LATER.items() if name in found}}
        return (
            all(type(found[name]) in kinds for name, kinds in known.items())
            and all(
                found.get(name) is None or [True, int] == [len(found[name]) == 2, type(found[name][0])]
                for name in ("owner", "process")
            )
            and all([int, str, str] == [type(part) for part in each] for each in found.get("left", ()))
            and all(0 <= found.get(name, 0) < 1e12 for name in ("started", "ended"))
        )
    except (KeyError, TypeError, AttributeError):
        return False


class Place:
    """The workspace that a request is about.

    Args:
        asked: its folder, as the client calls it.
        code_path: the same, absolute.
        state: the folder of its state; all clients share it.
    """

    def __init__(self, asked: str, code_path: str, state: str) -> None:
        """Keep the paths."""
        self.asked, self.code_path, self.state = asked, code_path, state


def place_of(code_path: str) -> Place:
    """Return the workspace that a client calls `code_path`.

    Nodes may share a home, but not their processes, and not each disk: each keeps a state of its own.
    """
    real = os.path.realpath(os.path.expanduser(code_path))
    name = "{}-{:08x}".format(os.path.basename(real) or "root", name_sum(real + "\0" + os.uname().nodename))
    state = os.path.join(state_home(), name)
    close_to_others(state)
    return Place(code_path, real, state)


def close_to_others(folder: str) -> None:
    """Close a folder of ours to others: an earlier version left its mode to the umask."""
    try:
        info = os.lstat(folder)
    except OSError:
        return
    if stat.S_ISDIR(info.st_mode) and info.st_mode & 0o077 and info.st_uid == os.getuid():
        os.chmod(folder, 0o700)


def name_sum(path: str) -> int:
    """Return a 32-bit checksum of a path; importing hashlib would take a quarter of a session's start."""
    return zlib.crc32(os.fsencode(path))


def is_run_id(text: object) -> bool:
    """Return whether a text can name a run: it becomes the name of a folder."""
    if not isinstance(text, str) or not 0 < len(text) <= 128 or text[0] == ".":
        return False
    return text.isascii() and all(letter.isalnum() or letter in "._-" for letter in text)


def note_left(record: RunRecord) -> None:
    """Put into a record which processes of the run are left."""
    record["left"] = [(pid, start, words_of(pid)) for pid, start in members(record)]
    record["left_running"] = bool(record["left"])


class Run:
    """The files of one run."""

    def __init__(self, state: str, run_id: str) -> None:
        """Compose the paths."""
        self.id = run_id
        self.folder = os.path.join(state, "runs", run_id)
        self.record_path = os.path.join(self.folder, "run.json")
        self.output_path = os.path.join(self.folder, "output.frames")
        self.claims_path = os.path.join(self.folder, "claims")
        self.outputs_path = os.path.join(self.folder, "outputs.json")
        self.lease_path = os.path.join(self.folder, "lease")
        self.ending_path = os.path.join(self.folder, "ending")
        self.input_path = os.path.join(self.folder, "input")
        self.reserved = [os.path.join(self.folder, name) for name in ("running.part", "ended.part")]

    def record(self) -> RunRecord:
        """Read the record; a run is `lost` if its owner exited without recording an end."""
        record = self._read()
        if record["state"] in ("starting", "running") and not alive(record.get("owner")):
            record = self._read()
            if record["state"] in ("starting", "running"):
                record["state"] = "lost"
                note_left(record)
        return record

    def _read(self) -> RunRecord:
        """Read the record; one that was truncated is that of a lost run of which nothing is known."""
        try:
            found: RunRecord = read_json(self.record_path, RECORD_MOST_BYTES)
        except FileNotFoundError:
            raise
        except (ValueError, OSError):  # a folder, a link, a file that this account cannot read
            found = {}  # type: ignore[typeddict-item]
        if is_record(found) and found["id"] == self.id:
            return found
        return {
            "id": self.id,
            "state": "lost",
            "host": "",
            "user": "",
            "cwd": "",
            "cache_dir": "",
            "argv": ["(unreadable)"],
            "env": {},
            "shell": None,
            "pty": False,
            "python": "",
            "started": os.lstat(self.record_path).st_mtime,
        }

    def outputs(self) -> list[Entry]:
        """Return the files that the run wrote; empty before it has ended."""
        try:
            found: list[Entry] = read_json(self.outputs_path)
            return found
        except (OSError, ValueError):
            return []


def all_records(state: str, newest: int = 0) -> Iterator[tuple[Run, RunRecord]]:
    """Yield the workspace's runs with their records, oldest first; leave out what is removed meanwhile.

    Args:
        state: of the workspace.
        newest: how many of the newest; 0 for all.
    """
    for run in all_runs(state)[-newest:]:
        try:
            yield run, run.record()
        except FileNotFoundError:  # removed by another run that ends
            continue


def all_runs(state: str) -> list[Run]:
    """Return the workspace's runs, oldest first."""
    folder = os.path.join(state, "runs")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if not name.endswith(".part")]
    return [run for run in (Run(state, name) for name in names) if os.path.exists(run.record_path)]
