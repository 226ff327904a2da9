"""Start and stop the sandbox: an OpenSSH server on this machine with its own keys and home folder.

All its files are in one folder. `~/.ssh` is neither read nor written. Only this user can log in, and the home
folder is `<root>/home`, so that a run there does not touch this machine's files.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from remote_tools.errors import PermissionDenied, SoftwareError, UnavailableError
from remote_tools.settings.state_folder import make_private
from remote_tools.settings.whole_file import write_whole
from remote_tools.setup import processes

ALIAS = "sandbox"
MARK = "REMOTE_SANDBOX"
START_TIMEOUT_S = 10.0
STOP_PATIENCE_S = 1.0
SBIN = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin"
LIBEXEC = "/usr/lib/openssh:/usr/libexec/openssh:/usr/libexec:/usr/lib/ssh:/opt/homebrew/libexec"

# sshd changes to the account's home folder, whatever HOME is; relative paths of rsync and sftp start there.
ENTER = """\
cd || exit
if [ -z "${SSH_ORIGINAL_COMMAND-}" ]; then exec "$SHELL" -l; fi
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND
exec "$SHELL" -c "$command"
"""


@dataclass(frozen=True)
class Sandbox:
    """A running server; `ssh -F {ssh_config} {host_alias}` logs in to it.

    Attributes:
        root: the folder with all its files.
        port: its port on 127.0.0.1.
        pid: the listening sshd.
    """

    root: Path
    port: int
    pid: int
    host_alias: str = ALIAS

    @property
    def home(self) -> Path:
        """Return the host's home folder."""
        return self.root / "home"

    @property
    def ssh_config(self) -> Path:
        """Return the client configuration with the host; ssh reads no other one."""
        return self.root / "ssh_config"

    @property
    def identity(self) -> Path:
        """Return the private key that the server accepts."""
        return self.root / "user_key"

    @property
    def known_hosts(self) -> Path:
        """Return the file with the server's public key."""
        return self.root / "known_hosts"

    @property
    def log(self) -> Path:
        """Return sshd's log; restarts append to it."""
        return self.root / "sshd.log"


def up(root: Path, server_lines: Sequence[str] = (), port: int = 0) -> Sandbox:
    """Start the server, or return the one that runs, unchanged.

    Args:
        root: its folder; created if missing. Existing keys and home are used again.
        server_lines: lines of sshd_config(5) to put before our own (AcceptEnv, MaxSessions).
        port: the port to listen on; 0 chooses a free one.

    Raises:
        PermissionDenied: the folder is a link or another account's, who could give it other keys.
        UnavailableError: this machine has no OpenSSH server.
        SoftwareError: sshd did not start; the message ends with its log.
    """
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        make_private(root, root.parent)
    except OSError as error:
        raise PermissionDenied("sandbox", f"{root}: {error.strerror}") from error
    with _lock(root):
        running = status(root)
        if running:
            return running
        sshd = _program("sshd")
        _make_keys(root)
        (root / "home").mkdir(exist_ok=True)
        write_whole(root / "enter", ENTER.encode())
        sandbox = _start(sshd, root, server_lines, port)
        _write_client_files(sandbox)
        return sandbox


def status(root: Path) -> Sandbox | None:
    """Return the server that `up` started in this folder; None if it does not run."""
    try:
        running = json.loads((root / "running.json").read_text())
        pid, port, started_s = int(running["pid"]), int(running["port"]), float(running["started_s"])
        runs = processes.started_at(pid, started_s)
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None  # none was started, or the file is damaged
    return Sandbox(root.absolute(), port, pid) if runs else None


def down(root: Path) -> bool:
    """Stop the server and all processes started through it; keep its files.

    Returns:
        Whether any of them was running.
    """
    root = root.absolute()
    if not root.is_dir():
        return False
    with _lock(root):
        _stop_masters(root)
        running = status(root)
        stopped = processes.stop(_processes(root, running), STOP_PATIENCE_S)
        if running:
            _reap(running.pid)
        (root / "running.json").unlink(missing_ok=True)
        return bool(stopped)


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Lock the folder: only one `up` or `down` runs at a time."""
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _program(name: str) -> str:
    """Return the full path of a program, also outside a user's PATH; sshd requires its full path."""
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    if not found:
        raise UnavailableError(
            "sandbox", f"this machine has no {name}", "./inv --version installs what is missing"
        )
    return found


def _make_keys(root: Path) -> None:
    for name in ("host_key", "user_key"):
        if not (root / name).exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", MARK, "-f", str(root / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    write_whole(root / "authorized_keys", (root / "user_key.pub").read_bytes())


def _start(sshd: str, root: Path, server_lines: Sequence[str], port: int) -> Sandbox:
    """Start sshd; retry with another port if a process took the free one meanwhile."""
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd needs it; its service creates it
    config, pid_file = root / "sshd_config", root / "sshd.pid"
    for _attempt in range(1 if port else 3):
        chosen = port or _free_port()
        write_whole(config, _server_config(root, chosen, server_lines).encode())
        pid_file.unlink(missing_ok=True)
        pid = _spawn([sshd, "-D", "-f", str(config), "-E", str(root / "sshd.log")])
        if _listens(pid, pid_file):
            running = {"pid": pid, "port": chosen, "started_s": processes.started(pid)}
            write_whole(root / "running.json", json.dumps(running).encode("ascii"))
            return Sandbox(root, chosen, pid)
        _reap(pid)
    log = root / "sshd.log"
    last = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    raise SoftwareError(
        "sandbox", "\n  ".join([f"sshd did not start on port {chosen}:", *last]), f"see {log}"
    )


def _spawn(command: list[str]) -> int:
    """Start a process in its own session, so that the terminal's Ctrl-C does not reach it."""
    streams = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(command[0], command, {"PATH": os.defpath}, file_actions=streams, setsid=True)


def _reap(pid: int) -> None:
    """Reap a server that has ended, if this process started it."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _listens(pid: int, pid_file: Path) -> bool:
    """Wait until sshd has ended or written its pid file, which it does after it has bound its port."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and processes.started(pid):
        with suppress(FileNotFoundError):
            if pid_file.read_text().strip() == str(pid):
                return True
        time.sleep(0.005)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server_config(root: Path, port: int, server_lines: Sequence[str]) -> str:
    """Compose sshd_config(5); sshd uses the first line of a keyword."""
    sftp_server = shutil.which("sftp-server", path=LIBEXEC)
    enter = f"/bin/sh {shlex.quote(str(root / 'enter'))}"
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        "SetEnv "
        + " ".join(
            _quoted(f"{name}={value}")
            for name, value in {
                "HOME": f"{root}/home",
                "REMOTE_DEVICE_LOCK": f"{root}/device.lock",  # apart from this machine's own lock
                MARK: root,
            }.items()
        ),
        f"HostKey {_quoted(root / 'host_key')}",
        f"PidFile {_quoted(root / 'sshd.pid')}",
        *server_lines,
        f"AuthorizedKeysFile {_quoted(root / 'authorized_keys', tokens=True)}",
        f"AllowUsers {_user()}",
        "StrictModes no",  # others may be able to write to a parent directory, such as /tmp
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        f"UsePAM {'yes' if _is_locked(_user()) else 'no'}",
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",
        "MaxStartups 100",
        *(["PerSourcePenalties no"] if _openssh_version() >= (9, 8) else []),
        "LogLevel VERBOSE",
        *([f"Subsystem sftp {sftp_server}"] if sftp_server else []),
        f"ForceCommand {enter}",
    ]
    return "\n".join(lines) + "\n"


def _write_client_files(sandbox: Sandbox) -> None:
    """Write the server's public key, and an ssh_config that uses none of the user's files."""
    key = (sandbox.root / "host_key.pub").read_text()
    names = ",".join(f"[{name}]:{sandbox.port}" for name in ("127.0.0.1", "localhost", "::1"))
    write_whole(sandbox.known_hosts, f"{names} {key}".encode())
    text = (
        f"Host {ALIAS}\n"
        f"    HostName 127.0.0.1\n"
        f"    Port {sandbox.port}\n"
        f"    User {_user()}\n"
        f"    IdentityFile {_quoted(sandbox.identity, tokens=True)}\n"
        f"    IdentitiesOnly yes\n"
        f"    IdentityAgent none\n"
        f"    UserKnownHostsFile {_quoted(sandbox.known_hosts, tokens=True)}\n"
        f"    GlobalKnownHostsFile /dev/null\n"
        f"    StrictHostKeyChecking yes\n"
    )
    write_whole(sandbox.ssh_config, text.encode())


def _stop_masters(root: Path) -> None:
    """End the shared masters with sockets in this folder; other masters end with their connection."""
    for folder, names, files in os.walk(root):
        if folder == str(root) and "home" in names:
            names.remove("home")
        for path in (Path(folder, file) for file in files):
            if stat.S_ISSOCK(path.lstat().st_mode):
                exit_master = ["ssh", "-F", "/dev/null", "-S", str(path), "-O", "exit", ALIAS]
                with suppress(subprocess.TimeoutExpired):
                    subprocess.run(exit_master, capture_output=True, stdin=subprocess.DEVNULL, timeout=2)
                path.unlink(missing_ok=True)


def _processes(root: Path, running: Sandbox | None) -> Iterable[psutil.Process]:
    """Return the listening sshd, its sessions, and what they left running: all have our variable."""
    seeds = set(processes.marked(MARK, str(root)))
    if running:
        with suppress(psutil.NoSuchProcess):
            seeds.add(psutil.Process(running.pid))
    return processes.family(seeds - {psutil.Process()})


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _is_locked(user: str) -> bool:
    """Return whether an account's password is locked, as root's on Ubuntu; it can log in only with PAM."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except (PermissionError, FileNotFoundError):
        return False  # an sshd of this account cannot read it either
    return any(line.startswith(f"{user}:!") for line in lines)


def _openssh_version() -> tuple[int, int]:
    """Return the version of ssh, which is also sshd's; sshd had no -V before 9.2."""
    output = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _quoted(value: object, tokens: bool = False) -> str:
    """Quote one word for ssh_config(5) and sshd_config(5); `tokens` if they expand %-sequences in it."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + (text.replace("%", "%%") if tokens else text) + '"'
