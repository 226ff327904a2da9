"""Answer requests over a host's sessions: a lost one is opened again, and the request is sent again.

A request that is sent twice does what it does once; that is why this is safe.
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
from remote_tools.ssh.session import Controls, Listener, ReplyT, Session

BACKOFF_S = (0.1, 0.5, 1, 2, 4, 8, 15, 30)
PATIENCE_S = 600.0
"""How long a lost host is called again; a closed laptop counts only while it is awake."""
FIRST_PATIENCE_S = 5.0
"""The same for a host that has not answered yet: it may not be there at all."""
STEADY_S = 10.0
"""A session that lasted this long, or brought output, ends an outage: waiting starts over at the next."""
DEATHS = 5
"""How often in a row the host program may die without having brought anything."""


class Silent:
    """A listener for requests that have no output."""

    position = 0

    def output(self, kind: bytes, data: bytes) -> None:
        """Drop it."""

    def file(self, path: bytes, mtime_ns: int, data: bytes) -> None:
        """Drop it."""

    def started(self, reply: Started) -> None:
        """Ignore it."""


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
        """Open a session ahead of the first request, so that its round trips hide behind local work.

        Raises:
            RemoteError: the host cannot be reached. A connection that gave out under it is no failure yet:
                the first request opens it again.
        """
        with suppress(errors.Dropped):
            self._open()

    def _open(self) -> Session:
        if self._session is None:
            self.master.open()
            self._session = Session(self.master)
        return self._session

    def reopen(self) -> None:
        """Open everything anew, the master too, as patiently as a request does."""
        self.close()
        self.master.close()
        self.call(messages.HELLO({}))

    def close(self) -> None:
        """End the session; the master and what runs on the host go on."""
        if self._session is not None:
            self._known |= self._session.greeted
            self._session.close()
            self._session = None

    def call(self, ask: Ask[ReplyT]) -> ReplyT:
        """Ask for something that has no output and return the answer."""
        return self.stream(ask, Silent())

    def stream(self, ask: Ask[ReplyT], listener: Listener, controls: Controls | None = None) -> ReplyT:
        """Ask, listen, and return the answer; a lost connection is opened again and goes on where it stopped.

        Raises:
            RemoteError: the host refuses, cannot be reached, or was lost for longer than `PATIENCE_S`.
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
                # What the host sends is believed to be of the type that `messages` gives it.
                return cast("ReplyT", self._open().request(asked, listener, controls, done))
            except (errors.Dropped, errors.NoHostError, errors.UnavailableError) as error:
                greeted = self._session is not None and self._session.greeted
                self.close()
                if error.stage != "connect" or not (self._known or isinstance(error, errors.Dropped)):
                    raise
                if greeted and (listener.position > position or time.monotonic() - began > STEADY_S):
                    outage = Outage()
                if outage.attempts == 0:
                    self.say(f"{error.reason}; connecting again")
                if outage.hopeless(self._known, greeted):
                    raise
                done = [] if greeted else done
            done += _rest(outage.backoff_s(), controls)


class Outage:
    """A connection that was lost: since when, and how often it was opened again in vain."""

    def __init__(self) -> None:
        """Start with a connection that was not lost yet."""
        self._since = 0.0
        self.attempts = self._deaths = 0

    def hopeless(self, known: bool, greeted: bool) -> bool:
        """Tell whether to give up: on time, or where the host program starts and dies again and again."""
        self._since = self._since or time.monotonic()
        self._deaths += greeted
        patience_s = PATIENCE_S if known else FIRST_PATIENCE_S
        return self._deaths > DEATHS or time.monotonic() - self._since > patience_s

    def backoff_s(self) -> float:
        """Return how long to wait before the next attempt."""
        self.attempts += 1
        return BACKOFF_S[min(self.attempts, len(BACKOFF_S)) - 1]


def _rest(duration_s: float, controls: Controls | None) -> list[tuple[bytes, bytes]]:
    """Wait, and return what the user did meanwhile, who may let go of the run here too."""
    done: list[tuple[bytes, bytes]] = []
    until = time.monotonic() + duration_s
    while (left_s := until - time.monotonic()) > 0:
        if controls is None:
            time.sleep(left_s)
        elif select.select(controls.descriptors(), [], [], left_s)[0]:
            done += controls.frames()
    return done
