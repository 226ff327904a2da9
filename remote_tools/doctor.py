"""Try every capability that the loop needs, from ssh's configuration to the host's cache, each for real."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_tools import probe
from remote_tools.errors import RemoteError
from remote_tools.session import Link
from remote_tools.settings import Settings
from remote_tools.ssh import Destination, Master, diagnose

SLOW_SHELL_S = 2.0
PINGS = 5


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        name: the capability.
        state: `ok`, `warning` (a run would go on) or `failure`.
        seen: what was tried, and what came of it.
        seconds: how long that took.
        hint: the command that mends it.
        code: the exit code of a run that needs it.
    """

    name: str
    state: str
    seen: str
    seconds: float = 0.0
    hint: str = ""
    code: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def examine(settings: Settings, say: Callable[[str], None]) -> Iterator[Finding]:
    """Yield findings as they are made; where a stage fails, those that build on it are left out.

    Args:
        settings: of the host.
        say: prints one line to the user.
    """
    yield from map(_finding, probe.examine({"rsync here": probe.rsync_works}, {}))
    destination = Destination(
        settings.host,
        settings.ssh_options,
        settings.connect_timeout_s,
        settings.timeout_s,
        settings.persist_s,
    )
    master = Master(destination)
    for check in (_configuration, _name, _port, _login, _shell, _shared):
        try:
            found = list(_timed(check, master))
        except RemoteError as error:
            found = [_failure(check.__name__.strip("_"), error)]
        yield from found
        if any(finding.state == "failure" for finding in found):
            return
    link = Link(destination, settings.code_path, say)
    try:
        yield from _beyond_ssh(link, settings)
    except RemoteError as error:
        yield _failure("host program", error)
    finally:
        link.close()


def exit_code(findings: list[Finding], strict: bool) -> int:
    """Return 0, 1 for warnings where that is asked for, or the first failure's code."""
    for finding in findings:
        if finding.state == "failure":
            return finding.code
    return int(strict and any(finding.state == "warning" for finding in findings))


Check = Callable[[Master], Iterator[Finding]]


def _timed(check: Check, master: Master) -> Iterator[Finding]:
    begun = time.monotonic()
    for finding in check(master):
        spent = finding.seconds or time.monotonic() - begun
        yield Finding(finding.name, finding.state, finding.seen, spent, finding.hint, finding.code)


def _failure(name: str, error: RemoteError) -> Finding:
    return Finding(name, "failure", error.reason, 0.0, error.hint, error.exit_code)


def _finding(row: dict[str, Any]) -> Finding:
    """Read a row of `probe.examine`; one without an exit code stops no run."""
    state = "ok" if row["ok"] else "failure" if row["code"] else "warning"
    return Finding(row["name"], state, row["seen"], row["seconds"], row["hint"], row["code"])


# Stages of reaching the host --------------------------------------------------------------------------------


def _configuration(master: Master) -> Iterator[Finding]:
    """Ask ssh what it makes of the destination."""
    found = master.resolved
    way = found.get("proxyjump") or found.get("proxycommand") or "none"
    by = f" by {way}" if way != "none" else ""
    yield Finding("ssh config", "ok", f"{found['user']}@{found['hostname']} port {found['port']}{by}")


def _direct(master: Master) -> bool:
    return all(master.resolved.get(key, "none") == "none" for key in ("proxyjump", "proxycommand"))


def _name(master: Master) -> Iterator[Finding]:
    """Look the name up, where this machine has to."""
    if not _direct(master):
        yield Finding("name", "ok", "looked up by the jump host")
        return
    host = master.resolved["hostname"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        hint = f"correct HostName, or add `Host {master.destination.alias}` to ~/.ssh/config"
        yield Finding("name", "failure", f"{host}: {error.strerror}", 0.0, hint, 68)
        return
    yield Finding("name", "ok", f"{host} is {found[0][4][0]}")


def _port(master: Master) -> Iterator[Finding]:
    """Open a TCP connection and read the server's greeting."""
    if not _direct(master):
        yield Finding("port", "ok", "reached by the jump host")
        return
    where = master.resolved["hostname"], int(master.resolved["port"])
    try:
        with socket.create_connection(where, master.destination.connect_timeout_s) as connection:
            connection.settimeout(master.destination.connect_timeout_s)
            greeting = connection.recv(255).split(b"\n")[0].decode("ascii", "replace").strip()
    except OSError as error:
        hint = "is the machine up, its sshd running, its firewall open to you?"
        yield Finding(
            "port", "failure", f"{where[0]} port {where[1]}: {error.strerror or error}", 0.0, hint, 68
        )
        return
    if not greeting.startswith("SSH-"):
        seen = f"{where[0]} port {where[1]} is no ssh server: {greeting[:40]!r}"
        yield Finding("port", "failure", seen, 0.0, "correct Port in ~/.ssh/config", 68)
        return
    yield Finding("port", "ok", greeting)


def _login(master: Master) -> Iterator[Finding]:
    """Log in over a connection of its own, and read from ssh's own words how far it came."""
    alias = master.destination.alias
    words = ["ssh", "-v", *master.destination.options, "-o", "ControlPath=none", "-o", "BatchMode=yes"]
    words += ["-o", f"ConnectTimeout={int(master.destination.connect_timeout_s)}", "--", alias, "true"]
    begun = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    seconds = time.monotonic() - begun
    key = re.search(r"Server host key: (.+)", done.stderr)
    way = re.search(r"Authenticated to \S+ .*using \"(.+?)\"", done.stderr)
    if way is None:
        error = diagnose(done.stderr, alias, master.resolved.get("hostname", alias))
        # The host key is checked before any key of ours is offered (RFC 4252, 1).
        offered = "Authentications that can continue" in done.stderr or "Permission denied" in error.reason
        if offered:
            yield Finding("host key", "ok", key.group(1) if key else "known")
        name = "authentication" if offered else "host key"
        hint = f"ssh {alias}; ssh-add -l shows your agent's keys" if offered else error.hint
        yield Finding(name, "failure", error.reason, seconds, hint, error.exit_code)
        return
    yield Finding("host key", "ok", key.group(1) if key else "known")
    yield Finding("authentication", "ok", f"by {way.group(1)}", seconds)


def _shell(master: Master) -> Iterator[Finding]:
    """Start a shell there; see what it prints before it does as it is told, and how long that takes."""
    master.open()
    mark = "remote-tools-mark"
    words = [*master.words(), "-T", "--", master.destination.alias, f"echo {mark}"]
    begun = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    seconds = time.monotonic() - begun
    noise, found, _ = done.stdout.partition(mark)
    if not found:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        hint = f"the account's login shell must run commands: ssh {master.destination.alias} echo it"
        yield Finding("shell", "failure", said, seconds, hint, 69)
    elif noise:
        hint = "print nothing from ~/.bashrc unless it is interactive: [[ $- == *i* ]] || return"
        yield Finding("shell", "warning", f"prints at start: {noise.strip()[:60]!r}", seconds, hint)
    elif seconds > SLOW_SHELL_S:
        hint = "its start-up files are slow: every command waits for them"
        yield Finding("shell", "warning", f"starts in {seconds:.1f} s", seconds, hint)
    else:
        yield Finding("shell", "ok", "starts silently", seconds)


def _shared(master: Master) -> Iterator[Finding]:
    """Have two sessions at once over the master."""
    words = [*master.words(), "-v", "-T", "--", master.destination.alias]
    quiet: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*words, "echo; cat"], stderr=subprocess.DEVNULL, **quiet) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = subprocess.run(
            [*words, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        first.communicate()
    if second.returncode or "session request failed" in second.stderr or not master.is_open():
        hint = "its sshd has MaxSessions 1: transfers beside a run cost a login each (the default is 10)"
        yield Finding("shared master", "warning", "one session at a time", 0.0, hint)
        return
    yield Finding("shared master", "ok", str(master.control_path))


# Beyond ssh -------------------------------------------------------------------------------------------------


def _beyond_ssh(link: Link, settings: Settings) -> Iterator[Finding]:
    """Ask the host program: first how far it is, then to try the rest itself."""
    times_s = []
    for _ in range(PINGS + 1):
        begun = time.monotonic()
        records = link.call("list")["runs"]
        times_s.append(time.monotonic() - begun)
    yield Finding("round trip", "ok", f"{statistics.median(times_s[1:]) * 1000:.1f} ms", times_s[0])
    reply = link.call(
        "probe",
        venv_path=settings.venv_path,
        python=settings.python,
        cache_dir=settings.cache_dir,
        lock=probe.digest(str(Path(settings.root) / "requirements.lock")),
        runs=records,
        now=time.time(),
    )
    yield from map(_finding, reply["checks"])
