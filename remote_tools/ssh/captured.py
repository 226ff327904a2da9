"""Run a command whose output a host decides, and keep a bounded part of it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

LIMIT_BYTES = 1 << 20
"""Most of each stream that is kept: no answer of ours and no reasonable error is longer."""


@dataclass(frozen=True)
class Captured:
    """How a command ended, and the beginning of what it printed."""

    stdout: bytes
    stderr: bytes
    code: int


class Kept(threading.Thread):
    """Read a stream to its end and keep its beginning.

    Args:
        stream: the stream.
        too_long: called once when there is more than is kept.
    """

    def __init__(self, stream: IO[bytes], too_long: Callable[[], None] = lambda: None) -> None:
        """Start to read."""
        super().__init__(daemon=True)
        self._stream, self._too_long, self._data = stream, too_long, bytearray()
        self.start()

    def run(self) -> None:
        """Read; what is not kept is dropped."""
        full = False
        with suppress(ValueError):  # closed, after the command was killed
            while data := self._stream.read(65536):
                self._data += data[: LIMIT_BYTES - len(self._data)]
                if len(self._data) == LIMIT_BYTES and not full:
                    full = True
                    self._too_long()

    def data(self) -> bytes:
        """Return what was kept, after the stream has ended."""
        self.join()
        return bytes(self._data)


def capture(words: Sequence[str], timeout_s: float | None = None) -> Captured:
    """Run a command with nothing to read; it is killed if it prints more than is kept.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(words, stdin=null, stdout=pipe, stderr=pipe, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        kept = Kept(process.stdout, process.kill), Kept(process.stderr, process.kill)
        try:
            process.wait(timeout_s)
        except BaseException:
            process.kill()
            raise
        return Captured(kept[0].data(), kept[1].data(), process.returncode)
