"""Run one or several rsyncs at once, and read their output."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

TIMED_OUT = 30
"""rsync's own exit code for a timeout on the connection."""
PAUSE_S = 0.005
"""Pause between two reads: rsync writes each line separately, and each would wake this process."""


STDERR_BYTES = 1024 * 1024
"""Most of standard error that is kept."""


@dataclass(frozen=True)
class RsyncExit:
    """rsync's exit code and the lines of its standard error."""

    code: int
    stderr: tuple[str, ...]


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    take: Callable[[bytes], None]
    stderr: bytearray = field(default_factory=bytearray)
    responded: bool = False
    timed_out: bool = False

    def keep(self, data: bytes) -> None:
        """Keep the beginning of standard error: it may never end."""
        self.stderr += data[: max(0, STDERR_BYTES - len(self.stderr))]

    def outcome(self) -> RsyncExit:
        code = TIMED_OUT if self.timed_out else self.process.wait()
        return RsyncExit(code, tuple(self.stderr.decode(errors="replace").splitlines()))


class Processes:
    """Rsyncs that run at the same time; leaving the `with` early terminates them.

    Args:
        patience_s: how long to wait for the first output of each; None waits forever. After that rsync's own
            --timeout applies, which does not cover the handshake.
    """

    def __init__(self, patience_s: float | None) -> None:
        """Start without processes."""
        self._patience_s = patience_s
        self._all: list[_Process] = []

    def __enter__(self) -> Processes:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Terminate those that still run."""
        for each in self._all:
            if each.process.poll() is None:
                each.process.terminate()
            with each.process:
                pass

    def start(
        self, command: str | Sequence[str], take: Callable[[bytes], None], cwd: str | None = None
    ) -> None:
        """Start an rsync.

        Args:
            command: its words, or one string for the shell.
            take: called with each piece of its standard output.
            cwd: its working directory; None for ours.
        """
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            cwd=cwd,
        )
        self._all.append(_Process(process, take))

    def finish(self) -> list[RsyncExit]:
        """Read the output of all until they end; return their exit codes in the order of their start."""
        until = None if self._patience_s is None else time.monotonic() + self._patience_s
        with selectors.DefaultSelector() as selector:
            for each in self._all:
                assert each.process.stdout is not None
                assert each.process.stderr is not None
                selector.register(each.process.stdout, selectors.EVENT_READ, (each, each.take))
                selector.register(each.process.stderr, selectors.EVENT_READ, (each, each.keep))
            while selector.get_map():
                waiting = until is not None and not all(each.responded for each in self._all)
                ready = selector.select(max(0.0, until - time.monotonic()) if waiting and until else None)
                for key, _ in ready:
                    _read(selector, key)
                if ready:
                    time.sleep(PAUSE_S)
                else:
                    self._give_up(selector)
        return [each.outcome() for each in self._all]

    def _give_up(self, selector: selectors.BaseSelector) -> None:
        """Terminate those without any output, and stop reading: their ssh may hold the pipes open."""
        for each in self._all:
            if not each.responded:
                each.responded = each.timed_out = True
                each.process.terminate()
                for key in [key for key in selector.get_map().values() if key.data[0] is each]:
                    selector.unregister(key.fileobj)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    each, take = key.data
    data = os.read(key.fd, 1 << 16)
    each.responded = True
    if data:
        take(data)
    else:
        selector.unregister(key.fileobj)


def run_rsync(
    command: str | Sequence[str],
    take: Callable[[bytes], None],
    patience_s: float | None,
    cwd: str | None = None,
) -> RsyncExit:
    """Run one rsync until it ends; see `Processes`."""
    with Processes(patience_s) as processes:
        processes.start(command, take, cwd)
        return processes.finish()[0]
