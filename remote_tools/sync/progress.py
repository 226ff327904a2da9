"""Show the progress of a transfer: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

from remote_tools.escape import escaped

LINE_EVERY_S = 10.0
"""Interval between progress lines without a terminal."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size_text(size_bytes: float) -> str:
    """Return a size for people, in powers of 1000."""
    unit = 0
    while size_bytes >= 999.5 and unit < len(_UNITS) - 1:
        size_bytes, unit = size_bytes / 1000, unit + 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.3g} {_UNITS[unit]}"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun: `1 file`, `2 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def open_standard_streams() -> None:
    """Open what the caller closed (`>&-`): the next file that we open must not become our stdout."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def silence(fd: int) -> None:
    """Point a stream that takes nothing any more to /dev/null, or Python fails again when it exits."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, fd)
        os.close(null)


class Display:
    """Prints messages and progress bars.

    Args:
        stream: standard error by default, because standard output belongs to the command that runs.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Find out whether the stream is a terminal and can show emoji."""
        open_standard_streams()
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self.emoji = (self.stream.encoding or "").lower().replace("-", "") == "utf8"

    def say(self, text: str, icon: str = "") -> None:
        """Print one line, or several; control characters are escaped.

        Args:
            text: the line.
            icon: an emoji to put before it, if the stream can show one.
        """
        line = f"{icon} {escaped(text)}" if icon and self.emoji else escaped(text)
        encoding = self.stream.encoding or "ascii"
        try:
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=self.stream, flush=True)
        except OSError:  # a closed pipe, a terminal that is gone, a full disk: the work goes on
            silence(self.stream.fileno())

    def bar(self, verb: str, files: int, size_bytes: int, icon: str = "") -> Bar:
        """Return a bar for a transfer of so many files and bytes; use it with `with`."""
        return Bar(self, verb, files, size_bytes, icon)


class Bar:
    """Progress of one transfer; a file counts as its bytes plus one, so that empty files move the bar too."""

    def __init__(self, display: Display, verb: str, files: int, size_bytes: int, icon: str) -> None:
        """Start at 0 of `files` and `size_bytes`."""
        self.files, self.size_bytes = files, size_bytes
        self.files_done = self.bytes_done = 0
        self._display, self._verb, self._icon = display, verb, icon
        self._tqdm: Any = None
        self._printed_at = time.monotonic()

    def __enter__(self) -> Bar:
        """Show the empty bar, or print the totals if there is no terminal."""
        if not self._display.terminal:
            amount = f"{count_text(self.files, 'file')}, {size_text(self.size_bytes)}"
            self._display.say(f"{self._verb} {amount}", self._icon)
            return self
        from tqdm import tqdm  # imported late, while the network is busy: it takes 40 ms

        # A terminal of 0 columns (a bare pty, some CI) would get a bar of width 0.
        sized = os.get_terminal_size(self._display.stream.fileno()).columns > 0
        icon = f"{self._icon} " if self._icon and self._display.emoji else ""
        self._tqdm = tqdm(
            total=self.files + self.size_bytes,
            desc=f"{icon}{self._verb}",
            file=self._display.stream,
            ascii=not self._display.emoji,
            dynamic_ncols=sized,
            ncols=None if sized else 80,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {unit} [{elapsed}<{remaining}]",
        )
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar and leave it on the screen."""
        if self._tqdm is not None:
            self._show()
            self._tqdm.close()

    def advance(self, files_done: int, bytes_done: int) -> None:
        """Set how much is done; the counts never go down, even if the transfer restarts."""
        self.files_done = max(self.files_done, min(files_done, self.files))
        self.bytes_done = max(self.bytes_done, min(bytes_done, self.size_bytes))
        if self._tqdm is not None:
            self._show()
        elif time.monotonic() - self._printed_at > LINE_EVERY_S:
            self._printed_at = time.monotonic()
            self._display.say(f"{self._verb}: {self._counts()}")

    def grow(self, files: int, size_bytes: int) -> None:
        """Add to the totals."""
        self.files += files
        self.size_bytes += size_bytes
        if self._tqdm is not None:
            self._tqdm.total = self.files + self.size_bytes
            self._show()

    def _counts(self) -> str:
        return (
            f"{self.files_done:,}/{count_text(self.files, 'file')}, "
            f"{size_text(self.bytes_done)} of {size_text(self.size_bytes)}"
        )

    def _show(self) -> None:
        rate = self._tqdm.format_dict["rate"]
        rate = rate or self.bytes_done / max(self._tqdm.format_dict["elapsed"], 0.001)
        self._tqdm.unit = f"{self._counts()}, {size_text(rate)}/s"  # tqdm's postfix begins with a comma
        self._tqdm.update(self.files_done + self.bytes_done - self._tqdm.n)
