"""Pass Ctrl-C, keys and the window size from the local terminal to a run."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType

from remote_tools.errors import SIGNALLED, RemoteError
from remote_tools.host import frames
from remote_tools.ssh.link import Link
from remote_tools.ssh.session import Controls

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end this client, and leave the run; `nohup` has SIGHUP ignored, and so do we then."""
END_OF_FILE = b"\x04"
"""What a terminal takes for the end of its input (termios(3): VEOF)."""
AGAIN_S = 1.0


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


class Terminated(Detached):
    """SIGTERM or SIGHUP ended this client: `timeout`, a cancelled job, a closed terminal."""

    def __init__(self, run_id: str, number: int) -> None:
        """Name the signal, and the commands that attach again and that end the run."""
        self.exit_code = SIGNALLED + number
        super().__init__(run_id)


class SignalPipe:
    """A pipe that a signal handler writes to, so that a signal wakes `select`; it holds their numbers."""

    def __init__(self) -> None:
        """Open the pipe."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def notify(self, number: int, _frame: FrameType | None) -> None:
        """Write the number as one byte; this is the signal handler."""
        with suppress(BlockingIOError):
            os.write(self._write, bytes([number]))

    def fileno(self) -> int:
        """Return the descriptor that a signal makes readable."""
        return self._read

    def drain(self, run_id: str) -> list[int]:
        """Return the signals since the last call.

        Raises:
            Terminated: one of them ends this client.
        """
        try:
            numbers = list(os.read(self._read, 4096))
        except BlockingIOError:
            return []
        for number in set(numbers) & set(ENDING):
            raise Terminated(run_id, number)
        return numbers

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
        for _ in self._signals.drain(self._run_id):
            self._count += 1
            if self._count > 2:
                raise Detached(self._run_id)
            number = (signal.SIGINT, signal.SIGTERM)[self._count - 1]
            then = ("for SIGTERM", "to leave it running")[self._count - 1]
            self._say(f"{number.name} sent to {self._run_id}; Ctrl-C once more {then}")
            found.append((frames.SIGNAL, b"%d" % number))
        return found


class Feed(Interrupts):
    """Sends what our stdin holds, and then its end, to a run that has a terminal while we have none.

    The end is sent again and again: a program may read again, or drop what came before it asked.
    """

    def __init__(self, signals: SignalPipe, run_id: str, say: Callable[[str], None]) -> None:
        """Start at the beginning of stdin."""
        super().__init__(signals, run_id, say)
        self._open, self._last = True, b"\n"
        self._ticks, self._tick = os.pipe()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick_until_over, daemon=True)

    def descriptors(self) -> list[int]:
        """Return the descriptors of stdin, until it has ended, and of the signals."""
        return [*super().descriptors(), 0 if self._open else self._ticks]

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the signals to send, and what stdin holds."""
        found = super().frames()
        if not self._open:
            if select.select([self._ticks], [], [], 0)[0]:
                os.read(self._ticks, 1)
                found.append((frames.INPUT, END_OF_FILE))
        elif select.select([0], [], [], 0)[0]:
            data = os.read(0, 4096)
            if data:
                found.append((frames.INPUT, data))
                self._last = data[-1:]
            else:
                # After an unfinished line, the first one ends the line only.
                found.append((frames.INPUT, END_OF_FILE * (1 if self._last == b"\n" else 2)))
                self._open = False
                self._ticker.start()
        return found

    def _tick_until_over(self) -> None:
        while not self._over.wait(AGAIN_S):
            os.write(self._tick, b"!")

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if not self._open:
            self._ticker.join()
        os.close(self._ticks)
        os.close(self._tick)


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
        found = [(frames.WINDOW, b"%d %d" % terminal_size())] if self._signals.drain(self._run_id) else []
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
def controls(pty: bool, run_id: str, link: Link, feed: bool = False) -> Iterator[Controls]:
    """Handle Ctrl-C, or all keys if the run has a terminal; restore the local terminal afterwards.

    Args:
        pty: the run has a terminal.
        run_id: the run.
        link: prints.
        feed: without a terminal here, the run's terminal is given what our stdin holds.
    """
    if pty and sys.stdin.isatty():
        with _taken(signal.SIGWINCH, *ENDING) as signals, _raw(link):
            link.say(f"Ctrl-] detaches from {run_id}; every other key is sent to it")
            yield Keys(signals, run_id)
        return
    with _taken(signal.SIGINT, *ENDING) as signals:
        if not (pty and feed):
            yield Interrupts(signals, run_id, link.say)
            return
        with closing(Feed(signals, run_id, link.say)) as fed:
            yield fed


@contextmanager
def _raw(link: Link) -> Iterator[None]:
    """Have the terminal pass every key on."""
    before, say = termios.tcgetattr(0), link.say
    tty.setraw(0)
    # In raw mode a newline does not return the cursor to column 0.
    link.say = lambda text: say(text.replace("\n", "\r\n") + "\r")
    try:
        yield
    finally:
        link.say = say
        with suppress(termios.error):  # it may be gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _taken(*numbers: signal.Signals) -> Iterator[SignalPipe]:
    """Have signals go to a pipe, except those that end us and that our parent had ignored."""
    signals, before = SignalPipe(), {}
    for number in numbers:
        if number not in ENDING or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, signals.notify)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.close()
