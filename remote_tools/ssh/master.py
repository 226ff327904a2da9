"""Compose OpenSSH command lines, and open the shared master that they run over.

A master (ssh_config(5): ControlMaster) is one authenticated connection that outlives the command which opened
it. Later sessions need no handshake and no passphrase. The user's ssh configuration applies: we add options
to the command line and read `ssh -G`, and never parse or write the user's files.
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
"""ssh's exit code if ssh itself fails (ssh(1), EXIT STATUS)."""

KEEPALIVES = 3
"""Number of unanswered keep-alives after which ssh drops a connection (ServerAliveCountMax)."""

LOCAL_TIMEOUT_S = 2.0
"""Timeout for a reply from our own master, which may be stopped."""


def quote(word: str) -> str:
    """Quote a word for any login shell of the host; csh expands ! even in quotes."""
    return shlex.quote(word).replace("!", "'\\!'")


@dataclass(frozen=True)
class Destination:
    """The destination of ssh, and its options.

    Args:
        alias: the destination as after `ssh`.
        options: SSH_OPTIONS, as a list.
        connect_timeout_s: timeout for the connection to the host.
        timeout_s: timeout for a connection without data.
        persist_s: how long an unused master stays open.
        pythons: interpreters that the settings name, for our own program if there is no python3.
        state_path: where our program and its state go there; None leaves it to the host.
    """

    alias: str
    options: tuple[str, ...] = ()
    connect_timeout_s: float = 10
    timeout_s: float = 60
    persist_s: int = 600
    pythons: tuple[str, ...] = ()
    state_path: str | None = None


def socket_folder() -> Path:
    """Return a private folder for control sockets; its path is short, as a socket's is limited to 104 bytes.

    Raises:
        PermissionDenied: the folder belongs to somebody else, or others can read it.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = (base if os.access(base, os.W_OK) else Path("/tmp")) / f"remote-tools-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode) or info.st_mode & 0o077:
        raise PermissionDenied("connect", f"{folder} is not a private folder of yours", f"rm -r {folder}")
    return folder


# Message of ssh -> our error, and its hint. The messages are from OpenSSH's sshconnect.c, ssh.c, readconf.c.
_DIAGNOSES: tuple[tuple[str, type[RemoteError], str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        PermissionDenied,
        "its host key differs from known_hosts: ask its owner; if it was changed, ssh-keygen -R {host}",
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
        "its sshd refuses sessions: set MaxSessions in its sshd_config to 1 or more",
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
    """Return the error that matches ssh's messages.

    Args:
        text: ssh's standard error, or its log.
        alias: the destination as typed.
        host: the host name that it resolved to.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not set(line.strip()) <= {"@"}]
    for pattern, kind, hint in _DIAGNOSES:
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            reason = found[0].strip("@ ")
            return kind("connect", f"cannot reach {alias}: {reason}", hint.format(alias=alias, host=host))
    reason = lines[-1] if lines else "ssh ended without a message"
    return UnavailableError("connect", f"cannot reach {alias}: {reason}", f"ssh -v {alias}")


_NO_SOCKET = re.compile(r"unix_listener|[Cc]ontrol(Path|Socket).* too long|muxserver_listen")
"""ssh cannot create the socket: its path is too long, or the file system has no sockets (mux.c, misc.c)."""

_HARMLESS = {
    "remotecommand": ("RemoteCommand", "none", {"none"}),
    "sessiontype": ("SessionType", "default", {"default"}),
    "stdinnull": ("StdinNull", "no", {"no"}),
    "permitlocalcommand": ("PermitLocalCommand", "no", {"no"}),
    "tunnel": ("Tunnel", "no", {"no", "false"}),
    "localforward": ("ClearAllForwardings", "yes", set()),
    "remoteforward": ("ClearAllForwardings", "yes", set()),
    "dynamicforward": ("ClearAllForwardings", "yes", set()),
}
"""Options that people set for the sessions they type in (ssh_config(5)): as `ssh -G` names them, then as an
option, our value, and the values that change nothing. Their own session can take a forward that we leave."""
_FORWARD = re.compile(r"-[LRD]|(Local|Remote|Dynamic)Forward[= ]", re.IGNORECASE)

_SILENT: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "check": False,
}


class Master:
    """The shared connection to one destination."""

    def __init__(self, destination: Destination) -> None:
        """Set the destination; do not connect."""
        self.destination = destination
        self._opened = False

    @cached_property
    def resolved(self) -> dict[str, str]:
        """Return the output of `ssh -G`, keys in lower case; do not connect.

        Raises:
            ConfigError: ssh rejects its configuration.
            UnavailableError: ssh is missing on this machine.
        """
        words = ["ssh", "-G", *self.destination.options, "--", self.destination.alias]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except FileNotFoundError as error:
            raise UnavailableError(
                "connect", "no ssh on this machine", "install the OpenSSH client (openssh-client)"
            ) from error
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["ssh -G failed"])[-1]
            raise ConfigError(
                "connect", f"ssh rejects its configuration: {reason}", "inv config; man ssh_config"
            )
        pairs = (line.partition(" ") for line in done.stdout.splitlines())
        found: dict[str, str] = {}
        for key, _, value in pairs:
            found.setdefault(key.lower(), value)
        return found

    @property
    def is_direct(self) -> bool:
        """Return whether ssh connects to the host directly, not by a jump host or another proxy."""
        return all(self.resolved.get(key, "none") == "none" for key in ("proxyjump", "proxycommand"))

    @cached_property
    def control_path(self) -> Path | None:
        """Return the user's ControlPath if it is set, else our socket; None if no socket can be created."""
        theirs = self.resolved.get("controlpath", "none")
        if theirs != "none":
            return Path(theirs).expanduser()
        return self._own_path()

    def _own_path(self) -> Path:
        """Return the path of our own socket."""
        key = "\0".join([self.destination.alias, *(f"{k}={v}" for k, v in sorted(self.resolved.items()))])
        return socket_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]

    def words(self) -> list[str]:
        """Return ssh's command line up to the destination; sessions use the master if it is open."""
        return [
            *self.start(),
            "-o",
            f"ControlPath={self._control_path_option()}",
            "-o",
            "ControlMaster=no",
            *self._patience(),
            *self._no_terminal(),
        ]

    def start(self, session: bool = True) -> list[str]:
        """Return `ssh` and the user's options, behind a fence against those that are meant for people.

        ssh takes no SessionType beside -N, so `session` is false for the master.

        The fence comes first because ssh takes the first of two values; it names only what is set, so that an
        old ssh is given no option that it does not know. A forward in SSH_OPTIONS is kept: it is for us.
        """
        asked = any(_FORWARD.match(word) for word in self.destination.options)
        fence = {
            name: value
            for key, (name, value, harmless) in _HARMLESS.items()
            if key in self.resolved
            and self.resolved[key] not in harmless
            and not (asked and name == "ClearAllForwardings")
            and (session or name != "SessionType")
        }
        return ["ssh", *(f"-o{name}={value}" for name, value in fence.items()), *self.destination.options]

    def _no_terminal(self) -> list[str]:
        """Refuse what only a session with a terminal or a display has; without one, ssh reads no escapes."""
        x11 = ["-x"] if self.resolved.get("forwardx11") == "yes" else []
        return [*x11, "-T"] if self.resolved.get("requesttty", "auto") not in ("auto", "no") else x11

    def _control_path_option(self) -> str:
        """Quote the socket's path for ssh's option parser, which expands % and splits at spaces."""
        if self.control_path is None:
            return "none"
        path = str(self.control_path).replace("\\", "\\\\").replace('"', '\\"')
        return '"' + path.replace("%", "%%") + '"'

    def _patience(self) -> list[str]:
        """Return the timeout options; ssh uses the first value of an option, so the user's come before."""
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
        """Return whether a master listens; remove a stale socket."""
        path = self.control_path
        if path is None or not path.exists():
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(LOCAL_TIMEOUT_S)  # a stopped master does not accept connections
            try:
                probe.connect(str(path))
            except OSError as error:
                if self._is_ours() or isinstance(error, ConnectionRefusedError):  # refused: nobody listens
                    path.unlink(missing_ok=True)
                else:
                    self.control_path = self._own_path()
                return False
        return True

    def open(self) -> None:
        """Open the master if it is not open; ssh may ask for a passphrase on the terminal.

        Raises:
            RemoteError: the destination cannot be reached; the subclass depends on the reason.
        """
        if self.control_path is None or self.is_open():
            return
        with self._one_at_a_time(self.control_path):
            if not self.is_open():
                self._open()

    @contextmanager
    def _one_at_a_time(self, path: Path) -> Iterator[None]:
        """Let only one process open the master: a second master would never be used, and never end."""
        with (socket_folder() / f"{hashlib.sha256(bytes(path)).hexdigest()[:16]}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _open(self) -> None:
        words = [*self.start(session=False), "-M", "-N", "-f"]
        words += ["-o", f"ControlPath={self._control_path_option()}"]
        words += ["-o", f"ControlPersist={self.destination.persist_s}", *self._patience()]
        # The master keeps its streams open as long as it lives, so reading from a pipe would never end.
        with tempfile.TemporaryFile() as stderr:
            done = subprocess.run([*words, "--", self.destination.alias], **{**_SILENT, "stderr": stderr})
            self._opened = done.returncode == 0
            if self._opened or self.is_open():
                return
            stderr.seek(0)
            text = stderr.read().decode(errors="replace")
        if done.returncode == -signal.SIGINT:
            raise Dropped("connect", "Ctrl-C ended ssh")
        if _NO_SOCKET.search(text):
            self.control_path = None  # every session opens its own connection then
            return
        host = self.resolved.get("hostname", self.destination.alias)
        text = text if self.is_direct else self._stderr_without_master() + text
        raise diagnose(text, self.destination.alias, host)

    def _stderr_without_master(self) -> str:
        """Retry without a master: with ControlPersist, a proxy's stderr is /dev/null (sshconnect.c)."""
        words = [*self.start(), "-o", "ControlPath=none", "-o", "BatchMode=yes"]
        words += [*self._patience(), "--", self.destination.alias, "true"]
        done = subprocess.run(words, **{**_SILENT, "stderr": subprocess.PIPE})
        return bytes(done.stderr).decode(errors="replace")

    def close(self) -> None:
        """End the master and its sessions at once; the runs on the host continue.

        A master of the user's carries other sessions of theirs: it is left alone. We use ours from now on.
        """
        if self.control_path is None:
            return
        if not self._is_ours():
            self.control_path = self._own_path()
            return
        with suppress(subprocess.TimeoutExpired):
            command = [*self.words(), "-O", "exit", "--", self.destination.alias]
            subprocess.run(command, timeout=LOCAL_TIMEOUT_S, **_SILENT)
        self.control_path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Return whether we opened the master; at the user's ControlPath, another program may have."""
        return self._opened or self.control_path == self._own_path()
