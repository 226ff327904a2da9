"""Parse the progress of a transfer from rsync's output."""

from __future__ import annotations

import re
from collections.abc import Callable

from remote_tools.sync.progress import Bar

OUT_FORMAT = ":: %i %l %b"
"""rsync's --out-format: the action and the file's size. With %b rsync prints the line after the file is sent
(rsyncd.conf(5), "log format"). Names are left out because nothing here needs them."""


_ITEM = re.compile(rb"(?<![^\r\n]):: [<>c.*h]([fL])\S{0,20} (\d{1,19}) \d")
_PROGRESS2 = re.compile(rb"(?<![^\r\n]) {0,20}([\d.,]{1,40}) +\d{1,3}% ")
LINE_BYTES = 64 * 1024
"""Most of a line that is kept; the host's rsync prints too."""


class RsyncOutput:
    """Update a progress bar from the output of one or several rsyncs.

    Args:
        bar: the bar; its present counts are kept and added to.
    """

    def __init__(self, bar: Bar) -> None:
        """Start at the bar's present counts."""
        self._bar = bar
        self._files, self._bytes = bar.files_done, bar.bytes_done
        self._readers: list[_Reader] = []

    def reader(self) -> Callable[[bytes], None]:
        """Return a function that is given one rsync's standard output."""
        reader = _Reader()
        self._readers.append(reader)

        def feed(data: bytes) -> None:
            reader.feed(data)
            files_done = self._files + sum(each.files for each in self._readers)
            self._bar.advance(files_done, self._bytes + sum(each.bytes_done for each in self._readers))

        return feed


class _Reader:
    """Counts the files and bytes that one rsync reports as sent."""

    def __init__(self) -> None:
        self.files = self._bytes = self._within = 0
        self._rest = b""

    @property
    def bytes_done(self) -> int:
        """Bytes sent: of complete files, or rsync's running total if that is more."""
        return max(self._bytes, self._within)

    def feed(self, data: bytes) -> None:
        """Parse a piece of output; a line ends with a newline, or with a carriage return if it is redrawn."""
        text = self._rest + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        self._rest = text[end:][-LINE_BYTES:]
        items = _ITEM.findall(text, 0, end)
        self.files += len(items)
        self._bytes += sum(int(size) for kind, size in items if kind == b"f")
        totals = _PROGRESS2.findall(text, 0, end)
        if totals:
            self._within = int(re.sub(rb"\D", b"", totals[-1]))
