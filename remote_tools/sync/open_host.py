"""Open a host once for each command; every step is given the same `OpenHost`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from remote_tools.errors import SIGNALLED, RemoteError
from remote_tools.settings.settings import Settings
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import Destination
from remote_tools.sync.progress import Display


@dataclass(frozen=True)
class OpenHost:
    """A host with a link to it.

    Args:
        settings: the settings for this host.
        link: the connection.
        display: prints messages and progress.
    """

    settings: Settings
    link: Link
    display: Display


class Interrupted(RemoteError):
    """Ctrl-C before a run was started; the exit code is 130, as a shell's for SIGINT."""

    exit_code = SIGNALLED + signal.SIGINT


def destination_of(settings: Settings) -> Destination:
    """Return where ssh goes for these settings."""
    venv = settings.venv_path
    return Destination(
        settings.host,
        settings.ssh_options,
        settings.connect_timeout_s,
        settings.timeout_s,
        settings.persist_s,
        (*((settings.python,) if settings.python else ()), *((f"{venv}/bin/python",) if venv else ())),
        settings.state_path,
    )


@contextmanager
def open_host(settings: Settings, display: Display) -> Iterator[OpenHost]:
    """Open a link to the host; its session starts in the background while local work goes on."""
    link = Link(destination_of(settings), settings.code_path, display.say)
    try:
        link.open()
        yield OpenHost(settings, link, display)
    except KeyboardInterrupt:
        raise Interrupted("exec", "interrupted; nothing runs on the host") from None
    finally:
        link.close()
