"""The display of a process that has no terminal of its own: its bars are shown by whom it was forked from."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, BinaryIO

from remote_tools.sync.progress import Bar, Display


class Relay(Display):
    """The display of a fork: lines go to its standard error, everything else to whom it was forked from."""

    def __init__(self, events: BinaryIO, emoji: bool) -> None:
        """Write news to a pipe."""
        super().__init__()
        self.emoji = emoji
        self._events = events

    def send(self, **event: Any) -> None:
        """Send one piece of event."""
        self._events.write(json.dumps(event).encode() + b"\n")
        self._events.flush()

    def bar(self, verb: str, files: int, size_bytes: int, icon: str = "") -> Bar:
        """Return a bar that is shown by whom we were forked from."""
        return RelayedBar(self, verb, files, size_bytes, icon)


class RelayedBar(Bar):
    """A bar that is shown elsewhere."""

    def __init__(self, relay: Relay, verb: str, files: int, size_bytes: int, icon: str) -> None:
        """Start at nothing."""
        super().__init__(relay, verb, files, size_bytes, icon)
        self._relay = relay

    def __enter__(self) -> Bar:
        """Have it shown."""
        self._relay.send(bar=[self._verb, self.files, self.size_bytes])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have it left as it stands."""
        self._relay.send(close=True)

    def advance(self, files_done: int, bytes_done: int) -> None:
        """Set how much is done."""
        self.files_done = max(self.files_done, min(files_done, self.files))
        self.bytes_done = max(self.bytes_done, min(bytes_done, self.size_bytes))
        self._relay.send(advance=[self.files_done, self.bytes_done])

    def grow(self, files: int, size_bytes: int) -> None:
        """Add to what there is to do."""
        self.files += files
        self.size_bytes += size_bytes
        self._relay.send(grow=[files, size_bytes])
