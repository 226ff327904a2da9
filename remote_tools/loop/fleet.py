"""Work on several hosts at once, with one fork of this process for each host.

A fork has its own session, Ctrl-C handling and exit code, so that hosts fail independently, and it needs no
new start of Python. Its stdout and stderr are pipes; the parent prints their lines with the host's name in
front. A third pipe carries events: progress bars, the stage, the fetched files.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from remote_tools.errors import RemoteError
from remote_tools.loop.relay import Relay
from remote_tools.loop.steps import Outcome
from remote_tools.settings.settings import Settings
from remote_tools.sync.last_push import client_id
from remote_tools.sync.progress import Bar, Display

READ_BYTES = 64 * 1024
LINE_BYTES = 1024 * 1024
"""Longer lines are printed in pieces."""
COLOURS = (36, 33, 35, 32, 34, 31)
"""SGR colours (ECMA-48) of the hosts' names, in turn."""
INTERRUPTED = 128 + signal.SIGINT

Work = Callable[[Settings, Display], Outcome]


@dataclass(frozen=True)
class HostOutcome:
    """The result of the work on one host.

    Args:
        settings: the host's.
        stage: `done`, the stage that failed, or `interrupted`, `killed` or `crashed`.
        code: the exit code.
        took_s: duration.
        fetched: paths below the host's `local_dir`.
    """

    settings: Settings
    stage: str
    code: int
    took_s: float
    fetched: tuple[str, ...]


def run_all(each: Sequence[Settings], work: Work, display: Display) -> list[HostOutcome]:
    """Do the work on all hosts at once, and print their output as it arrives.

    Args:
        each: the settings of every host.
        work: called in a fork with the host's settings and a Display that prints through this process.
        display: this process's display.

    Returns:
        The result of every host, in the order of `each`.
    """
    for root in {settings.root for settings in each}:
        client_id(root)  # create the id before the forks, which would race for it
    forks: list[Fork] = []
    screen = Screen(display, [settings.host for settings in each])
    with _signals_passed_on(forks):
        for number, settings in enumerate(each):
            forks.append(_fork(number, settings, work, display.emoji, forks))
        _listen(forks, screen)
    return [fork.outcome() for fork in forks]


# In the fork ------------------------------------------------------------------------------------------------


def _run_work(settings: Settings, work: Work, relay: Relay) -> int:
    """Do the work; return the exit code."""
    try:
        outcome = work(settings, relay)
    except RemoteError as error:
        relay.send(stage=error.stage)
        if error.message:
            print(error.message, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        relay.send(stage="interrupted")
        return INTERRUPTED
    relay.send(stage="done", fetched=outcome.fetched)
    return outcome.exit_code


# In the parent ----------------------------------------------------------------------------------------------


@dataclass
class Fork:
    """The process for one host.

    Args:
        number: its index in the list of hosts.
        pipes: the reading ends of `out`, `err` and `events`.
    """

    number: int
    settings: Settings
    pid: int
    pipes: dict[str, int]
    began: float = field(default_factory=time.monotonic)
    stage: str = ""
    fetched: tuple[str, ...] = ()
    took_s: float = 0.0
    code: int | None = None

    def reap(self) -> None:
        """Reap the process and store its exit status."""
        status = os.waitpid(self.pid, 0)[1]
        self.code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        self.stage = self.stage or ("killed" if os.WIFSIGNALED(status) else "crashed")
        self.took_s = time.monotonic() - self.began

    def outcome(self) -> HostOutcome:
        """Return the result of the ended process."""
        assert self.code is not None
        return HostOutcome(self.settings, self.stage, self.code, self.took_s, self.fetched)


def _fork(number: int, settings: Settings, work: Work, emoji: bool, others: Sequence[Fork]) -> Fork:
    """Fork the process for one host."""
    ends = {kind: os.pipe() for kind in ("out", "err", "events")}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        for _, writing in ends.values():
            os.close(writing)
        return Fork(number, settings, pid, {kind: reading for kind, (reading, _) in ends.items()})
    code = 70
    try:
        for fd in [fd for other in others for fd in other.pipes.values()] + [r for r, _ in ends.values()]:
            os.close(fd)
        for target, fd in enumerate((os.open(os.devnull, os.O_RDONLY), ends["out"][1], ends["err"][1])):
            os.dup2(fd, target)
            os.close(fd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        with os.fdopen(ends["events"][1], "wb") as events:
            code = _run_work(settings, work, Relay(events, emoji))
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # a bug; it must not unwind the parent's stack in the fork
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def _signals_passed_on(forks: Sequence[Fork]) -> Iterator[None]:
    """Forward signals to the forks, except a Ctrl-C that the terminal sends to them itself."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and _terminal_is_ours():
            return
        for fork in forks:
            if fork.code is None:
                with suppress(ProcessLookupError):
                    os.kill(fork.pid, number)

    taken = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        taken.append(signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminal_is_ours() -> bool:
    """Return whether Ctrl-C on the controlling terminal signals this process group."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)


def _listen(forks: Sequence[Fork], screen: Screen) -> None:
    """Print the forks' output and apply their events until every fork has ended."""
    with selectors.DefaultSelector() as selector:
        for fork in forks:
            for kind, fd in fork.pipes.items():
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ, (fork, kind))
        while selector.get_map():
            for key, _ in selector.select():
                fork, kind = key.data
                if kind not in fork.pipes or _copy(fork, kind, screen):
                    continue
                # Only the fork holds the writing end of `events`, so the fork has ended. Its child processes
                # may hold the other pipes open.
                for ended in list(fork.pipes) if kind == "events" else [kind]:
                    while _copy(fork, ended, screen):
                        pass
                    screen.rest(fork, ended)
                    selector.unregister(fork.pipes[ended])
                    os.close(fork.pipes.pop(ended))
                if kind == "events":
                    fork.reap()


def _copy(fork: Fork, kind: str, screen: Screen) -> bool:
    """Read one pipe and print the data; return False if there is none, or our stream is closed."""
    try:
        data = os.read(fork.pipes[kind], READ_BYTES)
    except BlockingIOError:
        return False
    return bool(data) and screen.take(fork, kind, data)


class Screen:
    """Prints the lines and bars of all hosts to our stdout and stderr."""

    def __init__(self, display: Display, names: Sequence[str]) -> None:
        """Make the prefix of every host: all of one width, and coloured on a terminal."""
        self._display = display
        self._names = names
        self._bars: dict[int, Bar] = {}
        self._partial: dict[tuple[int, str], bytes] = {}
        self._closed: set[str] = set()
        width = max(map(len, names))
        self._prefixes = {
            kind: [
                _coloured(f"[{name}]", number, stream.isatty()) + " " * (width - len(name) + 1)
                for number, name in enumerate(names)
            ]
            for kind, stream in (("out", sys.stdout), ("err", sys.stderr))
        }

    def take(self, fork: Fork, kind: str, data: bytes) -> bool:
        """Print the complete lines of the data, or apply them as events; keep a partial line for later.

        Returns:
            False if our stream is closed (`| head`): the fork's must be closed too.
        """
        *lines, rest = (self._partial.pop((fork.number, kind), b"") + data).split(b"\n")
        if len(rest) > LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._partial[fork.number, kind] = rest
        for line in lines:
            if kind == "events":
                self._apply_event(fork, json.loads(line))
            elif not self._show(fork, kind, line):
                return False
        return True

    def rest(self, fork: Fork, kind: str) -> None:
        """Print a last line without a newline, and close an unfinished bar."""
        partial = self._partial.pop((fork.number, kind), b"")
        if partial and kind != "events":
            self._show(fork, kind, partial)
        if kind == "events":
            self._close_bar(fork)

    def _show(self, fork: Fork, kind: str, line: bytes) -> bool:
        if kind in self._closed:
            return False
        # Print only the last state of a line that is redrawn with carriage returns.
        text = line.rstrip(b"\r").rpartition(b"\r")[2]
        stream = sys.stdout if kind == "out" else sys.stderr
        try:
            with self._above_bars():
                stream.buffer.write(self._prefixes[kind][fork.number].encode() + text + b"\n")
                stream.flush()
        except BrokenPipeError:
            self._closed.add(kind)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return kind not in self._closed

    @contextmanager
    def _above_bars(self) -> Iterator[None]:
        """Clear the bars while a line is written, and redraw them below it."""
        if not self._bars or not self._display.terminal:
            yield
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self._display.stream):
            yield

    def _apply_event(self, fork: Fork, event: dict[str, Any]) -> None:
        """Store a fork's stage and fetched files, or update its bar."""
        fork.stage = event.get("stage", fork.stage)
        fork.fetched = tuple(event.get("fetched", fork.fetched))
        if "bar" in event:
            verb, files, size_bytes = event["bar"]
            self._close_bar(fork)
            if self._display.terminal:
                _without_monitor()
            bar = self._display.bar(f"[{self._names[fork.number]}] {verb}", files, size_bytes)
            self._bars[fork.number] = bar.__enter__()
        elif fork.number in self._bars:
            bar = self._bars[fork.number]
            if "advance" in event:
                bar.advance(*event["advance"])
            elif "grow" in event:
                bar.grow(*event["grow"])
            elif "close" in event:
                self._close_bar(fork)

    def _close_bar(self, fork: Fork) -> None:
        bar = self._bars.pop(fork.number, None)
        if bar is not None:
            bar.__exit__(None, None, None)


def _without_monitor() -> None:
    """Keep tqdm from starting its thread: threads do not survive a fork, and more forks may follow."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0


def _coloured(text: str, number: int, terminal: bool) -> str:
    """Colour a host's name on a terminal, unless NO_COLOR (no-color.org) is set."""
    if not terminal or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[number % len(COLOURS)]}m{text}\x1b[0m"
