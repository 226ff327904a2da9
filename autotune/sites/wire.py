"""Records between the tuner and its keeper, over a socket."""

from __future__ import annotations

import json
import math
import select
import socket
import struct
from typing import Any

Record = dict[str, Any]


def send(sock: socket.socket, record: Record) -> None:
    """Send one record: its length in 4 bytes, then JSON."""
    text = json.dumps(record).encode()
    sock.sendall(struct.pack("!I", len(text)) + text)


def receive(sock: socket.socket) -> Record:
    """Receive one record from a trusted peer.

    Raises:
        EOFError: the peer is gone.
    """
    (length,) = struct.unpack("!I", _exactly(sock, 4))
    record: Record = json.loads(_exactly(sock, length))
    return record


def wait(socks: list[socket.socket], seconds: float | None) -> list[socket.socket]:
    """Return those that can be read or are closed.

    Args:
        socks: what is waited for.
        seconds: how long; None for ever.
    """
    poll = select.poll()  # select(2) refuses descriptors from 1024 up
    for sock in socks:
        poll.register(sock, select.POLLIN)
    ready = {number for number, _ in poll.poll(None if seconds is None else math.ceil(seconds * 1000))}
    return [sock for sock in socks if sock.fileno() in ready]


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
