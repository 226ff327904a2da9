"""Pass Ctrl-C, keys and the window size from the local terminal to a run."""

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
    """The user detached; the run goes on or ends by `--on-disconnect`. The exit code is that of Ctrl-C."""

    exit_code = SIGNALLED + signal.SIGINT

    def __init__(self, run_id: str) -> None:
        """Name the commands that attach again and that end the run."""
        super().__init__(
            "exec",
            f"detached from {run_id}",
            f"inv runs.attach {run_id} shows it again; inv runs.kill {run_id} ends it",
        )


class SignalPipe:
    """A pipe that a signal handler writes to, so that a signal wakes `select`; it counts the signals."""

    def __init__(self) -> None:
        """Open the pipe."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def notify(self, _number: int, _frame: FrameType | None) -> None:
        """Write one byte; this is the signal handler."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """Return the descriptor that a signal makes readable."""
        return self._read

    def drain(self) -> int:
        """Return the number of signals since the last call."""
        try:
            return len(os.read(self._read, 4096))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


class Interrupts:
    """Turns Ctrl-C into signals for a run: first SIGINT, then SIGTERM, then detach.

    Args:
        signals: receives SIGINT.
        run_id: the run, for messages.
        say: prints one line.
    """

    def __init__(self, signals: SignalPipe, run_id: str, say: Callable[[str], None]) -> None:
        """Start with a count of 0."""
        self._signals, self._run_id, self._say = signals, run_id, say
        self._count = 0

    def descriptors(self) -> list[int]:
        """Return the descriptors that a Ctrl-C makes readable."""
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
            self._say(f"{number.name} sent to {self._run_id}; Ctrl-C once more {then}")
            found.append((frames.SIGNAL, b"%d" % number))
        return found


class Keys:
    """Sends every key except `LEAVE` to a run that has a terminal, Ctrl-C too.

    Args:
        signals: receives SIGWINCH.
        run_id: the run, for messages.
    """

    LEAVE = b"\x1d"
    """Ctrl-], as in telnet(1): the key that detaches."""

    def __init__(self, signals: SignalPipe, run_id: str) -> None:
        """Send the window size at once: it may have changed since the request."""
        self._signals, self._run_id = signals, run_id
        signals.notify(signal.SIGWINCH, None)

    def descriptors(self) -> list[int]:
        """Return the descriptors of the terminal and of the signals."""
        return [0, self._signals.fileno()]

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the keys typed, and the window size if it has changed.

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
    """Handle Ctrl-C, or all keys if the run has a terminal; restore the local terminal afterwards."""
    signals = SignalPipe()
    if pty and sys.stdin.isatty():
        link.say(f"Ctrl-] detaches from {run_id}; every other key is sent to it")
        restore = _take_signal(signal.SIGWINCH, signals)
        before, say = termios.tcgetattr(0), link.say
        tty.setraw(0)
        # In raw mode a newline does not return the cursor to column 0.
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
    """Install the signal handler; return a function that restores the old one."""
    previous = signal.signal(number, signals.notify)

    def restore() -> None:
        signal.signal(number, previous)
        signals.close()

    return restore
