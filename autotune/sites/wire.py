"""Messages over a socket: four bytes of length, then JSON of the kind and its fields."""

from __future__ import annotations

import json
import math
import select
import socket
import struct
from typing import TypeVar

from autotune.sites.messages import Message

_Kind = TypeVar("_Kind", bound=Message)


def send(sock: socket.socket, message: Message) -> None:
    """Send one message."""
    text = json.dumps([type(message).__name__, message], default=vars).encode()
    sock.sendall(struct.pack("!I", len(text)) + text)


def receive(sock: socket.socket, *kinds: type[_Kind]) -> _Kind:
    """Receive one message from a trusted peer.

    Args:
        sock: the socket.
        kinds: those that may come.

    Raises:
        EOFError: the peer is gone.
    """
    (length,) = struct.unpack("!I", _exactly(sock, 4))
    name, fields = json.loads(_exactly(sock, length))
    return {kind.__name__: kind for kind in kinds}[name].from_json(fields)


def wait(socks: list[socket.socket], seconds: float | None) -> list[socket.socket]:
    """Return those that can be read or are closed.

    Args:
        socks: to poll.
        seconds: the timeout; None for no timeout.
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
