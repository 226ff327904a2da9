"""Exchange requests, output, signals and small files with the host program over one ssh session.

The bootstrap script and the first request are sent at once, so the first reply takes one round trip after the
channel is open. `link` opens a new session if one is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO, NoReturn, Protocol, TypeVar

from remote_tools import errors
from remote_tools.host.frames import (
    FILE,
    HEADER,
    MAGIC,
    NEED,
    PING,
    PIPE_BYTES,
    REPLY,
    REQUEST,
    RESULT,
    SOURCES,
    STDERR,
    STDOUT,
    frame,
    json_frame,
    take_frames,
)
from remote_tools.host.messages import Refused, Request, Started
from remote_tools.ssh.bootstrap import loader, packed_program, script_of
from remote_tools.ssh.master import SSH_FAILED, Master, diagnose

READ_BYTES = 256 * 1024
PING_S = 5.0
"""Time between two pings; a ping also renews a run's lease, which lasts at least three of them."""
NOT_FOUND = 127
"""A shell's exit code if it cannot find the command (POSIX, 2.8.2)."""

ReplyT = TypeVar("ReplyT")


class Listener(Protocol):
    """A receiver of what the host sends before the reply to a request."""

    position: int
    """Bytes of output frames consumed so far; a new session resumes there."""

    def output(self, kind: bytes, data: bytes) -> None:
        """Receive output: kind is b"O" for stdout, b"E" for stderr."""

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Receive a small result file."""

    def started(self, reply: Started) -> None:
        """Receive the message that the run has started."""


class Controls(Protocol):
    """The user's input during a request: Ctrl-C, keys, a resized window."""

    def descriptors(self) -> list[int]:
        """Return the file descriptors that become readable on input."""

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the frames to send, in order, without waiting."""


class Session:
    """One ssh session with the host program."""

    def __init__(self, master: Master) -> None:
        """Start ssh and send the bootstrap script."""
        self.master = master
        self.sources = packed_program()
        script = script_of(self.sources)
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the session
        # Paths and arguments are UTF-8 on the wire, whatever the host's locale is.
        python = f"exec python3 -I -S -X utf8 -c '{loader(len(script))}'"
        # In a session of its own, ssh does not receive the terminal's Ctrl-C: we send it to the host.
        self.process = subprocess.Popen(
            [*master.words(), "-T", "--", master.destination.alias, python],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._in, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._incoming, self._outgoing = bytearray(), bytearray(script)
        self.greeted = False
        self._silent_s = 0.0
        self._pinged = time.monotonic()
        self._flush()

    def close(self) -> None:
        """End the session; the runs on the host continue."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def request(
        self,
        asked: Request,
        listener: Listener,
        controls: Controls | None,
        done_before: Sequence[tuple[bytes, bytes]] = (),
    ) -> object:
        """Send one request and return its reply.

        Args:
            asked: the request.
            listener: receives what comes before the reply.
            controls: the user's input during the request.
            done_before: frames of `controls` from the time without a session.

        Raises:
            Dropped: the session ended, or received no data for too long.
            RemoteError: the host rejects the request, or cannot be reached.
        """
        self._put(json_frame(REQUEST, asked))
        for kind, payload in done_before:
            self._send(kind, payload)
        while True:
            for kind, payload in take_frames(self._incoming) if self.greeted else ():
                if kind in (STDOUT, STDERR):
                    listener.position += HEADER.size + len(payload)
                    listener.output(kind, payload)
                elif kind == NEED:
                    self._send(SOURCES, self.sources)
                elif kind == RESULT:
                    mtime_ns, length = FILE.unpack_from(payload)
                    end = FILE.size + length
                    listener.file(payload[FILE.size : end], mtime_ns, payload[end:])
                elif kind == REPLY:
                    reply = json.loads(payload)
                    if "error" in reply:
                        self._refuse(asked["op"], reply)
                    if "started" not in reply:
                        return reply
                    listener.started(reply)
            self._wait(controls)

    def _wait(self, controls: Controls | None) -> None:
        """Wait until data arrives or can be sent, or the user does something; raise if the host is silent."""
        done = controls.descriptors() if controls else []
        interval_s = min(PING_S, self.master.destination.timeout_s / 3)
        waited_from = time.monotonic()
        readable, writable, _ = select.select(
            [self._out, *done], [self._in] if self._outgoing else [], [], interval_s
        )
        now = time.monotonic()
        # Time while this process was stopped (Ctrl-Z, a closed laptop) does not count.
        self._silent_s += min(now - waited_from, interval_s)
        if controls and set(done) & set(readable):
            for done_now in controls.frames():
                self._send(*done_now)
        if writable:
            self._flush()
        if self._out in readable:
            self._receive()
        elif self._silent_s > self._patience_s():
            # The master's connection is lost too; a new session must not wait for it.
            self.process.kill()
            self.master.close()
            alias = self.master.destination.alias
            raise errors.Dropped("connect", f"{alias}: no data for {self._silent_s:.0f} s")
        if self.greeted and now - self._pinged >= interval_s:
            self._pinged = now
            self._send(PING, b"")

    def _patience_s(self) -> float:
        """Return how long the host may be silent; it does not reply to pings before its greeting."""
        destination = self.master.destination
        return (
            destination.timeout_s
            if self.greeted
            else max(destination.timeout_s, destination.connect_timeout_s)
        )

    def _send(self, kind: bytes, payload: bytes) -> None:
        """Queue one frame, and send as much as the connection accepts now."""
        self._put(frame(kind, payload))

    def _put(self, data: bytes) -> None:
        self._outgoing += data
        self._flush()

    def _flush(self) -> None:
        """Send as much of the queue as the connection accepts now."""
        try:
            while self._outgoing:
                del self._outgoing[: os.write(self._in, self._outgoing[:READ_BYTES])]
                self._silent_s = 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._outgoing.clear()  # the next read reports why ssh ended

    def _receive(self) -> None:
        data = os.read(self._out, READ_BYTES)
        if not data:
            self._ended()
        self._silent_s = 0
        self._incoming += data
        if not self.greeted:
            # A shell's start-up files may print something before the greeting.
            _noise, found, rest = self._incoming.partition(MAGIC)
            if found:
                self.greeted, self._incoming = True, rest

    def _ended(self) -> None:
        """Raise the reason why ssh ended.

        Raises:
            Dropped: the connection was lost after the greeting.
            RemoteError: ssh failed before the greeting, or the host program failed.
        """
        code = self.process.wait()
        self.stderr.seek(0)
        text = self.stderr.read().decode(errors="replace")
        alias = self.master.destination.alias
        lost = code == SSH_FAILED or code < 0
        if self.greeted:
            last = (text.strip().splitlines() or ["the connection was lost"])[-1]
            kind = errors.Dropped if lost else errors.SoftwareError
            raise kind("connect", f"{alias}: {last}")
        if lost:
            raise diagnose(text, alias, self.master.resolved.get("hostname", alias))
        last = (text.strip().splitlines() or [f"exit code {code}"])[-1]
        if code == NOT_FOUND or "python3" in last:
            raise errors.UnavailableError(
                "connect", f"{alias} has no python3", "install Python 3.8 or newer on the host, as python3"
            )
        raise errors.UnavailableError(
            "connect", f"the session on {alias} ended at once: {last}", f"ssh {alias}"
        )

    def _refuse(self, op: str, reply: Refused) -> NoReturn:
        kinds: dict[str, type[errors.RemoteError]] = {
            "unavailable": errors.UnavailableError,
            "permission": errors.PermissionDenied,
            "usage": errors.UsageError,
            "io": errors.TransferError,
            "data": errors.DataError,
            "temporary": errors.TemporaryError,
        }
        kind = kinds.get(reply["error"], errors.SoftwareError)
        stage = op.partition(".")[0]
        raise kind(stage, f"{self.master.destination.alias}: {reply['message']}", reply["hint"])
