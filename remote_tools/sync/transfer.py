"""Retry a transfer after a lost connection, for both push and pull."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from remote_tools.errors import TemporaryError
from remote_tools.sync import rsync
from remote_tools.sync.open_host import OpenHost

ATTEMPTS = 5
"""How often a transfer is started or resumed before it fails."""
LARGE_BYTES = 1_000_000
"""Size above which progress within a file is reported, and a partial file is kept."""

T = TypeVar("T")


SAME_COMMAND = "type the same command again; it resumes the transfer"


def retry(host: OpenHost, stage: str, attempt: Callable[[], T], hint: str = SAME_COMMAND) -> T:
    """Call `attempt`; if it raises `Stalled`, reconnect and call it again, up to `ATTEMPTS` times in all.

    Raises:
        TemporaryError: every attempt failed, or two in the same way before a byte came; holds the hint.
        UnavailableError: rsync on the host does not start, and printed why.
    """
    before = ""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except rsync.Stalled as stall:
            if stall.early and str(stall) == before:  # the host answered in between: the network is well
                if "unexpectedly closed" in before:  # rsync's own words: the host printed none
                    message = f"rsync on {host.link.alias} ends at once, without a word: {stall}"
                    raise TemporaryError(stage, message, hint) from stall
                raise rsync.dead(host.link.alias, stage, str(stall)) from stall
            before = str(stall)
            host.display.say(f"{stall}; connecting again")
        # Without this a new session would wait for a master whose network is dead.
        host.link.reopen()
    try:
        return attempt()
    except rsync.Stalled as stall:
        raise TemporaryError(stage, f"{stall}, {ATTEMPTS} times", hint) from stall
