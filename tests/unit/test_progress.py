"""What the user sees of a transfer."""

from __future__ import annotations

import io
import os
import pty

from remote_tools.sync.progress import Display, count_text, size_text
from remote_tools.sync.rsync_output import RsyncOutput


class Stream(io.StringIO):
    """A stream that is no terminal, of a certain encoding."""

    def __init__(self, encoding: str) -> None:
        """Name the encoding."""
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding."""
        return self._encoding


def test_sizes_and_counts_read_well() -> None:
    sizes = [0, 999, 1000, 1_234_567, 999_999, 5e12]
    assert ["0 B", "999 B", "1 kB", "1.23 MB", "1 MB", "5 TB"] == [size_text(size) for size in sizes]
    assert ["0 files", "1 file", "1,000 files"] == [count_text(count, "file") for count in (0, 1, 1000)]


def test_without_a_terminal_there_are_plain_lines() -> None:
    stream = Stream("utf-8")
    with Display(stream).bar("Uploading", 2, 10, "📤") as bar:
        RsyncOutput(bar).reader()(b":: <f+++++++++ 4 10\n:: <f+++++++++ 6 10\n")
    assert "📤 Uploading 2 files, 10 B\n" == stream.getvalue()


def test_without_utf8_there_is_no_emoji() -> None:
    stream = Stream("ascii")
    Display(stream).say("Fetched ü", "✅")
    assert "Fetched \\xfc\n" == stream.getvalue()


def test_what_rsync_prints_moves_the_bar() -> None:
    bar = Display(Stream("utf-8")).bar("Uploading", 3, 100)
    feed = RsyncOutput(bar).reader()
    seen = []
    for data in (
        b"building file list ... done\n\r         32 ",
        b" 32%  1.00MB/s    0:00:01  \r         64  64%    2.00MB/s    0:00:01",
        b" (xfr#1, to-chk=2/3)\n:: <f+++++++++ 64 70\n",
        b":: cL+++++++++ 3 0\n:: cd+++++++++ 4096 0\nsent 12 bytes\n",
        b":: <f..t...... 1,234 3\n:: <f..t...... 36 40\n",
    ):
        feed(data)
        seen.append((bar.files_done, bar.bytes_done))
    assert [(0, 0), (0, 32), (1, 64), (2, 64), (3, 100)] == seen


def test_totals_grow_and_a_second_rsync_goes_on_where_the_first_one_ended() -> None:
    bar = Display(Stream("utf-8")).bar("Uploading", 1, 10)
    RsyncOutput(bar).reader()(b":: <f+++++++++ 10 10\n")
    bar.grow(1, 5)
    RsyncOutput(bar).reader()(b":: <f+++++++++ 5 10\n")
    assert (2, 2, 15, 15) == (bar.files, bar.files_done, bar.size_bytes, bar.bytes_done)


def test_on_a_terminal_the_bar_shows_files_bytes_rate_and_time_left() -> None:
    control, terminal = pty.openpty()
    os.set_inheritable(terminal, False)
    with open(terminal, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor, no path
        with Display(stream).bar("Uploading", 2, 2_000_000, "📤") as bar:
            bar.advance(1, 1_000_000)
        shown = ""
        while "50%" not in shown:  # a terminal hands over in its own time
            shown += os.read(control, 1 << 16).decode(errors="replace")
    os.close(control)
    assert "📤 Uploading:   0%" in shown
    assert "1/2 files, 1 MB of 2 MB" in shown
    assert "/s [00:00<00:0" in shown
