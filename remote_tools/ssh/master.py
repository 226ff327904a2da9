"""OpenSSH command lines, and the shared master that they run over.

A master (ssh_config(5): ControlMaster) is one authenticated connection that outlives the command which opened
it; every later session costs no handshake and asks for no passphrase. All of the user's own ssh configuration
holds: we add to the command line and read `ssh -G`, and never parse or write a file of the user's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from remote_tools.errors import (
    ConfigError,
    Dropped,
    NoHostError,
    PermissionDenied,
    RemoteError,
    UnavailableError,
)

SSH_FAILED = 255
"""How ssh itself ends when the failure is its own (ssh(1), EXIT STATUS)."""

KEEPALIVES = 3
"""Unanswered keep-alives after which a connection counts as dead (ServerAliveCountMax)."""

LOCAL_TIMEOUT_S = 2.0
"""Bound on an answer from a master of ours: it may be stopped."""


def quote(word: str) -> str:
    """Quote a word for the host's login shell, whichever it is: csh takes a ! for an event even in quotes."""
    return shlex.quote(word).replace("!", "'\\!'")


@dataclass(frozen=True)
class Destination:
    """Where ssh goes, and how.

    Args:
        alias: what the user would type after `ssh`.
        options: SSH_OPTIONS, as words.
        connect_timeout_s: bound on reaching the host.
        timeout_s: bound on silence of a network that was reached.
        persist_s: how long an unused master stays open.
    """

    alias: str
    options: tuple[str, ...] = ()
    connect_timeout_s: float = 10
    timeout_s: float = 60
    persist_s: int = 600


def socket_folder() -> Path:
    """Return a private folder for control sockets, with a path short enough for one (about 104 bytes).

    Raises:
        PermissionDenied: somebody else owns a folder of that name.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = (base if os.access(base, os.W_OK) else Path("/tmp")) / f"remote-tools-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o077:
        raise PermissionDenied("connect", f"{folder} is not a private folder of yours", f"rm -r {folder}")
    return folder


# What ssh prints -> which of our errors it is. The words are OpenSSH's (sshconnect.c, ssh.c, readconf.c).
_DIAGNOSES: tuple[tuple[str, type[RemoteError], str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        PermissionDenied,
        "its host key is not the one in known_hosts: ask its owner; if that is right, ssh-keygen -R {host}",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        PermissionDenied,
        "its host key is unknown: ssh {alias} once, and compare the fingerprint",
    ),
    (
        r"Permission denied|Too many authentication failures|no mutual signature",
        PermissionDenied,
        "ssh {alias}",
    ),
    (r"Could not resolve hostname", NoHostError, "correct the name, or add `Host {alias}` to ~/.ssh/config"),
    (
        r"channel \d+: open failed|Session open refused",
        UnavailableError,
        "its sshd refuses a session: MaxSessions in sshd_config there must be 1 or more",
    ),
    (
        r"Connection refused|timed out|No route to host|Network is unreachable",
        NoHostError,
        "is the host up? ssh -v {alias}",
    ),
    (
        r"exec: .*not found|line \d+: .*: (No such file|not found|cannot execute)",
        ConfigError,
        "correct ProxyCommand: ssh -G {alias} shows it",
    ),
    (
        r"Connection closed|Connection reset|kex_exchange_identification|Broken pipe|Timeout, server|"
        r"Bad packet length|Corrupted MAC|message authentication code incorrect",
        Dropped,
        "ssh -v {alias}",
    ),
    (
        r"[Bb]ad configuration option|unknown option|illegal option|Bad .*argument|terminating,",
        ConfigError,
        "inv config",
    ),
    (r"usage: ssh", ConfigError, "correct ssh_options: inv config"),
)


def diagnose(text: str, alias: str, host: str) -> RemoteError:
    """Turn what ssh printed into the error that it means.

    Args:
        text: ssh's standard error, or its log.
        alias: the destination as typed.
        host: the name it resolved to.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not set(line.strip()) <= {"@"}]
    for pattern, kind, hint in _DIAGNOSES:
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            said = found[0].strip("@ ")
            return kind("connect", f"cannot reach {alias}: {said}", hint.format(alias=alias, host=host))
    said = lines[-1] if lines else "ssh ended without a word"
    return UnavailableError("connect", f"cannot reach {alias}: {said}", f"ssh -v {alias}")


_NO_SOCKET = re.compile(r"unix_listener|[Cc]ontrol(Path|Socket).* too long|muxserver_listen")
"""ssh cannot make the socket: its path is too long, or the file system has none (mux.c, misc.c)."""

_SILENT: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "check": False,
}


class Master:
    """The shared connection to one destination."""

    def __init__(self, destination: Destination) -> None:
        """Name the destination; nothing is opened."""
        self.destination = destination

    @cached_property
    def resolved(self) -> dict[str, str]:
        """What `ssh -G` makes of the destination, keys in lower case; nothing is connected.

        Raises:
            ConfigError: ssh refuses its configuration.
            UnavailableError: there is no ssh here.
        """
        words = ["ssh", "-G", *self.destination.options, "--", self.destination.alias]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except FileNotFoundError as error:
            raise UnavailableError(
                "connect", "no ssh on this machine", "install the OpenSSH client (openssh-client)"
            ) from error
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["ssh -G failed"])[-1]
            raise ConfigError(
                "connect", f"ssh refuses its configuration: {said}", "inv config; man ssh_config"
            )
        pairs = (line.partition(" ") for line in done.stdout.splitlines())
        found: dict[str, str] = {}
        for key, _, value in pairs:
            found.setdefault(key.lower(), value)
        return found

    @property
    def is_direct(self) -> bool:
        """Whether this machine itself connects to the host, not a jump host or another proxy."""
        return all(self.resolved.get(key, "none") == "none" for key in ("proxyjump", "proxycommand"))

    @cached_property
    def control_path(self) -> Path | None:
        """The socket: the user's own ControlPath where there is one, else ours; None where none can be."""
        theirs = self.resolved.get("controlpath", "none")
        if theirs != "none":
            return Path(theirs).expanduser()
        key = "\0".join([self.destination.alias, *(f"{k}={v}" for k, v in sorted(self.resolved.items()))])
        return socket_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]

    def words(self) -> list[str]:
        """Return ssh's command line up to the destination; sessions go over the master where there is one."""
        return [
            "ssh",
            *self.destination.options,
            "-o",
            f"ControlPath={self._control_path_option()}",
            "-o",
            "ControlMaster=no",
            *self._patience(),
        ]

    def _control_path_option(self) -> str:
        """Quote the socket's path for ssh's option parser, where % starts a token and a space a word."""
        if self.control_path is None:
            return "none"
        path = str(self.control_path).replace("\\", "\\\\").replace('"', '\\"')
        return '"' + path.replace("%", "%%") + '"'

    def _patience(self) -> list[str]:
        """Bound connecting and silence, unless the user's own words, which come first, do."""
        interval_s = max(1, int(self.destination.timeout_s / KEEPALIVES))
        return [
            "-o",
            f"ConnectTimeout={max(1, int(self.destination.connect_timeout_s))}",
            "-o",
            f"ServerAliveInterval={min(15, interval_s)}",
            "-o",
            f"ServerAliveCountMax={KEEPALIVES}",
        ]

    def is_open(self) -> bool:
        """Tell whether a master listens; a socket that nobody listens on is removed."""
        path = self.control_path
        if path is None or not path.exists():
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(LOCAL_TIMEOUT_S)  # one that was stopped lets its callers wait
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
                return False
        return True

    def open(self) -> None:
        """Open the master where none is open; ssh may ask its questions on the terminal.

        Raises:
            RemoteError: the destination cannot be reached; which one says why.
        """
        if self.control_path is None or self.is_open():
            return
        with self._one_at_a_time(self.control_path):
            if not self.is_open():
                self._open()

    @contextmanager
    def _one_at_a_time(self, path: Path) -> Iterator[None]:
        """Let one process open the master: a second one would stay behind for ever, shared by nobody."""
        with (socket_folder() / f"{hashlib.sha256(bytes(path)).hexdigest()[:16]}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _open(self) -> None:
        words = ["ssh", "-M", "-N", "-f", *self.destination.options]
        words += ["-o", f"ControlPath={self._control_path_option()}"]
        words += ["-o", f"ControlPersist={self.destination.persist_s}", *self._patience()]
        # The master keeps the streams it is given, for as long as it lives: a pipe would never close.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run([*words, "--", self.destination.alias], **{**_SILENT, "stderr": said})
            if done.returncode == 0 or self.is_open():
                return
            said.seek(0)
            text = said.read().decode(errors="replace")
        if done.returncode == -signal.SIGINT:
            raise Dropped("connect", "Ctrl-C ended ssh")
        if _NO_SOCKET.search(text):
            self.control_path = None  # every session connects for itself then
            return
        host = self.resolved.get("hostname", self.destination.alias)
        raise diagnose(text if self.is_direct else self._said_alone() + text, self.destination.alias, host)

    def _said_alone(self) -> str:
        """Try without a master: with ControlPersist, what a proxy says goes to /dev/null (sshconnect.c)."""
        words = ["ssh", *self.destination.options, "-o", "ControlPath=none", "-o", "BatchMode=yes"]
        words += [*self._patience(), "--", self.destination.alias, "true"]
        done = subprocess.run(words, **{**_SILENT, "stderr": subprocess.PIPE})
        return bytes(done.stderr).decode(errors="replace")

    def close(self) -> None:
        """End the master at once; its sessions end with it. Runs on the host go on."""
        if self.control_path is None:
            return
        with suppress(subprocess.TimeoutExpired):
            command = [*self.words(), "-O", "exit", "--", self.destination.alias]
            subprocess.run(command, timeout=LOCAL_TIMEOUT_S, **_SILENT)
        self.control_path.unlink(missing_ok=True)
