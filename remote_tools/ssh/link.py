"""Send requests to a host; after a lost connection, open a new session and retry the request.

A retry is safe because requests are idempotent.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from remote_tools import errors
from remote_tools.host import messages
from remote_tools.host.messages import Ask, Request, Started
from remote_tools.ssh.master import Destination, Master
from remote_tools.ssh.session import Controls, Listener, NoPython, ReplyT, Session

BACKOFF_S = (0.1, 0.5, 1, 2, 4, 8, 15, 30)
PATIENCE_S = 600.0
"""Give up on a lost host after this time; the time of a sleeping laptop does not count."""
FIRST_PATIENCE_S = 5.0
"""Give up after this time on a host that has never answered: it may not exist."""
STEADY_S = 10.0
"""A session that lasted this long, or sent output, ends an outage."""
MAX_CRASHES = 5
"""Give up if the host program ends more often than this in a row without having sent anything."""


class Silent:
    """A listener for requests that have no output."""

    position = 0

    def output(self, kind: bytes, data: memoryview) -> int:  # noqa: ARG002
        """Drop it."""
        return len(data)

    def descriptor(self, kind: bytes) -> int:
        """Return nothing that one would wait for."""
        raise NotImplementedError

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Drop it."""

    def started(self, reply: Started) -> None:
        """Ignore it."""


class Link:
    """A connection to a host that survives the loss of its sessions.

    Args:
        destination: the host.
        code_path: the workspace on the host, which every request is about.
        say: prints one line for the user.
    """

    def __init__(self, destination: Destination, code_path: str, say: Callable[[str], None]) -> None:
        """Set the host; do not connect."""
        self.master = Master(destination)
        self.code_path = code_path
        self.say = say
        self._session: Session | None = None
        self._known = False
        self._no_python: NoPython | None = None
        self._noise = b""

    @property
    def alias(self) -> str:
        """Return the destination as the user typed it."""
        return self.master.destination.alias

    def ssh_words(self) -> list[str]:
        """Return ssh's command line up to the destination, for programs that start ssh themselves."""
        return self.master.words()

    def open(self) -> None:
        """Open a session before the first request, so that its round trips overlap local work.

        Raises:
            RemoteError: the host cannot be reached. A lost connection raises nothing: the first request will
                open it again.
        """
        with suppress(errors.Dropped):
            self._open()

    def _open(self) -> Session:
        if self._session is None:
            self.master.open()
            self._session = Session(self.master, self.say, self._search())
        return self._session

    def _search(self) -> tuple[str, ...] | None:
        """Return where else to look for a Python, once python3 was not found."""
        return None if self._no_python is None else self.master.destination.pythons

    @property
    def noise(self) -> bytes:
        """What the host's shell printed as it started: the output of every other command begins with it."""
        return self._session.noise if self._session is not None and self._session.greeted else self._noise

    def reopen(self) -> None:
        """Open a new master and a new session, with the retries of a request."""
        self.close()
        self.master.close()
        self.call(messages.HELLO({}))

    def close(self) -> None:
        """End the session; the master and the runs on the host continue."""
        if self._session is not None:
            self._known |= self._session.greeted
            self._noise = self.noise
            self._session.close()
            self._session = None

    def call(self, ask: Ask[ReplyT]) -> ReplyT:
        """Send a request without output and return the reply."""
        return self.stream(ask, Silent())

    def stream(self, ask: Ask[ReplyT], listener: Listener, controls: Controls | None = None) -> ReplyT:
        """Send a request, pass its output to the listener, return the reply; resume after a lost connection.

        Raises:
            RemoteError: the host rejects the request, cannot be reached, or was lost for over `PATIENCE_S`.
        """
        outage = Outage()
        done: list[tuple[bytes, bytes]] = []
        while True:
            position, began = listener.position, time.monotonic()
            asked: Request = {
                "op": ask.op,
                "code_path": self.code_path,
                "offset": position,
                "params": ask.params,
            }
            try:
                # `replies` has checked that it is one.
                return cast("ReplyT", self._open().request(asked, listener, controls, done))
            except errors.ProtocolError:
                self.close()  # nobody knows what the rest of this session means
                raise
            except (errors.Dropped, errors.NoHostError, errors.UnavailableError) as error:
                greeted = self._session is not None and self._session.greeted
                self.close()
                if isinstance(error, NoPython):
                    if self._no_python is not None:
                        raise self._no_python from None
                    self._no_python = error
                    continue
                if error.stage != "connect" or not (self._known or isinstance(error, errors.Dropped)):
                    raise
                if greeted and (listener.position > position or time.monotonic() - began > STEADY_S):
                    outage = Outage()
                if outage.attempts == 0:
                    self.say(f"{error.reason}; connecting again")
                if outage.hopeless(self._known, greeted):
                    raise
                done = [] if greeted else done
            done += _wait(outage.backoff_s(), controls)


class Outage:
    """The start of an outage, and the number of failed attempts to reconnect."""

    def __init__(self) -> None:
        """Start before the outage."""
        self._since = 0.0
        self.attempts = self._crashes = 0

    def hopeless(self, known: bool, greeted: bool) -> bool:
        """Return whether to give up: the time is over, or the host program ends again and again."""
        self._since = self._since or time.monotonic()
        self._crashes += greeted
        patience_s = PATIENCE_S if known else FIRST_PATIENCE_S
        return self._crashes > MAX_CRASHES or time.monotonic() - self._since > patience_s

    def backoff_s(self) -> float:
        """Return how long to wait before the next attempt."""
        self.attempts += 1
        return BACKOFF_S[min(self.attempts, len(BACKOFF_S)) - 1]


def _wait(duration_s: float, controls: Controls | None) -> list[tuple[bytes, bytes]]:
    """Wait, and return the frames of what the user did meanwhile; the user can detach here too."""
    done: list[tuple[bytes, bytes]] = []
    until = time.monotonic() + duration_s
    while (left_s := until - time.monotonic()) > 0:
        if controls is None:
            time.sleep(left_s)
        elif select.select(controls.descriptors(), [], [], left_s)[0]:
            done += controls.frames()
    return done
