"""Check what a host sends, where it comes in: the size of its frames, the types and values of its replies.

A host may be hostile, or be reached through something that alters what it sends. All that is not as in
`messages` is `Malformed`; keys that a message does not have are dropped.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

import msgspec

from remote_tools.host import messages
from remote_tools.host.frames import (
    FILE,
    NEED,
    PING,
    PIPE_BYTES,
    REPLY,
    RESULT,
    STDERR,
    STDOUT,
    Malformed,
)
from remote_tools.host.listing import unpack
from remote_tools.host.messages import Op, Refused, Request, RunRecord, Started
from remote_tools.host.run_folder import is_run_id
from remote_tools.host.supervisor import INLINE_FILE_BYTES

PATH_BYTES = 4096
"""PATH_MAX of Linux (limits.h)."""
LIMITS: Mapping[bytes, int] = {
    REPLY: 64 * 1024 * 1024,  # a listing of a million files
    NEED: 0,
    PING: 0,
    STDOUT: PIPE_BYTES,
    STDERR: PIPE_BYTES,
    RESULT: FILE.size + PATH_BYTES + INLINE_FILE_BYTES,
}
"""The largest payload of each kind of frame that a host may send, in bytes."""
CONTAINERS = 2_000_000
"""Most lists and objects in a reply: a small text can hold many of them, and each takes memory."""
STREAMS = ("run", "attach")
PACKED = ("new", "changed", "blocked", "delete", "removed")
"""The keys of type `Packed` in all replies; a test compares them with the types."""
STATES = ("starting", "running", "ended", "lost")
LATEST_S = 1e11
"""A time in seconds since 1970 that any calendar here can show."""
BIGGEST = 1 << 63
"""Above every size and every time in ns of a file."""


class Exchange:
    """What a host may still send in reply to one request.

    Args:
        asked: the request.
    """

    def __init__(self, asked: Request) -> None:
        """Start before the first frame."""
        self.asked = asked
        self._started = self._sources_sent = False
        # Files may grow between the host's look at their sizes and its reading.
        self._file_bytes_left = 2 * int(asked["params"].get("inline_bytes", 0))
        self.streams = asked["op"] in STREAMS
        """Whether the reply comes when a run ends, whenever that is."""

    def admit(self, kind: bytes, payload: bytes) -> None:
        """Check that a frame may come now.

        Raises:
            Malformed: it may not.
        """
        if kind in (STDOUT, STDERR) and not self.streams:
            raise Malformed("output of a run that was not asked for")
        if kind == RESULT:
            self._file_bytes_left -= len(payload)
            if self._file_bytes_left < 0:
                raise Malformed("more bytes of files than were asked for")
        if kind == NEED:
            if self._sources_sent:
                raise Malformed("our program, wanted twice")
            self._sources_sent = True

    def file(self, payload: bytes) -> tuple[bytes, int, bytes]:
        """Return path, mtime in ns and content of a small file.

        Raises:
            Malformed: the frame is torn.
        """
        if len(payload) < FILE.size:
            raise Malformed("a file without a path")
        mtime_ns, length = FILE.unpack_from(payload)
        end = FILE.size + length
        if not 0 < length <= len(payload) - FILE.size:
            raise Malformed("a file with a torn path")
        return payload[FILE.size : end], mtime_ns, payload[end:]

    def reply(self, payload: bytes) -> Mapping[str, Any]:
        """Return a reply: an error, the news that the run has started, or the answer.

        Raises:
            Malformed: it is none of these.
        """
        found = read(self.asked, payload)
        if "started" in found:
            if self._started:
                raise Malformed("a run that started twice")
            self._started = True
        return found


@functools.lru_cache
def reply_types() -> dict[str, tuple[type, ...]]:
    """Return the types of each op's reply, by the op's name."""
    found = {}
    for name, hint in get_type_hints(messages).items():
        op = getattr(messages, name)
        if isinstance(op, Op):
            reply = get_args(hint)[1]
            found[op.name] = get_args(reply) or (reply,)
    return found


def read(asked: Request, payload: bytes) -> Mapping[str, Any]:
    """Return a reply to a request: an error, the news that a run has started, or the answer.

    Raises:
        Malformed: it is none of these.
    """
    if payload.count(b"[") + payload.count(b"{") > CONTAINERS:
        raise Malformed("a reply with millions of parts")
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError, or a number of 5,000 digits, too
        raise Malformed("a reply that is no JSON") from error
    if not isinstance(found, dict):
        raise Malformed("a reply that is no object")
    if "error" in found:
        return _typed(found, Refused)
    if "started" in found:
        return _started(asked, found)
    kinds = reply_types()[asked["op"]]
    fitting = [kind for kind in kinds if _required(kind) <= found.keys()]
    reply = _typed(found, *(fitting or kinds)[:1])
    _check_runs(asked, reply)
    for row in reply.get("found", ()):
        if not 0 <= row["code"] <= 255:
            raise Malformed(f"the exit code {row['code']}")
    for entry in reply.get("outputs", ()):
        if not (0 <= entry[1] < BIGGEST and -BIGGEST < entry[2] < BIGGEST):
            raise Malformed(f"a file of {entry[1]} bytes, of the time {entry[2]}")
    return reply


def _required(kind: Any) -> frozenset[str]:
    keys: frozenset[str] = kind.__required_keys__
    return keys


def _typed(found: Mapping[str, object], kind: Any) -> Mapping[str, Any]:
    """Return a message of a type, with the keys of that type only."""
    try:
        typed: Mapping[str, Any] = msgspec.convert(found, kind)
    except (msgspec.ValidationError, ValueError, RecursionError, OverflowError) as error:
        raise Malformed(f"no {kind.__name__}: {error}") from error
    _check_texts(typed)
    return typed


def _check_texts(reply: Mapping[str, Any]) -> None:
    """Check that every name stands for bytes, as os.fsdecode makes it; JSON has more surrogates than that."""
    try:
        json.dumps(reply, ensure_ascii=False).encode("utf-8", "surrogateescape")
        for key in PACKED:
            if isinstance(reply.get(key), str):
                unpack(reply[key])
    except ValueError as error:  # base64's and Unicode's errors are ValueErrors
        raise Malformed("a name that no file can have") from error


def _started(asked: Request, found: Mapping[str, object]) -> Mapping[str, Any]:
    """Return the news that the run of the request has started."""
    reply = _typed(found, Started)
    if asked["op"] not in STREAMS:
        raise Malformed(f"a run started by `{asked['op']}`")
    if reply["started"] != asked["params"]["id"]:
        raise Malformed(f"another run started: {reply['started']:.100}")
    return reply


def _check_runs(asked: Request, reply: Mapping[str, Any]) -> None:
    """Check the values of the records of runs; a reply about one run is about the run of the request."""
    op, params = asked["op"], asked["params"]
    if "stale" in reply and params["stamp"] is None:
        raise Malformed("a stale tree, where any tree will do")
    if "run" in reply and reply["run"]["id"] != params["id"]:
        raise Malformed(f"another run: {reply['run']['id']:.100}")
    followed = (op == "run" and not params["detach"]) or (op == "attach" and params["follow"])
    if followed and "run" in reply and reply["run"]["state"] not in ("ended", "lost"):
        raise Malformed("the end of a run that has not ended")
    for record in _records(reply):
        fault = _fault_of(record)
        if fault:
            raise Malformed(fault)


def _records(reply: Mapping[str, Any]) -> Iterator[RunRecord]:
    if "run" in reply:
        yield reply["run"]
    runs: Iterable[RunRecord] = reply.get("runs", ())
    yield from runs


def _fault_of(record: RunRecord) -> str:
    """Return what is wrong with the values of a run's record; empty if nothing is."""
    run_id, state = record["id"], record["state"]
    code, ended = record.get("exit"), record.get("ended", 0)
    if not is_run_id(run_id):
        return f"a run with the id {run_id:.100}"
    if state not in STATES:
        return f"a run in the state {state:.100}"
    if not (code is None and state != "ended") and not (isinstance(code, int) and 0 <= code <= 255):
        return f"a run that ended with {code}"
    if not (0 <= record["started"] < LATEST_S and 0 <= ended < LATEST_S):
        return "a run outside of every calendar"
    return ""
