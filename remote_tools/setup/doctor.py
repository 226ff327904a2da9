"""Test every capability that the loop needs, from ssh's configuration to the host's cache."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from remote_tools.errors import RemoteError, UnavailableError
from remote_tools.host import messages, probe
from remote_tools.host.messages import ProbeSettings, Row
from remote_tools.host.probe import Trouble
from remote_tools.runs import client, logout
from remote_tools.settings.settings import Settings
from remote_tools.ssh.link import Link
from remote_tools.ssh.login_shell import not_run, try_shell
from remote_tools.ssh.master import SSH_FAILED, Master, diagnose, quote
from remote_tools.sync import rsync
from remote_tools.sync.open_host import destination_of
from remote_tools.sync.plan import host_rsync
from remote_tools.sync.rsync_processes import run_rsync

SLOW_SHELL_S = 2.0
PINGS = 5
TRANSFER_BYTES = 200_000


@dataclass(frozen=True)
class Finding:
    """The result of one check of `inv doctor`.

    Args:
        name: the capability.
        state: `ok`, `warning` (a run would continue) or `failure`.
        seen: what the check found.
        hint: the command that fixes it.
        code: exit code of a run that needs the capability.
        seconds: duration of the check.
        by: the host whose words these are; empty if they are ours.
    """

    name: str
    state: str
    seen: str
    hint: str = ""
    code: int = 0
    seconds: float = 0.0
    by: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the finding as JSON values."""
        return asdict(self)


def examine(settings: Settings, say: Callable[[str], None]) -> Iterator[Finding]:
    """Run the checks and yield their findings; stop after a stage that fails, as the later ones need it.

    Args:
        settings: the host's settings.
        say: prints one line for the user.
    """
    destination = destination_of(settings)
    yield from map(_finding, probe.examine({"rsync here": probe.rsync_works}, "rsync"))
    route = Route(Master(destination))
    for stage in map(_finding, probe.examine(STAGES, route)):
        yield stage
        if stage.state == "failure":
            return
    link = Link(destination, settings.code_path, say)
    try:
        yield from _on_the_host(link, settings)
    finally:
        link.close()


def exit_code(findings: Sequence[Finding], strict: bool) -> int:
    """Return the first failure's code, else 1 if `strict` and there are warnings, else 0."""
    for finding in findings:
        if finding.state == "failure":
            return finding.code
    return int(strict and any(finding.state == "warning" for finding in findings))


def _finding(row: Row) -> Finding:
    """Convert a row of `probe.examine`; a failed check without an exit code is a warning."""
    state = "ok" if row["ok"] else "failure" if row["code"] else "warning"
    return Finding(row["name"], state, row["seen"], row["hint"], row["code"], row["seconds"])


# Stages of connecting: each returns what it found, returns None if it does not apply, or raises -------------


@dataclass(frozen=True)
class Login:
    """The debug messages of one login.

    Args:
        exchange: the key exchange that both sides agreed on; empty if ssh failed before.
        host_key: the server's key; empty if ssh failed before.
        method: the authentication method; empty if the login failed.
        error: the reason of a failure.
    """

    exchange: str
    host_key: str
    method: str
    error: RemoteError


@dataclass(frozen=True)
class Route:
    """The way to a host, and the result of a login."""

    master: Master

    @property
    def alias(self) -> str:
        """Return the destination as typed."""
        return self.master.destination.alias

    @cached_property
    def login(self) -> Login:
        """Log in over a new connection; ssh may ask for a passphrase if there is a terminal."""
        resolved, destination = self.master.resolved, self.master.destination
        # Not -v: the ssh of a jump host would get it too.
        ssh, *options = self.master.start()
        words = [ssh, "-o", "LogLevel=DEBUG1", *options, "-o", "ControlPath=none"]
        words += [] if sys.stdin.isatty() else ["-o", "BatchMode=yes"]
        words += ["-o", f"ConnectTimeout={int(destination.connect_timeout_s)}", "--", self.alias, "true"]
        done = _output(words)
        hidden = "" if done.returncode == SSH_FAILED else "(hidden by ssh -q)"
        patterns = "kex: algorithm: (.+)", "Server host key: (.+)", 'Authenticated to .* using "(.+?)"'
        found = (re.search(pattern, done.stderr) for pattern in patterns)
        error = diagnose(done.stderr, self.alias, resolved.get("hostname", self.alias))
        exchange, host_key, method = (one[1] if one else hidden for one in found)
        return Login(exchange, host_key, method, error)


def _output(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def _configuration(route: Route) -> str:
    """Return the destination as `ssh -G` resolves it."""
    found = route.master.resolved
    way = "" if route.master.is_direct else f" by {found.get('proxyjump') or found['proxycommand']}"
    return f"{found['user']}@{found['hostname']} port {found['port']}{way}"


def _name(route: Route) -> str | None:
    """Resolve the host's name, unless a proxy does."""
    if not route.master.is_direct:
        return None
    host = route.master.resolved["hostname"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        hint = f"correct HostName, or add `Host {route.alias}` to ~/.ssh/config"
        raise Trouble(f"{host}: {error.strerror}", hint, 68) from error
    return f"{host} is {found[0][4][0]}"


def _port(route: Route) -> str | None:
    """Open a TCP connection and read the server's greeting."""
    if not route.master.is_direct:
        return None
    where = route.master.resolved["hostname"], int(route.master.resolved["port"])
    timeout_s = route.master.destination.connect_timeout_s
    seen = f"{where[0]} port {where[1]}"
    try:
        with socket.create_connection(where, timeout_s) as connection:
            connection.settimeout(timeout_s)
            greeting = connection.recv(255).split(b"\n")[0].decode("ascii", "replace").strip()
    except OSError as error:
        hint = "check that the host is up, its sshd runs, and its firewall lets you in"
        raise Trouble(f"{seen}: {error.strerror or error}", hint, 68) from error
    if not greeting.startswith("SSH-"):
        hint = "correct Port in ~/.ssh/config"
        raise Trouble(f"{seen} is not an ssh server: {greeting[:40]!r}", hint, 68)
    return greeting


def _connection(route: Route) -> str:
    """Connect as ssh does, including proxies, and return the key exchange."""
    login = route.login
    if not login.exchange:
        raise login.error
    return login.exchange


def _host_key(route: Route) -> str:
    """Let ssh compare the server's key with known_hosts, which it does before it offers our keys."""
    login = route.login
    # The server is authenticated before it rejects a user (RFC 4252, 1).
    if not login.method and "Permission denied" not in login.error.reason:
        raise login.error
    return login.host_key


def _authentication(route: Route) -> str:
    """Return the method by which the server authenticated the user."""
    login = route.login
    if not login.method:
        raise Trouble(
            login.error.reason,
            f"ssh {route.alias}; ssh-add -l shows your agent's keys",
            login.error.exit_code,
        )
    return f"by {login.method}"


def _shell(route: Route) -> str:
    """Run a command in the login shell; check that its start-up files print nothing and are fast."""
    route.master.open()
    begun = time.monotonic()
    timeout_s = route.master.destination.timeout_s
    tried = try_shell(route.master, timeout_s)
    seconds = time.monotonic() - begun
    if tried is None or not tried.ran:
        printed = (tried.noise or f"exit code {tried.code}") if tried else f"nothing within {timeout_s:g} s"
        raise Trouble(f"runs no commands: {printed}", not_run(route.alias, "").hint, 69)
    if tried.noise:
        hint = "print nothing from ~/.bashrc unless it is interactive: [[ $- == *i* ]] || return"
        raise Trouble(f"prints at start: {tried.noise[:60]!r}", hint)
    if seconds > SLOW_SHELL_S:
        hint = f"its start-up files delay every command: ssh {route.alias} 'time true'"
        raise Trouble(f"starts in {seconds:.1f} s", hint)
    return "starts silently"


def _shared(route: Route) -> str:
    """Open two sessions at the same time over the master."""
    master = route.master
    if master.control_path is None:
        raise Trouble("its socket cannot be created", "every session logs in; set XDG_RUNTIME_DIR")
    words = [*master.words(), "-v", "-T", "--", route.alias]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*words, "echo; cat"], stdin=pipe, stdout=pipe, stderr=null) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = _output([*words, "true"])
        first.communicate()
    if second.returncode or "session request failed" in second.stderr or not master.is_open():
        hint = "its sshd has MaxSessions 1, so each transfer during a run logs in again (the default is 10)"
        raise Trouble("one session at a time", hint)
    return str(master.control_path)


def _stage(check: Callable[[Route], str | None]) -> Callable[[Route], str | None]:
    """Turn a check's `RemoteError` into the `Trouble` that `probe.examine` expects."""

    def tried(route: Route) -> str | None:
        try:
            return check(route)
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


# The checks of the host program -----------------------------------------------------------------------------


def _on_the_host(link: Link, settings: Settings) -> Iterator[Finding]:
    """Yield the round trip, and the host program's checks; one request each shows which check hangs."""
    name, well, begun = "", True, time.monotonic()
    try:
        yield _round_trip(link)
        known: ProbeSettings = {
            "venv_path": settings.venv_path,
            "python": settings.python,
            "cache_dir": settings.cache_dir,
            "rsync": host_rsync(settings.rsync_options),
            "device_lock": settings.device_lock,
            "lock": probe.digest(str(Path(settings.root) / "requirements.lock")),
            "runs": client.list_runs(link)["runs"],
        }
        for name in probe.CHECKS:
            begun = time.monotonic()
            if name == "transfer" and well:
                _push_a_file(link, settings)
            reply = link.call(messages.PROBE({**known, "check": name, "now": time.time()}))
            findings = [replace(_finding(row), by=link.alias) for row in reply["found"]]
            well &= all(finding.state != "failure" for finding in findings)
            yield from findings
        name, begun = "logout", time.monotonic()
        yield _logout(link)
    except RemoteError as error:
        spent_s = time.monotonic() - begun
        stage = name if name in ("transfer", "logout") else "host program"
        yield Finding(stage, "failure", error.reason, error.hint, error.exit_code, spent_s)


def _push_a_file(link: Link, settings: Settings) -> None:
    """Push a file as a large push does, to where our state is: the check on the host looks for it there.

    It holds what a terminal would take for commands, and is larger than what travels inside a request.

    Raises:
        RemoteError: it did not arrive; a second attempt would end in the same way.
    """
    target = f"{link.call(messages.HELLO({}))['state']}/{probe.TRANSFERRED}"
    more, shell = rsync.past_noise(link.ssh_words(), link.noise, settings.rsync_options)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\r~C\n~B\n~.\n" * (TRANSFER_BYTES // 10))
        file.flush()
        old = rsync.local_version().openrsync
        words = ["rsync", "-t", *(() if old else ("-s",)), *more, f"--rsh={rsync.rsh(shell)}", file.name]
        words.append(rsync.address(link.alias, quote(target) if old else target))
        outcome = run_rsync(words, lambda _data: None, settings.timeout_s)
    try:
        rsync.check(outcome, link.alias, "transfer", settings.timeout_s)
    except rsync.Stalled as stall:
        raise UnavailableError("transfer", str(stall), f"ssh {link.alias} rsync --version") from stall


def _logout(link: Link) -> Finding:
    """Leave a process behind, end its connection, and look for it."""
    begun = time.monotonic()
    try:
        well = logout.outlives(link)
    except RemoteError as error:
        seen, hint, state = f"a second connection: {error.reason}", error.hint, "warning"
    else:
        seen = "a process outlives its connection" if well else f"{logout.CAUSE}: a detached run too"
        hint, state = ("", "ok") if well else (logout.HINT, "warning")
    return Finding("logout", state, seen, hint, seconds=time.monotonic() - begun)


def _round_trip(link: Link) -> Finding:
    """Time some `hello` requests; the first one also starts the host program, and may have to send it."""
    times_s = []
    for _ in range(PINGS + 1):
        begun = time.monotonic()
        link.call(messages.HELLO({}))
        times_s.append(time.monotonic() - begun)
    seen = f"{statistics.median(times_s[1:]) * 1000:.1f} ms; the host program starts in {times_s[0]:.2f} s"
    return Finding("round trip", "ok", seen, seconds=sum(times_s))
