"""Store this machine's records of its runs: `.remote/runs/<id>/{run.json,diff.patch}`."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from remote_tools.errors import DataError, UsageError
from remote_tools.host.messages import RunRecord
from remote_tools.host.run_folder import is_run_id
from remote_tools.settings.state_folder import check_state, make_private, read_state, state_folder
from remote_tools.settings.whole_file import write_whole


class Record(TypedDict, total=False):
    """This machine's record of a run; `there` is the host's own record."""

    id: str
    host: str
    code_path: str
    argv: list[str] | None
    shell: str | None
    words: list[str]
    auto_fetch: bool
    pty: bool
    local_dir: str
    started: float
    git_sha: str | None
    git_dirty: bool | None
    diff_omitted: list[str]
    state: str
    exit: int | None
    ended: float | None
    fetched: list[str]
    there: RunRecord


DIFF_BYTES = 200_000
"""Most of a diff that is shown."""
RECORD_BYTES = 64 << 20
"""No record is larger: it names the fetched files, some 100 bytes each."""


def new_id(words: Sequence[str]) -> str:
    """Return a new run id: UTC time in milliseconds, target, random: `20261122-091530123-gemm-7c1e42`."""
    stems = [
        Path(word).stem for word in words if not word.startswith("-") and word not in ("python", "python3")
    ]
    slug = re.sub(r"[^A-Za-z0-9]+", "_", stems[0] if stems else "run")[:24].strip("_") or "run"
    now_ms = time.time_ns() // 1_000_000
    clock = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_ms // 1000))
    return f"{clock}{now_ms % 1000:03d}-{slug}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Records:
    """The local records of one workspace.

    Args:
        root: the workspace.
        say: prints one line to the user, if a record cannot be written.
    """

    root: Path
    say: Callable[[str], None] = lambda _text: None

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run's record.

        Raises:
            DataError: the id is none of ours; it may lead elsewhere.
        """
        if not is_run_id(run_id):
            raise DataError("runs", f"{run_id[:80]!r} is not the id of a run")
        return self.root / ".remote" / "runs" / run_id

    def make(self, run_id: str) -> Path:
        """Return the folder of a run's record; create it if it is missing.

        Raises:
            OSError: it cannot be created, or is not this account's own.
        """
        folder = self.folder(run_id)
        make_private(folder, state_folder(self.root))
        return folder

    def write(self, record: Record) -> None:
        """Write a record if it can be written; a reader sees the old or the new one, never a part."""
        with self.tolerant():
            folder = self.make(record["id"])
            write_whole(folder / "run.json", (json.dumps(record, indent=1) + "\n").encode("ascii"))

    @contextmanager
    def tolerant(self) -> Iterator[None]:
        """Go on without a record that cannot be written, and say so: the run decides the exit code."""
        try:
            yield
        except OSError as error:
            self.say(f"the record of this run cannot be written: {error.filename}: {error.strerror}")

    def read(self, run_id: str) -> Record:
        """Read a record; empty if it is missing, as for a run that another machine started."""
        path = self.folder(run_id) / "run.json"
        try:
            found: Record = json.loads(read_state(path, self.root, RECORD_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if _is_record(found) else {}

    def prune(self, keep: int) -> None:
        """Remove the oldest records beyond `keep`, with their patches and summaries, as the host does."""
        for run_id in self.ids()[: -keep or None]:
            shutil.rmtree(self.folder(run_id), ignore_errors=True)

    def diff(self, run_id: str) -> str:
        """Return how the sources of a run differed from the commit; a long diff ends with where it is."""
        path = self.folder(run_id) / "diff.patch"
        try:
            text = read_state(path, self.root)
        except OSError:
            return ""
        whole = len(text) <= DIFF_BYTES
        shown = text if whole else text[:DIFF_BYTES].rpartition(b"\n")[0] + b"\n"
        return shown.decode(errors="replace") + ("" if whole else f"... the rest: {path}\n")

    def ids(self) -> list[str]:
        """Return the ids of all records, oldest first; none if they are not this account's own."""
        folder = self.root / ".remote" / "runs"
        try:
            check_state(folder, self.root)
        except OSError:
            return []
        return sorted(path.parent.name for path in folder.glob("*/run.json") if is_run_id(path.parent.name))

    def last(self, host: str) -> str:
        """Return the newest run on a host.

        Raises:
            UsageError: no run was started on it from here.
        """
        for run_id in reversed(self.ids()):
            if self.read(run_id).get("host") == host:
                return run_id
        raise UsageError("runs", f"no run was started on {host} from here", "inv runs.list; inv fetch --all")


def _is_record(found: object) -> bool:
    """Return whether the content of a file has the types of `Record`; another version may add names."""
    types = get_type_hints(Record)
    return (
        isinstance(found, dict)
        and isinstance(found.get("id"), str)
        and all(_fits(value, types.get(name, object)) for name, value in found.items())
    )


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(each, *get_args(kind)) for each in value)
    if is_typeddict(kind):
        return isinstance(value, dict)
    return isinstance(value, (int, float) if kind is float else kind)


def match(wanted: str, known: Sequence[str]) -> str:
    """Return the only id that starts with `wanted`; if no id does, the only one that contains it.

    Raises:
        UsageError: no id matches, or several do.
    """
    found = [run_id for run_id in known if run_id.startswith(wanted)] or [i for i in known if wanted in i]
    if wanted in found or len(found) == 1:
        return wanted if wanted in found else found[0]
    if not found:
        raise UsageError("runs", f"no run {wanted}", "inv runs.list")
    raise UsageError(
        "runs", f"{wanted} matches {len(found)} runs: {', '.join(found[-3:])}", "type more of the id"
    )
