"""Keep a run's files: where they lie, and reading and writing them whole.

Below `~/.cache/remote-tools/<workspace>/`:

    stamp                     digest of the tree that was pushed last, absent while a push is under way
    runs/<id>/run.json        the record; replaced whole, never edited
    runs/<id>/output.frames   what the command printed, as the very frames that a client is sent
    runs/<id>/claims          files that the run named as its own, NUL-terminated ($AUTOTUNE_OUTPUTS)
    runs/<id>/outputs.json    files that the run wrote below the cache root: [path, size, mtime_ns]

`output.frames` holds O and E frames only, so a client that lost its connection comes back with the number of
bytes that it has consumed, and goes on there.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from typing import Any, Dict

from .processes import alive, group_alive

RECORD_BYTES = 16 * 1024
"""Room that is taken for a run's record before it starts."""
Record = Dict[str, Any]


def write_json(path: str, message: Any) -> None:
    """Replace a JSON file whole: a reader sees the old or the new one."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "w", encoding="ascii") as file:
        json.dump(message, file)
    os.replace(part, path)


def write_reserved(reserved: str, path: str, message: Any) -> None:
    """Replace a JSON file by one whose room was taken before, so that a full disk cannot refuse it."""
    with open(reserved, "r+b") as file:
        file.write(json.dumps(message).encode("ascii").ljust(RECORD_BYTES))
    os.replace(reserved, path)


def remove_tree(folder: str) -> None:
    """Remove a folder; what cannot be removed stays."""

    shutil.rmtree(folder, ignore_errors=True)


def read_json(path: str) -> Any:
    """Read a JSON file."""
    with open(path, encoding="ascii") as file:
        return json.load(file)


def state_folder(code_path: str) -> str:
    """Return where the state of the workspace at `code_path` lies: one place for all who push there."""
    real = os.path.realpath(os.path.expanduser(code_path))
    name = "{}-{:08x}".format(os.path.basename(real) or "root", name_sum(real))
    return os.path.join(os.path.expanduser("~/.cache/remote-tools"), name)


def name_sum(path: str) -> int:
    """Return 32 bits that tell paths of one user apart; hashlib would be a quarter of a session's start."""
    return zlib.crc32(os.fsencode(path))


class Run:
    """The files of one run."""

    def __init__(self, state: str, run_id: str) -> None:
        """Name the files; nothing is read or made."""
        self.id = run_id
        self.folder = os.path.join(state, "runs", run_id)
        self.record_path = os.path.join(self.folder, "run.json")
        self.output_path = os.path.join(self.folder, "output.frames")
        self.claims_path = os.path.join(self.folder, "claims")
        self.outputs_path = os.path.join(self.folder, "outputs.json")
        self.lease_path = os.path.join(self.folder, "lease")
        self.input_path = os.path.join(self.folder, "input")
        self.reserved = [os.path.join(self.folder, name) for name in ("running.part", "ended.part")]

    def record(self) -> Record:
        """Read the record; a run whose owner is gone without an end is `lost`."""
        record: Record = read_json(self.record_path)
        if record["state"] in ("starting", "running") and not alive(record["owner"]):
            record = read_json(self.record_path)
            if record["state"] in ("starting", "running"):
                left = bool(record.get("pid")) and group_alive(record["pid"])
                record.update(state="lost", left_running=left)
        return record

    def outputs(self) -> list[list[Any]]:
        """Return the files that the run wrote; none before it has ended."""
        return read_json(self.outputs_path) if os.path.exists(self.outputs_path) else []


def all_runs(state: str) -> list[Run]:
    """Return the workspace's runs, oldest first."""
    folder = os.path.join(state, "runs")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if not name.endswith(".part")]
    return [run for run in (Run(state, name) for name in names) if os.path.exists(run.record_path)]
