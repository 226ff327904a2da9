"""Relay a fork's messages and progress bars to its parent, which owns the terminal."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, BinaryIO

from remote_tools.sync.progress import Bar, Display


class Relay(Display):
    """The display of a fork: prints lines to its standard error, and sends all else to its parent."""

    def __init__(self, events: BinaryIO, emoji: bool) -> None:
        """Write events to a pipe."""
        super().__init__()
        self.emoji = emoji
        self._events = events

    def send(self, **event: Any) -> None:
        """Send one event as a line of JSON."""
        self._events.write(json.dumps(event).encode() + b"\n")
        self._events.flush()

    def bar(self, verb: str, files: int, size_bytes: int, icon: str = "") -> Bar:
        """Return a bar that the parent shows."""
        return RelayedBar(self, verb, files, size_bytes, icon)


class RelayedBar(Bar):
    """A bar that the parent shows."""

    def __init__(self, relay: Relay, verb: str, files: int, size_bytes: int, icon: str) -> None:
        """Start at 0."""
        super().__init__(relay, verb, files, size_bytes, icon)
        self._relay = relay

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._relay.send(bar=[self._verb, self.files, self.size_bytes])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar and leave it on the screen."""
        self._relay.send(close=True)

    def advance(self, files_done: int, bytes_done: int) -> None:
        """Set how much is done."""
        self.files_done = max(self.files_done, min(files_done, self.files))
        self.bytes_done = max(self.bytes_done, min(bytes_done, self.size_bytes))
        self._relay.send(advance=[self.files_done, self.bytes_done])

    def grow(self, files: int, size_bytes: int) -> None:
        """Add to the totals."""
        self.files += files
        self.size_bytes += size_bytes
        self._relay.send(grow=[files, size_bytes])
