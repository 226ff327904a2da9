"""Try every capability that the loop needs, from ssh's configuration to the host's cache, each for real."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from remote_tools.errors import RemoteError
from remote_tools.host import messages, probe
from remote_tools.host.messages import ProbeSettings, Row
from remote_tools.host.probe import Trouble
from remote_tools.runs import client
from remote_tools.settings.settings import Settings
from remote_tools.ssh.link import Link
from remote_tools.ssh.master import SSH_FAILED, Destination, Master, diagnose
from remote_tools.sync.plan import host_rsync

SLOW_SHELL_S = 2.0
PINGS = 5
MARK = "remote-tools-mark"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        name: the capability.
        state: `ok`, `warning` (a run would go on) or `failure`.
        seen: what was tried, and what came of it.
        hint: the command that mends it.
        code: the exit code of a run that needs it.
        seconds: how long trying took.
    """

    name: str
    state: str
    seen: str
    hint: str = ""
    code: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return asdict(self)


def examine(settings: Settings, say: Callable[[str], None]) -> Iterator[Finding]:
    """Yield findings as they are made; where a stage fails, those that build on it are left out.

    Args:
        settings: of the host.
        say: prints one line to the user.
    """
    destination = Destination(
        settings.host,
        settings.ssh_options,
        settings.connect_timeout_s,
        settings.timeout_s,
        settings.persist_s,
    )
    yield from map(_finding, probe.examine({"rsync here": probe.rsync_works}, "rsync"))
    door = Door(Master(destination))
    for stage in map(_finding, probe.examine(STAGES, door)):
        yield stage
        if stage.state == "failure":
            return
    link = Link(destination, settings.code_path, say)
    try:
        yield from _on_the_host(link, settings)
    finally:
        link.close()


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """Return 0, 1 for warnings where that is asked for, or the first failure's code."""
    for finding in findings:
        if finding.state == "failure":
            return finding.code
    return int(strict and any(finding.state == "warning" for finding in findings))


def _finding(row: Row) -> Finding:
    """Read a row of `probe.examine`; one without an exit code stops no run."""
    state = "ok" if row["ok"] else "failure" if row["code"] else "warning"
    return Finding(row["name"], state, row["seen"], row["hint"], row["code"], row["seconds"])


# Stages of reaching the host: each returns what it saw, None where there was nothing to try, or raises ------


@dataclass(frozen=True)
class Login:
    """What ssh told while it logged in once.

    Args:
        exchange: the key exchange that both sides agreed on, empty where ssh did not come so far.
        host_key: the server's; empty likewise.
        way: how we were let in, empty where we were not.
        error: why not.
    """

    exchange: str
    host_key: str
    way: str
    error: RemoteError


@dataclass(frozen=True)
class Door:
    """A destination, and what came of logging in there."""

    master: Master

    @property
    def alias(self) -> str:
        """The destination as typed."""
        return self.master.destination.alias

    @cached_property
    def login(self) -> Login:
        """Log in over a connection of its own, which may ask its questions where there is a terminal."""
        resolved, destination = self.master.resolved, self.master.destination
        # Not -v, which a jump host's ssh would be given too.
        words = ["ssh", "-o", "LogLevel=DEBUG1", *destination.options, "-o", "ControlPath=none"]
        words += [] if sys.stdin.isatty() else ["-o", "BatchMode=yes"]
        words += ["-o", f"ConnectTimeout={int(destination.connect_timeout_s)}", "--", self.alias, "true"]
        done = _output(words)
        untold = "" if done.returncode == SSH_FAILED else "what ssh does not tell under -q"
        patterns = "kex: algorithm: (.+)", "Server host key: (.+)", 'Authenticated to .* using "(.+?)"'
        found = (re.search(pattern, done.stderr) for pattern in patterns)
        error = diagnose(done.stderr, self.alias, resolved.get("hostname", self.alias))
        exchange, host_key, way = (one[1] if one else untold for one in found)
        return Login(exchange, host_key, way, error)


def _output(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def _configuration(door: Door) -> str:
    """Ask ssh what it makes of the destination."""
    found = door.master.resolved
    way = "" if door.master.is_direct else f" by {found.get('proxyjump') or found['proxycommand']}"
    return f"{found['user']}@{found['hostname']} port {found['port']}{way}"


def _name(door: Door) -> str | None:
    """Look the name up, where this machine has to."""
    if not door.master.is_direct:
        return None
    host = door.master.resolved["hostname"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        hint = f"correct HostName, or add `Host {door.alias}` to ~/.ssh/config"
        raise Trouble(f"{host}: {error.strerror}", hint, 68) from error
    return f"{host} is {found[0][4][0]}"


def _port(door: Door) -> str | None:
    """Open a TCP connection and read the server's greeting."""
    if not door.master.is_direct:
        return None
    where = door.master.resolved["hostname"], int(door.master.resolved["port"])
    timeout_s = door.master.destination.connect_timeout_s
    seen = f"{where[0]} port {where[1]}"
    try:
        with socket.create_connection(where, timeout_s) as connection:
            connection.settimeout(timeout_s)
            greeting = connection.recv(255).split(b"\n")[0].decode("ascii", "replace").strip()
    except OSError as error:
        hint = "is the machine up, its sshd running, its firewall open to you?"
        raise Trouble(f"{seen}: {error.strerror or error}", hint, 68) from error
    if not greeting.startswith("SSH-"):
        raise Trouble(f"{seen} is no ssh server: {greeting[:40]!r}", "correct Port in ~/.ssh/config", 68)
    return greeting


def _connection(door: Door) -> str:
    """Connect as ssh does, through whatever it is told to, up to where both sides speak the same."""
    login = door.login
    if not login.exchange:
        raise login.error
    return login.exchange


def _host_key(door: Door) -> str:
    """Have ssh compare the server's key with known_hosts, which it does before any key of ours is offered."""
    login = door.login
    # RFC 4252, 1: the server has been authenticated by the time that it refuses the user.
    if not login.way and "Permission denied" not in login.error.reason:
        raise login.error
    return login.host_key


def _authentication(door: Door) -> str:
    """See by what the server lets us in."""
    login = door.login
    if not login.way:
        raise Trouble(
            login.error.reason, f"ssh {door.alias}; ssh-add -l shows your agent's keys", login.error.exit_code
        )
    return f"by {login.way}"


def _shell(door: Door) -> str:
    """Start a shell there; see what it prints before it does as it is told, and how long that takes."""
    door.master.open()
    begun = time.monotonic()
    done = _output([*door.master.words(), "-T", "--", door.alias, f"echo {MARK}"])
    seconds = time.monotonic() - begun
    noise, found, _ = done.stdout.partition(MARK)
    if not found:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        hint = f"the account's login shell must run commands: ssh {door.alias} echo it"
        raise Trouble(f"runs nothing: {said}", hint, 69)
    if noise:
        hint = "print nothing from ~/.bashrc unless it is interactive: [[ $- == *i* ]] || return"
        raise Trouble(f"prints at start: {noise.strip()[:60]!r}", hint)
    if seconds > SLOW_SHELL_S:
        hint = f"its start-up files are slow, and every command waits: ssh {door.alias} 'time true'"
        raise Trouble(f"starts in {seconds:.1f} s", hint)
    return "starts silently"


def _shared(door: Door) -> str:
    """Have two sessions at once over the master."""
    master = door.master
    if master.control_path is None:
        raise Trouble("no socket can be made for it", "every session logs in; set XDG_RUNTIME_DIR")
    words = [*master.words(), "-v", "-T", "--", door.alias]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*words, "echo; cat"], stdin=pipe, stdout=pipe, stderr=null) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = _output([*words, "true"])
        first.communicate()
    if second.returncode or "session request failed" in second.stderr or not master.is_open():
        hint = "its sshd has MaxSessions 1: transfers beside a run cost a login each (the default is 10)"
        raise Trouble("one session at a time", hint)
    return str(master.control_path)


def _stage(check: Callable[[Door], str | None]) -> Callable[[Door], str | None]:
    """Make a check raise what `probe.examine` reads, whatever failed."""

    def tried(door: Door) -> str | None:
        try:
            return check(door)
        except RemoteError as error:
            raise Trouble(error.reason, error.hint, error.exit_code) from error

    return tried


STAGES = {
    "ssh config": _stage(_configuration),
    "name": _stage(_name),
    "port": _stage(_port),
    "connection": _stage(_connection),
    "host key": _stage(_host_key),
    "authentication": _stage(_authentication),
    "shell": _stage(_shell),
    "shared master": _stage(_shared),
}


# Beyond ssh: the host program answers, and tries the rest itself --------------------------------------------


def _on_the_host(link: Link, settings: Settings) -> Iterator[Finding]:
    """Yield how far the host program is, and its checks, with a request each: what hangs is seen to hang."""
    begun = time.monotonic()
    try:
        yield _round_trip(link)
        known: ProbeSettings = {
            "venv_path": settings.venv_path,
            "python": settings.python,
            "cache_dir": settings.cache_dir,
            "rsync": host_rsync(settings.rsync_options),
            "device_lock": settings.device_lock,
            "lock": probe.digest(str(Path(settings.root) / "requirements.lock")),
            "runs": client.list_all(link),
        }
        for name in probe.CHECKS:
            begun = time.monotonic()
            reply = link.call(messages.PROBE({**known, "check": name, "now": time.time()}))
            yield from map(_finding, reply["found"])
    except RemoteError as error:
        spent_s = time.monotonic() - begun
        yield Finding("host program", "failure", error.reason, error.hint, error.exit_code, spent_s)


def _round_trip(link: Link) -> Finding:
    """Time requests that the host program answers at once; the first also starts it, and may send it."""
    times_s = []
    for _ in range(PINGS + 1):
        begun = time.monotonic()
        link.call(messages.HELLO({}))
        times_s.append(time.monotonic() - begun)
    seen = f"{statistics.median(times_s[1:]) * 1000:.1f} ms; the host program starts in {times_s[0]:.2f} s"
    return Finding("round trip", "ok", seen, seconds=sum(times_s))
