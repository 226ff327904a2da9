"""Provide Fabric's Connection over the user's own OpenSSH.

Fabric's client is paramiko, with a policy that accepts any host key (fabric#1804, #2071) and never reads
known_hosts. Here Fabric is the API and ssh is the transport: `run`, `sudo`, `shell`, `cd`, `prefix`, `local`,
`get`, `put` and groups work as documented, over the shared master; paramiko is never opened.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import fabric
from fabric.runners import Result as RunResult
from fabric.transfer import Result as TransferResult
from invoke.runners import Local

from remote_tools.errors import PermissionDenied, TransferError, UnavailableError
from remote_tools.ssh.login_shell import MARK
from remote_tools.ssh.master import Destination, Master, quote


def quote_path(path: str) -> str:
    """Quote a path for the host's shell, which still expands a leading ~; protect a leading -."""
    home, slash, rest = path.partition("/")
    if home == "~":
        return home + slash + (quote(rest) if rest else "")
    return quote(f"./{path}" if path.startswith("-") else path)


def _after_mark(stream: IO[bytes]) -> bytes:
    """Read past what the host's shell prints as it starts; return what was read of the rest."""
    found, mark = b"", f"{MARK}\n".encode()
    while mark not in found:
        data = stream.read(65536)
        if not data:
            return b""
        found += data
    return found.partition(mark)[2]


class Ssh(Local):
    """Run a command on a Connection's host, by a local `ssh` with the command as its last argument."""

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:  # noqa: ARG002
        """Start ssh; set variables by env(1): sshd rejects them, and not every login shell has `export`."""
        if env:
            values = " ".join(f"{name}={quote(str(value))}" for name, value in env.items())
            command = f"exec env {values} $SHELL -c {quote(command)}"
        # At INFO, ssh prints to this terminal that the shared connection is closed (mux.c).
        terminal = ["-tt", "-o", "LogLevel=ERROR"] if self.using_pty else ["-T"]
        master = self.context.master
        master.open()
        words = [*master.words(), *terminal, "--", master.destination.alias, command]
        super().start("exec " + shlex.join(words), "/bin/sh", dict(os.environ))

    def generate_env(self, env: dict[str, Any], replace_env: bool) -> dict[str, Any]:  # noqa: ARG002
        """Return only the requested variables, without this machine's environment."""
        return env

    def generate_result(self, **kwargs: Any) -> RunResult:
        """Put the Connection into the result, as Fabric does."""
        return RunResult(connection=self.context, **kwargs)


class Connection(fabric.Connection):
    """A `fabric.Connection` whose transport is OpenSSH over a shared master.

    Args:
        host: the destination as after `ssh`: an alias, a name, `user@name`.
        ssh_options: options for ssh's command line.
        master: an existing master for the host; None creates one.
        kwargs: as for `fabric.Connection`; put a gateway or key into ~/.ssh/config.
    """

    def __init__(
        self, host: str, ssh_options: tuple[str, ...] = (), master: Master | None = None, **kwargs: Any
    ) -> None:
        """Set the host; do not connect."""
        super().__init__(host, **kwargs)
        self._take(master or self._master(host, ssh_options, **kwargs))

    def _master(self, host: str, ssh_options: tuple[str, ...], **kwargs: Any) -> Master:
        """Create the master for a host in Fabric's form, which may contain a user and a port."""
        shorthand = self.derive_shorthand(host)
        user, port = kwargs.get("user") or shorthand["user"], kwargs.get("port") or shorthand["port"]
        alias = f"{user}@{shorthand['host']}" if user else shorthand["host"]
        options = (*ssh_options, "-p", str(port)) if port else ssh_options
        return Master(Destination(alias, options))

    @classmethod
    def over(cls, master: Master) -> Connection:
        """Create a Connection over an existing master."""
        return cls(master.destination.alias, master=master)

    def _take(self, master: Master) -> None:
        """Use `master`; take user and port from `ssh -G`, and the alias as the host."""
        resolved = master.resolved
        self._set(master=master, host=master.destination.alias.rpartition("@")[2])
        self._set(user=resolved.get("user", self.user), port=int(resolved.get("port") or 22))

    @property
    def is_connected(self) -> bool:
        """Return whether the shared master is open."""
        return bool(self.master.is_open())

    def open(self) -> None:
        """Open the shared master if it is not open."""
        self.master.open()

    def close(self) -> None:
        """Do nothing: the master is shared, and ends when it was unused for `persist_s`."""

    def _remote_runner(self) -> Ssh:
        return Ssh(self)

    def shell(self, **kwargs: Any) -> RunResult:
        """Open an interactive login shell."""
        return self.run("exec $SHELL -l", pty=True, **kwargs)

    def get(
        self, remote: str, local: str | IO[bytes] | None = None, preserve_mode: bool = True
    ) -> TransferResult:
        """Copy one file from the host, atomically.

        Args:
            remote: the path on the host; relative to the home folder.
            local: a path, in which {host}, {user}, {port}, {dirname} and {basename} are replaced, and a
                trailing / means a folder; or a file object. None: the current folder.
            preserve_mode: copy the file's mode.

        Raises:
            TransferError: the file cannot be read on the host or written here.
        """
        result = {"remote": remote, "orig_remote": remote, "orig_local": local, "connection": self}
        if local is not None and not isinstance(local, str):
            self._copy(f"cat -- {quote_path(remote)}", target=local)
            return TransferResult(local=local, **result)
        folder, _, name = remote.rpartition("/")
        places = {"host": self.host, "user": self.user, "port": self.port}
        given = (local or name).format(**places, dirname=folder, basename=name)
        target = Path(given, name) if given.endswith("/") or Path(given).is_dir() else Path(given)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._receive(remote, target, preserve_mode)
        except OSError as error:
            raise TransferError("copy", f"cannot write {target}: {error.strerror}") from error
        return TransferResult(local=str(target.absolute()), **result)

    def _receive(self, remote: str, target: Path, preserve_mode: bool) -> None:
        path = quote_path(remote)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as part:
            try:
                self._copy(f"cat -- {path}", target=part)
                if preserve_mode:
                    Path(part.name).chmod(int(self._ask(f"stat -L -c %a -- {path}"), 8))
                Path(part.name).replace(target)
            except BaseException:
                Path(part.name).unlink()
                raise

    def put(
        self, local: str | IO[bytes], remote: str | None = None, preserve_mode: bool = True
    ) -> TransferResult:
        """Copy one file to the host, atomically.

        Args:
            local: a path, or a file object to read from.
            remote: a path or an existing folder on the host, relative to the home folder. None: the home
                folder.
            preserve_mode: copy the mode of a local path.

        Raises:
            TransferError: the file cannot be read here or written on the host.
            ValueError: `local` has no name, and `remote` is not given.
        """
        name = Path(local if isinstance(local, str) else str(getattr(local, "name", ""))).name
        given = remote or name
        if not given:
            raise ValueError("a file object with no name needs a remote path")
        folder_test = f"test -d {quote_path(given)} && echo yes || echo no"
        target = str(PurePosixPath(given, name)) if self._ask(folder_test) == "yes" else given
        part = quote_path(f"{target}.{secrets.token_hex(4)}.part")
        # A second command, sent only after the first one has succeeded: then every byte has arrived.
        finish = f"mv -f -- {part} {quote_path(target)}"
        try:
            if isinstance(local, str):
                with Path(local).open("rb") as source:
                    mode = os.fstat(source.fileno()).st_mode & 0o777
                    self._copy(f"cat > {part}", source=source)
                finish = f"chmod {mode:o} -- {part} && {finish}" if preserve_mode else finish
            else:
                self._copy(f"cat > {part}", source=local)
        except BaseException as error:
            self.run(f"rm -f -- {part}", hide=True, warn=True, in_stream=False)
            if isinstance(error, OSError):
                raise TransferError("copy", f"cannot read {local}: {error.strerror}") from error
            raise
        self._copy(finish)
        return TransferResult(
            local=local, orig_local=local, remote=target, orig_remote=remote, connection=self
        )

    def _ask(self, command: str) -> str:
        said = self.run(f"echo {MARK}; {command}", hide=True, in_stream=False).stdout
        return str(said).partition(MARK)[2].strip()

    def _copy(self, command: str, source: IO[bytes] | None = None, target: IO[bytes] | None = None) -> None:
        """Run a command with its streams connected to files; Invoke's runner would keep output in memory."""
        self.master.open()
        words = [*self.master.words(), "-T", "--", self.master.destination.alias]
        words += [f"echo {MARK}; {command}" if target else command]
        with (
            tempfile.TemporaryFile() as stderr,
            subprocess.Popen(
                words,
                stdin=subprocess.PIPE if source else subprocess.DEVNULL,
                stdout=subprocess.PIPE if target else subprocess.DEVNULL,
                stderr=stderr,
                bufsize=0,
            ) as process,
        ):
            if source is not None and process.stdin is not None:
                with suppress(BrokenPipeError):
                    shutil.copyfileobj(source, process.stdin)
                process.stdin.close()
            if target is not None and process.stdout is not None:
                target.write(_after_mark(process.stdout))
                shutil.copyfileobj(process.stdout, target)
            code = process.wait()
            stderr.seek(0)
            text = stderr.read().decode(errors="replace").strip()
        if code:
            kind = PermissionDenied if "Permission denied" in text else TransferError
            raise kind("copy", f"{self.master.destination.alias}: {text}")

    def _not_over_openssh(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnavailableError(
            "connect", "Connection does not support this: it has no paramiko", "use ssh's -L, -R or sftp"
        )

    create_session = forward_local = forward_remote = sftp = _not_over_openssh


class ThreadingGroup(fabric.ThreadingGroup):
    """A `fabric.ThreadingGroup` of our Connections: `ThreadingGroup("trn1", "trn2").run("uname")`."""

    def __init__(self, *hosts: str, **kwargs: Any) -> None:
        """Set the hosts; do not connect."""
        super().__init__()
        self.extend(Connection(host, **kwargs) for host in hosts)
