"""Speak with the client: frames on standard input and output.

A frame is one byte of kind, four of length (big-endian), and the payload; `messages.FRAMES` says what each
kind carries.
"""

from __future__ import annotations

import json
import os
import select
import struct
from typing import Iterator, Mapping, Sequence

MAGIC = b"\0remote-tools 1\n"
"""Sent first, so that what shell start-up files print before it can be told from us."""
HEADER = struct.Struct(">cI")
FILE = struct.Struct(">qI")
REQUEST, SOURCES, SIGNAL, INPUT, WINDOW, PING = b"Q", b"S", b"K", b"I", b"W", b"P"
REPLY, NEED, STDOUT, STDERR, RESULT = b"R", b"N", b"O", b"E", b"F"
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: os.write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def send(kind: bytes, payload: bytes) -> None:
    """Send one frame to the client."""
    write_all(1, HEADER.pack(kind, len(payload)) + payload)


def send_json(kind: bytes, message: Mapping[str, object]) -> None:
    """Send one frame of JSON; ASCII, so that names that are no UTF-8 survive as lone surrogates."""
    send(kind, json.dumps(message).encode("ascii"))


class Inbox:
    """Frames from the client, as they arrive on standard input."""

    def __init__(self, early: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Start with the frames that arrived before this program did."""
        self._buffer = bytearray().join(HEADER.pack(kind, len(data)) + data for kind, data in early)

    def take(self) -> tuple[bytes, bytes] | None:
        """Return the next whole frame, or None."""
        if len(self._buffer) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._buffer)
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return kind, payload

    def wait(self, timeout_s: float | None) -> None:
        """Wait for bytes; end the session where the client is gone."""
        if not select.select([0], [], [], timeout_s)[0]:
            return
        data = os.read(0, CHUNK_BYTES)
        if not data:
            os._exit(0)
        self._buffer += data

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Take the whole frames that have arrived."""
        frame = self.take()
        while frame is not None:
            yield frame
            frame = self.take()

    def receive(self) -> tuple[bytes, bytes]:
        """Wait for one whole frame."""
        while True:
            frame = self.take()
            if frame is not None:
                return frame
            self.wait(None)
