"""Find out whether a host ends what a login session leaves behind, by trying.

systemd-logind does so with KillUserProcesses=yes and no lingering (logind.conf(5), loginctl(1)), and so do
some schedulers. A detached run would end with the last connection.
"""

from __future__ import annotations

import hashlib
import time

from remote_tools.errors import RemoteError
from remote_tools.host import messages
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import socket_folder

LOOK_S = 1.0
"""How long the process that was left behind must outlive its connection."""
LOOKS = 5
CAUSE = "the host ends at logout what a session left"
HINT = (
    "on the host: loginctl enable-linger, or KillUserProcesses=no in logind.conf, or systemd-run --user CMD"
)


def outlives(link: Link) -> bool:
    """Leave a process behind on a connection of its own, and look for it after that has ended.

    Raises:
        RemoteError: the host allows no second connection, or was lost.
    """
    alone = Link(link.master.destination, link.code_path, lambda _text: None)
    alone.master.control_path = None
    try:
        left = alone.call(messages.LEAVE({}))
    finally:
        alone.close()
    for _ in range(LOOKS):
        time.sleep(LOOK_S / LOOKS)
        if not link.call(messages.LOOK(left))["alive"]:
            return False
    return True


def warned(link: Link) -> str:
    """Return a warning for a run that is to outlive the connection, or nothing; a good host is asked once."""
    key = hashlib.sha256(f"outlives\0{link.master.control_path}".encode()).hexdigest()[:16]
    known = socket_folder() / f"{key}.outlives"
    if known.exists():
        return ""
    try:
        if not outlives(link):
            return f"{link.alias}: {CAUSE}, and this run with it\n  next: {HINT}"
    except RemoteError:  # not found out
        return ""
    known.touch()
    return ""
