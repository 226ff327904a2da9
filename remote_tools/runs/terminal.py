"""The terminal of a run: Ctrl-C, keys, window size."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from remote_tools.errors import SIGNALLED, RemoteError
from remote_tools.host import frames
from remote_tools.ssh.link import Link
from remote_tools.ssh.session import Controls


class Detached(RemoteError):
    """The user let go of a run, which goes on as `--on-disconnect` says; ends as Ctrl-C does."""

    exit_code = SIGNALLED + signal.SIGINT

    def __init__(self, run_id: str) -> None:
        """Say how to come back."""
        super().__init__("exec", f"let go of {run_id}", f"inv runs.attach {run_id}; inv runs.kill {run_id}")


class SignalPipe:
    """A pipe by which a signal handler wakes the one who waits, and a count of how often it rang."""

    def __init__(self) -> None:
        """Make the pipe."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def notify(self, _number: int, _frame: FrameType | None) -> None:
        """Ring once; a signal handler."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """Return what becomes readable when it rings."""
        return self._read

    def drain(self) -> int:
        """Return how often it rang since it was asked last."""
        try:
            return len(os.read(self._read, 4096))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


class Interrupts:
    """Ctrl-C for a run: first SIGINT, then SIGTERM, then let go of it.

    Args:
        signals: rings at every Ctrl-C.
        run_id: the run, for saying how to come back.
        say: prints one line.
    """

    def __init__(self, signals: SignalPipe, run_id: str, say: Callable[[str], None]) -> None:
        """Start at none."""
        self._signals, self._run_id, self._say = signals, run_id, say
        self._count = 0

    def descriptors(self) -> list[int]:
        """Return what a Ctrl-C makes readable."""
        return [self._signals.fileno()]

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the signals to send.

        Raises:
            Detached: at the third Ctrl-C.
        """
        found = []
        for _ in range(self._signals.drain()):
            self._count += 1
            if self._count > 2:
                raise Detached(self._run_id)
            number = (signal.SIGINT, signal.SIGTERM)[self._count - 1]
            then = ("for SIGTERM", "to leave it running")[self._count - 1]
            self._say(f"{number.name} to {self._run_id}; once more {then}")
            found.append((frames.SIGNAL, b"%d" % number))
        return found


class Keys:
    """The local terminal for a run with one of its own: every key goes there, Ctrl-C too, but `LEAVE`.

    Args:
        signals: rings when the window changes.
        run_id: the run, for saying how to come back.
    """

    LEAVE = b"\x1d"
    """Ctrl-], as in telnet(1): no other key is left to let go of the run with."""

    def __init__(self, signals: SignalPipe, run_id: str) -> None:
        """Note that the window may have changed since the run was asked for."""
        self._signals, self._run_id = signals, run_id
        signals.notify(signal.SIGWINCH, None)

    def descriptors(self) -> list[int]:
        """Return the terminal, and what a resize makes readable."""
        return [0, self._signals.fileno()]

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return what was typed, and the window's size where it changed.

        Raises:
            Detached: at Ctrl-].
        """
        found = [(frames.WINDOW, b"%d %d" % terminal_size())] if self._signals.drain() else []
        if select.select([0], [], [], 0)[0]:
            typed = os.read(0, 4096)
            if not typed or self.LEAVE in typed:
                raise Detached(self._run_id)
            found.append((frames.INPUT, typed))
        return found


def terminal_size() -> tuple[int, int]:
    """Return the terminal's (rows, columns)."""
    size = shutil.get_terminal_size()
    return size.lines, size.columns


@contextmanager
def controls(pty: bool, run_id: str, link: Link) -> Iterator[Controls]:
    """Take over Ctrl-C, or the whole terminal where the run has one, and give it back."""
    signals = SignalPipe()
    if pty and sys.stdin.isatty():
        link.say(f"Ctrl-] leaves {run_id}; every other key goes there")
        restore = _take_signal(signal.SIGWINCH, signals)
        before, say = termios.tcgetattr(0), link.say
        tty.setraw(0)
        # A raw terminal starts a new line where the last one ended.
        link.say = lambda text: say(text.replace("\n", "\r\n") + "\r")
        try:
            yield Keys(signals, run_id)
        finally:
            link.say = say
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            restore()
        return
    restore = _take_signal(signal.SIGINT, signals)
    try:
        yield Interrupts(signals, run_id, link.say)
    finally:
        restore()


def _take_signal(number: signal.Signals, signals: SignalPipe) -> Callable[[], None]:
    """Let a signal ring the bell; return what undoes that."""
    previous = signal.signal(number, signals.notify)

    def restore() -> None:
        signal.signal(number, previous)
        signals.close()

    return restore
