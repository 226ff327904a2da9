"""Find out what a host's login shell does with a command, and quote what the host printed.

sshd hands every command to the account's login shell (sshd(8), LOGIN PROCESS). A start-up file of that shell
may print, read what is sent to the command, or start something else in its place. ssh works then, and yet
nothing of ours answers.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import IO

from remote_tools.errors import UnavailableError
from remote_tools.escape import one_line
from remote_tools.ssh.captured import LIMIT_BYTES, capture
from remote_tools.ssh.master import Master

MARK = "remote-tools-mark"
SHOWN_LINES = 3
SHOWN_CHARS = 300


@dataclass(frozen=True)
class Tried:
    """The result of one command that prints `MARK`.

    Args:
        ran: whether the shell ran it.
        noise: what was printed before the mark, or everything if there is no mark.
        code: ssh's exit code.
    """

    ran: bool
    noise: str
    code: int


def quoted(*texts: bytes) -> str:
    """Return the last lines of what a host printed, as one printable line."""
    lines = [line for text in texts for line in text.decode(errors="replace").splitlines() if line.strip()]
    shown = " / ".join(line.strip() for line in lines[-SHOWN_LINES:])
    return one_line(shown)[-SHOWN_CHARS:]


def try_shell(master: Master, timeout_s: float, command: str = "true") -> Tried | None:
    """Run a command and print the mark, with nothing to read; return None if that does not end in time."""
    words = [*master.words(), "-T", "--", master.destination.alias, f"{command}; echo {MARK}"]
    try:
        done = capture(words, timeout_s)
    except subprocess.TimeoutExpired:
        return None
    before, mark, _ = done.stdout.partition(MARK.encode())
    return Tried(bool(mark), quoted(before) if mark else quoted(before, done.stderr), done.code)


def read_past_mark(stream: IO[bytes]) -> bytes | None:
    """Read past the mark, and so past what the host's shell prints as it starts.

    Returns:
        What was read of the rest; None if the stream ends before, or does not come to the mark.
    """
    found, mark = b"", f"{MARK}\n".encode()
    while mark not in found:
        data = stream.read(65536)
        if not data or len(found) > LIMIT_BYTES:
            return None
        found += data
    return found.partition(mark)[2]


def answers(master: Master, timeout_s: float) -> bool:
    """Return whether sshd answers, by a request that needs no shell: a connection to a port of the host.

    Whether the port is open or forwarding is allowed does not matter: sshd sends a reply in any case.
    """
    words = [*master.words(), "-W", "127.0.0.1:9", "--", master.destination.alias]
    try:
        capture(words, timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return master.is_open()


def not_run(alias: str, printed: str) -> UnavailableError:
    """Return the error for a shell that does not run what it is given."""
    more = f"; it printed: {printed}" if printed else ""
    return UnavailableError(
        "connect",
        f"the login shell on {alias} does not run the command that it is given{more}",
        f"the login shell must run commands, `ssh {alias} echo it`: see ForceCommand, and exec in ~/.bashrc",
    )


def reads_input(alias: str) -> UnavailableError:
    """Return the error for start-up files that read what is sent to the command."""
    return UnavailableError(
        "connect",
        f"a start-up file of the login shell on {alias} reads the input of the command (read, cat, ssh)",
        f"`echo it | ssh {alias} cat` must print it: give that line of ~/.bashrc </dev/null",
    )
