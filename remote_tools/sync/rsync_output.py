"""Read how far a transfer is from what rsync prints."""

from __future__ import annotations

import re
from collections.abc import Callable

from remote_tools.sync.progress import Bar

OUT_FORMAT = ":: %i %l %b"
"""rsync's --out-format: what was done, and the file's size. A %b makes rsync print it once the file is sent
(rsyncd.conf(5), "log format"); names are left out since nothing here needs them."""


_ITEM = re.compile(rb"(?<![^\r\n]):: [<>c.*h]([fL])\S* (\d+) \d+")


_PROGRESS2 = re.compile(rb"(?<![^\r\n]) *([\d.,]+) +\d+% ")


class RsyncOutput:
    """Moves a bar by what one or several rsyncs print.

    Args:
        bar: what to move, from where it stands.
    """

    def __init__(self, bar: Bar) -> None:
        """Start where the bar stands."""
        self._bar = bar
        self._files, self._bytes = bar.files_done, bar.bytes_done
        self._readers: list[_Reader] = []

    def reader(self) -> Callable[[bytes], None]:
        """Return what takes one rsync's standard output."""
        reader = _Reader()
        self._readers.append(reader)

        def feed(data: bytes) -> None:
            reader.feed(data)
            files_done = self._files + sum(each.files for each in self._readers)
            self._bar.advance(files_done, self._bytes + sum(each.bytes_done for each in self._readers))

        return feed


class _Reader:
    """Counts what one rsync says that it has sent."""

    def __init__(self) -> None:
        self.files = self._bytes = self._within = 0
        self._rest = b""

    @property
    def bytes_done(self) -> int:
        """Bytes of whole files, or more where a large one is under way."""
        return max(self._bytes, self._within)

    def feed(self, data: bytes) -> None:
        """Take what was printed; a line ends with a newline, or with the return before its next version."""
        text = self._rest + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        self._rest = text[end:]
        items = _ITEM.findall(text, 0, end)
        self.files += len(items)
        self._bytes += sum(int(size) for kind, size in items if kind == b"f")
        totals = _PROGRESS2.findall(text, 0, end)
        if totals:
            self._within = int(re.sub(rb"\D", b"", totals[-1]))
