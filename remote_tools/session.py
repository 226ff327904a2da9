"""Talk to the host program: one ssh session that carries requests, output, signals and small files.

The remote command is a Python one-liner that reads its real beginning from standard input, so everything that
is sent (beginning, request) leaves in the first packets, and an answer takes one round trip once the channel
is open. The host program itself (`supervisor.py`, `replica.py`) is sent only where the host does not have it
under its digest. Requests are written so that asking twice does what asking once does; that is why a dropped
session can simply be opened anew and asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from remote_tools import errors
from remote_tools.ssh import SSH_FAILED, Destination, Master, diagnose

MAGIC = b"\0remote-tools 1\n"
HEADER = struct.Struct(">cI")
READ_BYTES = 256 * 1024
PING_S = 5.0
"""Silence after which the host is asked for a sign of life; three lost ones end a run's lease there."""
BACKOFF_S = (0.1, 0.5, 1, 2, 4, 8, 15, 30)
PATIENCE_S = 600.0
"""How long a lost host is called again; a closed laptop counts only while it is awake."""
FIRST_PATIENCE_S = 5.0
"""The same for a host that has not answered yet: it may not be there at all."""
HOST_PROGRAM = ("supervisor.py", "replica.py")

Reply = dict[str, Any]

_BEGINNING = """\
import json, os, struct, sys
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit(75)
    return data
os.write(1, MAGIC)
early = []
if sys.version_info < (3, 8):
    reply = {"error": "unavailable", "message": "Python " + sys.version.split()[0] + " on the host is too old",
             "hint": "install Python 3.8 or newer there, as python3"}
    reply = json.dumps(reply).encode()
    os.write(1, struct.pack(">cI", b"R", len(reply)) + reply)
    sys.exit(69)
folder = os.path.expanduser("~/.cache/remote-tools/program-DIGEST")
if not os.path.isdir(folder):
    os.write(1, struct.pack(">cI", b"N", 0))
    kind, size = struct.unpack(">cI", read(5))
    while kind != b"S":
        early.append((kind, read(size)))
        kind, size = struct.unpack(">cI", read(5))
    sources = json.loads(read(size))
    part = folder + "." + str(os.getpid())
    os.makedirs(part, 0o700)
    for name, text in sources.items():
        with open(os.path.join(part, name), "w", encoding="utf-8") as file:
            file.write(text)
    try:
        os.rename(part, folder)
    except OSError:
        folder = folder if os.path.isdir(folder) else part
sys.path.insert(0, folder)
import supervisor
supervisor.serve(early)
"""


class Listener(Protocol):
    """What is told of a request's output while it lasts."""

    position: int
    """Bytes of output frames consumed so far: where a new session goes on."""

    def output(self, kind: bytes, data: bytes) -> None:
        """Take output: kind is b"O" for stdout, b"E" for stderr."""

    def file(self, header: dict[str, Any], data: bytes) -> None:
        """Take a small result file."""

    def started(self, reply: dict[str, Any]) -> None:
        """Hear that the run is there: {"started": id, "finish": what ending the push told}."""


class Controls(Protocol):
    """What a user does while a request lasts: Ctrl-C, keys, a resized window."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something was done."""

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return what to send, in order, without waiting."""


class Silent:
    """A listener for requests that have no output."""

    position = 0

    def output(self, kind: bytes, data: bytes) -> None:
        """Drop it."""

    def file(self, header: dict[str, Any], data: bytes) -> None:
        """Drop it."""

    def started(self, reply: dict[str, Any]) -> None:
        """Ignore it."""


def host_program() -> dict[str, str]:
    """Return the sources that run on the host, by file name."""
    folder = Path(__file__).parent
    return {name: (folder / name).read_text(encoding="utf-8") for name in HOST_PROGRAM}


class Session:
    """One ssh session with the host program at its other end."""

    def __init__(self, master: Master) -> None:
        """Start ssh and send it what the host's Python begins with."""
        self.master = master
        self.sources = json.dumps(host_program()).encode()
        digest = hashlib.sha256(self.sources).hexdigest()[:16]
        beginning = _BEGINNING.replace("MAGIC", repr(MAGIC)).replace("DIGEST", digest).encode()
        # No newline, no !, no single quote: it reads the same to sh, bash, zsh, fish and csh.
        loader = (
            f'import os,sys;b=b"";exec("while len(b)<{len(beginning)}:'
            f' b+=os.read(0,{len(beginning)}-len(b)) or sys.exit(75)");exec(b)'
        )
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the session
        # A session of its own keeps the terminal's Ctrl-C away from ssh: we pass it on ourselves.
        self.process = subprocess.Popen(
            [*master.words(), "-T", "--", master.destination.alias, f"exec python3 -I -S -c '{loader}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._buffer = bytearray()
        self.greeted = False
        self._heard = time.monotonic()
        self._send_raw(beginning)

    def close(self) -> None:
        """End the session; what runs on the host goes on."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.said):
            if stream is not None:
                stream.close()

    def request(
        self, op: str, params: dict[str, Any], listener: Listener, controls: Controls | None
    ) -> Reply:
        """Send one request and return its answer.

        Raises:
            Dropped: the session ended or fell silent first.
            RemoteError: the host refuses, or cannot be reached at all.
        """
        self.send(b"Q", json.dumps({"op": op, "params": params}).encode())
        waiting: list[Any] = [self._out] + ([controls] if controls else [])
        header: dict[str, Any] = {}
        while True:
            for kind, payload in self._frames():
                if kind in b"OE":
                    listener.position += HEADER.size + len(payload)
                    listener.output(kind, payload)
                elif kind == b"N":
                    self.send(b"S", self.sources)
                elif kind == b"F":
                    header = json.loads(payload)
                elif kind == b"D":
                    listener.file(header, payload)
                elif kind == b"R":
                    reply: Reply = json.loads(payload)
                    if "started" not in reply:
                        return self._checked(op, reply)
                    listener.started(reply)
            ready = select.select(waiting, [], [], self._rest_s())[0]
            if controls in ready and controls is not None:
                for frame in controls.frames():
                    self.send(*frame)
            if self._out in ready:
                self._receive()
            elif not ready:
                self._ask_for_life()

    def send(self, kind: bytes, payload: bytes) -> None:
        """Send one frame."""
        self._send_raw(HEADER.pack(kind, len(payload)) + payload)

    def _send_raw(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._in, view) :]
        except BrokenPipeError:
            self._ended()

    def _rest_s(self) -> float:
        """Return how long to wait before the host is asked for a sign of life."""
        interval_s = min(PING_S, self.master.destination.timeout_s / 3)
        return max(0.0, interval_s - (time.monotonic() - self._heard) % interval_s)

    def _ask_for_life(self) -> None:
        silent_s = time.monotonic() - self._heard
        patience_s = self.master.destination.timeout_s
        if not self.greeted:
            patience_s = max(patience_s, self.master.destination.connect_timeout_s)
        if silent_s > patience_s:
            # The connection under it is as dead as the session: a new one must not wait for it.
            self.process.kill()
            self.master.close()
            raise errors.Dropped(
                "connect", f"nothing heard of {self.master.destination.alias} for {silent_s:.0f} s"
            )
        if self.greeted:
            self.send(b"P", b"")

    def _receive(self) -> None:
        data = os.read(self._out, READ_BYTES)
        if not data:
            self._ended()
        self._heard = time.monotonic()
        self._buffer += data
        if not self.greeted:
            # What a shell's start-up files print comes before it.
            _noise, found, rest = self._buffer.partition(MAGIC)
            if found:
                self.greeted, self._buffer = True, rest

    def _frames(self) -> list[tuple[bytes, bytes]]:
        """Take the whole frames that have arrived."""
        frames, start = [], 0
        while self.greeted and len(self._buffer) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer, start)
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[start + HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _ended(self) -> None:
        """Say why ssh ended.

        Raises:
            Dropped: after the host program had answered.
            RemoteError: before it.
        """
        code = self.process.wait()
        self.said.seek(0)
        text = self.said.read().decode(errors="replace")
        alias = self.master.destination.alias
        lost = code == SSH_FAILED or code < 0
        if self.greeted:
            last = (text.strip().splitlines() or ["the connection was lost"])[-1]
            kind = errors.Dropped if lost else errors.SoftwareError
            raise kind("connect", f"lost {alias}: {last}")
        if lost:
            raise diagnose(text, alias, self.master.resolved.get("hostname", alias))
        if code == 127:
            raise errors.UnavailableError(
                "connect", f"{alias} has no python3", "install Python 3.8 or newer there, as python3"
            )
        last = (text.strip().splitlines() or [f"exit code {code}"])[-1]
        raise errors.UnavailableError(
            "connect", f"the session on {alias} ended at once: {last}", f"ssh {alias}"
        )

    def _checked(self, op: str, reply: Reply) -> Reply:
        if "error" not in reply:
            return reply
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
        raise kind(stage, f"{self.master.destination.alias}: {reply['message']}", reply.get("hint", ""))


class Link:
    """A host, reached: sessions come and go underneath, requests are answered.

    Args:
        destination: where the host is.
        code_path: the workspace there; every request is about it.
        say: prints one line to the user.
    """

    def __init__(self, destination: Destination, code_path: str, say: Callable[[str], None]) -> None:
        """Name the host; nothing is opened."""
        self.master = Master(destination)
        self.code_path = code_path
        self.say = say
        self._session: Session | None = None
        self._known = False

    @property
    def alias(self) -> str:
        """The destination as the user typed it."""
        return self.master.destination.alias

    def ssh_words(self) -> list[str]:
        """Return ssh's command line up to the destination, for programs that run it themselves."""
        return self.master.words()

    def open(self) -> None:
        """Open a session ahead of the first request, so that its round trips hide behind local work."""
        if self._session is None:
            self.master.open()
            self._session = Session(self.master)

    def close(self) -> None:
        """End the session; the master and what runs on the host go on."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def call(self, op: str, **params: Any) -> Reply:
        """Ask for something that has no output and return the answer."""
        return self.stream(op, params, Silent())

    def stream(
        self, op: str, params: dict[str, Any], listener: Listener, controls: Controls | None = None
    ) -> Reply:
        """Ask, listen, and return the answer; a lost connection is opened again and goes on where it stopped.

        Raises:
            RemoteError: the host refuses, cannot be reached, or was lost for longer than `PATIENCE_S`.
        """
        lost_at: float | None = None
        attempt = 0
        while True:
            before = listener.position
            try:
                self.open()
                assert self._session is not None
                asked = {**params, "code_path": self.code_path, "offset": listener.position}
                return self._session.request(op, asked, listener, controls)
            except (errors.Dropped, errors.NoHostError) as error:
                known = self._known or (self._session is not None and self._session.greeted)
                self.close()
                if isinstance(error, errors.NoHostError) and not known:
                    raise
                self._known = known
                if lost_at is None or listener.position != before:
                    lost_at, attempt = time.monotonic(), 0
                    self.say(f"{error.reason}; connecting again")
                if time.monotonic() - lost_at > (PATIENCE_S if known else FIRST_PATIENCE_S):
                    raise
            time.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1
