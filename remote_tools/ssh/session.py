"""Exchange requests, output, signals and small files with the host program over one ssh session.

The bootstrap script and the first request are sent at once, so the first reply takes one round trip after the
channel is open. `link` opens a new session if one is lost.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

from remote_tools import errors
from remote_tools.escape import one_line
from remote_tools.host.frames import (
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
    Malformed,
    frame,
    json_frame,
    take_frames,
)
from remote_tools.host.messages import Refused, Request, Started
from remote_tools.ssh import login_shell
from remote_tools.ssh.bootstrap import NOT_FOUND, packed_program, script_of, start_command
from remote_tools.ssh.master import SSH_FAILED, Master, diagnose

READ_BYTES = 256 * 1024
PING_S = 5.0
"""Time between two pings; a ping also renews a run's lease, which lasts at least three of them."""
CANNOT_EXECUTE = 126
"""A shell's exit code if it finds the command and cannot execute it (POSIX, 2.8.2)."""
SLOW_SHELLS = 2
"""How many times connect_timeout_s a login shell may take to start while its sshd replies."""

NOISE_BYTES = 1024 * 1024
"""Most that a host may print before our program does, and most of ssh's standard error that is kept."""
DEADLINE = 10
"""How many times timeout_s a request that follows no run may take, whatever signs of life arrive."""

ReplyT = TypeVar("ReplyT")


class NoPython(errors.UnavailableError):
    """The host has no python3 where it was looked for."""


class Listener(Protocol):
    """A receiver of what the host sends before the reply to a request."""

    position: int
    """Bytes of output frames consumed so far; a new session resumes there."""

    def output(self, kind: bytes, data: memoryview) -> int:
        """Receive output, as much as is accepted at once: kind is b"O" for stdout, b"E" for stderr."""

    def descriptor(self, kind: bytes) -> int:
        """Return the descriptor that becomes writable when more of that output is accepted."""

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

    def __init__(
        self,
        master: Master,
        say: Callable[[str], None] = lambda _text: None,
        search: Sequence[str] | None = None,
    ) -> None:
        """Start ssh and send the bootstrap script.

        Args:
            master: the connection.
            say: prints a line for the user.
            search: interpreters to try first; None for python3.
        """
        self.master, self._say = master, say
        self.sources = packed_program()
        script = script_of(self.sources, master.destination.state_path)
        python = start_command(len(script), search)
        # In a session of its own, ssh does not receive the terminal's Ctrl-C: we send it to the host.
        self.process = subprocess.Popen(
            [*master.words(), "-T", "--", master.destination.alias, python],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._err = self.process.stderr.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._err, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._incoming, self._outgoing = bytearray(), bytearray(script)
        self.greeted = False
        self.noise = b""
        """What the host printed before our program did."""
        self._stderr, self._stderr_open = bytearray(), True
        self._silent_s = 0.0
        self._shell_tried = self._shell_is_slow = False
        self._pinged = time.monotonic()
        self._flush()

    def close(self) -> None:
        """End the session; the runs on the host continue."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
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
            ProtocolError: the host sent what the protocol does not allow, or no reply in time.
            RemoteError: the host rejects the request, or cannot be reached.
        """
        self._put(json_frame(REQUEST, asked))
        for kind, payload in done_before:
            self._send(kind, payload)
        from remote_tools.ssh import replies  # imported late, while the network is busy: it takes 10 ms

        exchange, waited_s = replies.Exchange(asked), 0.0
        deadline_s = DEADLINE * self.master.destination.timeout_s
        try:
            while True:
                for kind, payload in take_frames(self._incoming, replies.LIMITS) if self.greeted else ():
                    exchange.admit(kind, payload)
                    if kind in (STDOUT, STDERR):
                        listener.position += HEADER.size + len(payload)
                        self._deliver(listener, controls, kind, payload)
                    elif kind == NEED:
                        self._send(SOURCES, self.sources)
                    elif kind == RESULT:
                        listener.file(*exchange.file(payload))
                    elif kind == REPLY:
                        reply: Any = exchange.reply(payload)
                        if "error" in reply:
                            self._refuse(asked["op"], reply)
                        if "started" not in reply:
                            return reply
                        listener.started(reply)
                waited_s += self._wait(controls)
                if waited_s > deadline_s and not exchange.streams:
                    raise Malformed(f"signs of life alone, for {waited_s:.0f} s")
        except Malformed as error:
            raise errors.not_asked("connect", self.master.destination.alias, str(error)) from error

    def _deliver(self, listener: Listener, controls: Controls | None, kind: bytes, payload: bytes) -> None:
        """Give output to who reads it; meanwhile send signs of life, signals and keys as ever."""
        left = memoryview(payload)
        left = left[listener.output(kind, left) :]
        while left:
            done = controls.descriptors() if controls else []
            waiting = [listener.descriptor(kind), *([self._in] if self._outgoing else [])]
            readable, writable, _ = select.select(done, waiting, [], self._interval_s())
            self._pass_on(controls, set(done) & set(readable), self._in in writable)
            left = left[listener.output(kind, left) :]

    def _pass_on(self, controls: Controls | None, done: set[int], writable: bool) -> None:
        """Send what the user did, what waits to be sent, and a sign of life if one is due."""
        if controls and done:
            for done_now in controls.frames():
                self._send(*done_now)
        if writable:
            self._flush()
        now = time.monotonic()
        if self.greeted and now - self._pinged >= self._interval_s():
            self._pinged = now
            self._send(PING, b"")

    def _interval_s(self) -> float:
        """Return how often a sign of life is due."""
        return min(PING_S, self.master.destination.timeout_s / 3)

    def _wait(self, controls: Controls | None) -> float:
        """Wait until data arrives or can be sent, or the user does something; raise if the host is silent.

        Returns:
            How long it waited, in seconds.
        """
        done = controls.descriptors() if controls else []
        interval_s = self._interval_s()
        waited_from = time.monotonic()
        heard = [self._out, *([self._err] if self._stderr_open else []), *done]
        readable, writable, _ = select.select(heard, [self._in] if self._outgoing else [], [], interval_s)
        # Time while this process was stopped (Ctrl-Z, a closed laptop) does not count.
        waited_s = min(time.monotonic() - waited_from, interval_s)
        self._silent_s += waited_s
        if self._err in readable:
            self._keep_stderr()
        self._pass_on(controls, set(done) & set(readable), bool(writable))
        if self._out in readable:
            self._receive()
        elif self._shell_is_due():
            self._try_shell()
        elif self._silent_s > self._patience_s():
            if self._shell_is_slow:
                raise login_shell.not_run(self.master.destination.alias, login_shell.quoted(*self._printed()))
            # The master's connection is lost too; a new session must not wait for it.
            self.process.kill()
            self.master.close()
            alias = self.master.destination.alias
            raise errors.Dropped("connect", f"{alias}: no data for {self._silent_s:.0f} s")
        return waited_s

    def _patience_s(self) -> float:
        """Return how long the host may be silent; it does not reply to pings before its greeting."""
        destination = self.master.destination
        if self.greeted:
            return destination.timeout_s
        longest_s = max(destination.timeout_s, destination.connect_timeout_s)
        return (
            min(longest_s, SLOW_SHELLS * destination.connect_timeout_s) if self._shell_is_slow else longest_s
        )

    def _shell_is_due(self) -> bool:
        """Tell whether to find out what the login shell does: once, in the middle of connect_timeout_s.

        Only over a master: else a question about a password may be on the terminal.
        """
        late = self._silent_s > self.master.destination.connect_timeout_s / 2
        return late and not (self.greeted or self._shell_tried or self.master.control_path is None)

    def _try_shell(self) -> None:
        """Find out why a host that was reached is silent.

        Raises:
            UnavailableError: its login shell does not run our command, or eats what is sent to it.
        """
        self._shell_tried, begun = True, time.monotonic()
        alias, half_s = self.master.destination.alias, self.master.destination.connect_timeout_s / 2
        tried = login_shell.try_shell(self.master, half_s, "python3 -I -S -c 1")
        if select.select([self._out], [], [], 0)[0]:
            return  # it was slow
        if tried is None:
            self._shell_is_slow = login_shell.answers(self.master, half_s)
            self._silent_s += time.monotonic() - begun
            if self._shell_is_slow:
                self._say(
                    f"{alias} answers, but its login shell has run no command yet: see its start-up files"
                )
        elif tried.ran:
            raise login_shell.reads_input(alias)
        else:
            raise login_shell.not_run(alias, tried.noise)

    def _printed(self) -> tuple[bytes, bytes]:
        """Return what the host, or ssh, printed until now: to stdout before our program, and to stderr."""
        self._keep_stderr()
        return self.noise or bytes(self._incoming), bytes(self._stderr)

    def _keep_stderr(self) -> None:
        """Read what there is of ssh's standard error, and keep the end of it: it may never end."""
        try:
            while data := os.read(self._err, READ_BYTES):
                self._stderr += data
                del self._stderr[:-NOISE_BYTES]
                if len(data) < READ_BYTES:
                    return
            self._stderr_open = False
        except BlockingIOError:
            return

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
        seen = max(0, len(self._incoming) - len(MAGIC))
        self._incoming += data
        if not self.greeted:
            # A shell's start-up files may print something before the greeting.
            at = self._incoming.find(MAGIC, seen)
            if max(at, len(self._incoming) if at < 0 else 0) > NOISE_BYTES:
                printed = login_shell.quoted(bytes(self._incoming[:NOISE_BYTES]))
                raise Malformed(f"more than 1 MB before our program began; it printed: {printed}")
            if at >= 0:
                self.greeted, self.noise = True, bytes(self._incoming[:at])
                del self._incoming[: at + len(MAGIC)]
        if self.greeted:
            self._silent_s = 0

    def _ended(self) -> None:
        """Raise the reason why ssh ended.

        Raises:
            Dropped: the connection was lost after the greeting.
            RemoteError: ssh failed before the greeting, or the host program failed.
        """
        code = self.process.wait()
        noise, said = self._printed()
        text, alias = said.decode(errors="replace"), self.master.destination.alias
        lost = code == SSH_FAILED or code < 0
        if self.greeted:
            last = (text.strip().splitlines() or ["the connection was lost"])[-1]
            kind = errors.Dropped if lost else errors.SoftwareError
            raise kind("connect", f"{alias}: {last}")
        if lost:
            error = diagnose(text, alias, self.master.resolved.get("hostname", alias))
            if noise.strip():
                reason = f"{error.reason}; it printed: {login_shell.quoted(noise)}"
                error = type(error)(error.stage, reason, error.hint)
            raise error
        printed = login_shell.quoted(noise, said)
        if code in (CANNOT_EXECUTE, NOT_FOUND) or "python" in printed:
            more = f": {printed}" if "too old" in printed else ""
            raise NoPython(
                "connect", f"{alias} has no python3{more}", "install Python 3.8 or newer there, as python3"
            )
        tried = login_shell.try_shell(self.master, self.master.destination.connect_timeout_s)
        if tried is not None and not tried.ran:
            raise login_shell.not_run(alias, printed)
        if b'File "<string>", line' in said:  # our beginning arrived without its first bytes
            raise login_shell.reads_input(alias)
        raise errors.UnavailableError(
            "connect",
            f"the session on {alias} ended at once: {printed or f'exit code {code}'}",
            f"ssh {alias}",
        )

    def _refuse(self, op: str, reply: Refused) -> NoReturn:
        kinds: dict[str, type[errors.RemoteError]] = {
            "unavailable": errors.UnavailableError,
            "permission": errors.PermissionDenied,
            "usage": errors.UsageError,
            "io": errors.TransferError,
            "data": errors.DataError,
            "busy": errors.BusyError,
            "protocol": errors.ProtocolError,
        }
        kind = kinds.get(reply["error"], errors.SoftwareError)
        stage, alias = op.partition(".")[0], self.master.destination.alias
        hint = errors.host_hint(alias, reply["hint"])
        raise kind(stage, f"{alias}: {one_line(reply['message'])}", hint)
