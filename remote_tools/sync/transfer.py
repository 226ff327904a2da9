"""Retry a transfer whose connection is lost: what a push and a pull share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from remote_tools.errors import TemporaryError
from remote_tools.sync import rsync
from remote_tools.sync.open_host import OpenHost

ATTEMPTS = 5
"""How often a transfer is begun, or gone on with, before the network counts as unusable."""
LARGE_BYTES = 1_000_000
"""Size of a file from which progress inside of it is worth reporting, and half of it worth keeping."""

T = TypeVar("T")


SAME_COMMAND = "the same command goes on where it stopped"


def retry(host: OpenHost, stage: str, attempt: Callable[[], T], hint: str = SAME_COMMAND) -> T:
    """Call `attempt`, and call it again over a new connection each time that it raises `Stalled`.

    Raises:
        TemporaryError: every attempt failed; names the stage, and the hint as the next command.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except rsync.Stalled as stall:
            host.display.say(f"{stall}; connecting again")
        # A new session must not wait for a master whose network is dead.
        host.link.reopen()
    try:
        return attempt()
    except rsync.Stalled as stall:
        raise TemporaryError(stage, f"{stall}, {ATTEMPTS} times", hint) from stall
