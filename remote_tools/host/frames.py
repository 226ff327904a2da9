"""Exchange frames with the client on standard input and output.

A frame is one byte of kind, four of length (big-endian), and the payload; `messages.FRAMES` lists the kinds.
"""

from __future__ import annotations

import json
import os
import select
import struct
from typing import Iterator, Mapping, Sequence

MAGIC = b"\0remote-tools 1\n"
"""Sent first, so that the client can skip what shell start-up files print."""
HEADER = struct.Struct(">cI")
FILE = struct.Struct(">qI")
REQUEST, SOURCES, SIGNAL, INPUT, WINDOW, PING = b"Q", b"S", b"K", b"I", b"W", b"P"
REPLY, NEED, STDOUT, STDERR, RESULT = b"R", b"N", b"O", b"E", b"F"
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024
FROM_CLIENT = {REQUEST: MOST_BYTES, SOURCES: MOST_BYTES, SIGNAL: 64, INPUT: MOST_BYTES, WINDOW: 64, PING: 0}
"""The largest payload of each kind of frame that a client may send, in bytes."""


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; os.write may write fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return one frame."""
    return HEADER.pack(kind, len(payload)) + payload


def json_frame(kind: bytes, message: Mapping[str, object]) -> bytes:
    """Return one frame of JSON, in ASCII, so that names that are not UTF-8 survive as lone surrogates."""
    return frame(kind, json.dumps(message).encode("ascii"))


class Malformed(ValueError):
    """The other side sent what the protocol does not allow."""


def take_frames(buffer: bytearray, limits: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Remove the complete frames from the buffer and return them.

    Args:
        buffer: what has arrived.
        limits: the largest payload of each kind that may arrive, in bytes.

    Raises:
        Malformed: a frame is of another kind, or larger.
    """
    found, start = [], 0
    while len(buffer) - start >= HEADER.size:
        kind, length = HEADER.unpack_from(buffer, start)
        if length > limits.get(kind, -1):
            raise Malformed(f"a frame of kind {kind!r} and {length:,} bytes")
        end = start + HEADER.size + length
        if len(buffer) < end:
            break
        with memoryview(buffer) as view:
            found.append((kind, bytes(view[start + HEADER.size : end])))
        start = end
    del buffer[:start]
    return found


def send(kind: bytes, payload: bytes) -> None:
    """Send one frame to the client."""
    write_all(1, frame(kind, payload))


def send_json(kind: bytes, message: Mapping[str, object]) -> None:
    """Send one frame of JSON to the client."""
    write_all(1, json_frame(kind, message))


class Inbox:
    """The frames that arrive from the client on standard input."""

    def __init__(self, early: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Start with the frames that were read before this program started."""
        self._arrived = list(early)
        self._buffer = bytearray()

    def wait(self, timeout_s: float | None) -> None:
        """Wait for bytes; exit if the client has closed the connection.

        Raises:
            Malformed: what arrived is no frame.
        """
        if not select.select([0], [], [], timeout_s)[0]:
            return
        data = os.read(0, CHUNK_BYTES)
        if not data:
            os._exit(0)
        self._buffer += data
        self._arrived += take_frames(self._buffer, FROM_CLIENT)

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield and remove the complete frames that have arrived."""
        while self._arrived:
            yield self._arrived.pop(0)

    def receive(self) -> tuple[bytes, bytes]:
        """Wait for one complete frame."""
        while not self._arrived:
            self.wait(None)
        return self._arrived.pop(0)
