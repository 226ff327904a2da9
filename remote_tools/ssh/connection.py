"""Fabric's Connection, over the user's own OpenSSH.

Fabric's client is paramiko with a policy that accepts any host key (fabric#1804, #2071) and that never reads
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
from remote_tools.ssh.master import Destination, Master, quote


def there(path: str) -> str:
    """Quote a path for the host's shell, leaving a leading ~ to it; a leading - is no option then."""
    home, slash, rest = path.partition("/")
    if home == "~":
        return home + slash + (quote(rest) if rest else "")
    return quote(f"./{path}" if path.startswith("-") else path)


class Ssh(Local):
    """Run a command on a Connection's host: a local `ssh` that has it as its last word."""

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:  # noqa: ARG002
        """Start ssh; sshd takes no environment by default, and not every login shell has `export`."""
        if env:
            values = " ".join(f"{name}={quote(str(value))}" for name, value in env.items())
            command = f"exec env {values} $SHELL -c {quote(command)}"
        # At INFO, ssh says that the shared connection is closed, into the very terminal (mux.c).
        terminal = ["-tt", "-o", "LogLevel=ERROR"] if self.using_pty else ["-T"]
        master = self.context.master
        master.open()
        words = [*master.words(), *terminal, "--", master.destination.alias, command]
        super().start("exec " + shlex.join(words), "/bin/sh", dict(os.environ))

    def generate_env(self, env: dict[str, Any], replace_env: bool) -> dict[str, Any]:  # noqa: ARG002
        """Return only what was asked for: this machine's environment stays here."""
        return env

    def generate_result(self, **kwargs: Any) -> RunResult:
        """Name the Connection in the result, as Fabric does."""
        return RunResult(connection=self.context, **kwargs)


class Connection(fabric.Connection):
    """A `fabric.Connection` whose transport is OpenSSH over a shared master.

    Args:
        host: what one would type after `ssh`: an alias, a name, `user@name`.
        ssh_options: words for ssh's command line.
        master: one that is there already, and that knows how to reach the host; None makes one.
        kwargs: as for `fabric.Connection`; a gateway or key belongs into ~/.ssh/config.
    """

    def __init__(
        self, host: str, ssh_options: tuple[str, ...] = (), master: Master | None = None, **kwargs: Any
    ) -> None:
        """Name the host; nothing is connected."""
        super().__init__(host, **kwargs)
        self._take(master or self._master(host, ssh_options, **kwargs))

    def _master(self, host: str, ssh_options: tuple[str, ...], **kwargs: Any) -> Master:
        """Make the master for a host as Fabric takes one: with a user and a port in its name."""
        shorthand = self.derive_shorthand(host)
        user, port = kwargs.get("user") or shorthand["user"], kwargs.get("port") or shorthand["port"]
        alias = f"{user}@{shorthand['host']}" if user else shorthand["host"]
        options = (*ssh_options, "-p", str(port)) if port else ssh_options
        return Master(Destination(alias, options))

    @classmethod
    def over(cls, master: Master) -> Connection:
        """Make a Connection over a master that is there already."""
        return cls(master.destination.alias, master=master)

    def _take(self, master: Master) -> None:
        """Run over `master`; user and port are what ssh says, the host is the alias that ssh knows."""
        resolved = master.resolved
        self._set(master=master, host=master.destination.alias.rpartition("@")[2])
        self._set(user=resolved.get("user", self.user), port=int(resolved.get("port") or 22))

    @property
    def is_connected(self) -> bool:
        """Whether the shared master is open."""
        return bool(self.master.is_open())

    def open(self) -> None:
        """Open the shared master where none is open."""
        self.master.open()

    def close(self) -> None:
        """Leave the master open: it is shared, and ends by itself (`persist_s`)."""

    def _remote_runner(self) -> Ssh:
        return Ssh(self)

    def shell(self, **kwargs: Any) -> RunResult:
        """Open an interactive login shell."""
        return self.run("exec $SHELL -l", pty=True, **kwargs)

    def get(
        self, remote: str, local: str | IO[bytes] | None = None, preserve_mode: bool = True
    ) -> TransferResult:
        """Copy one file from the host; the local file appears whole or not at all.

        Args:
            remote: the path there; a relative one starts at the home folder.
            local: a path, where {host}, {user}, {port}, {dirname} and {basename} stand for what they say and
                a trailing / names a folder; or something to write to. None: here, under its own name.
            preserve_mode: take the file's mode over.

        Raises:
            TransferError: it could not be read there or written here.
        """
        result = {"remote": remote, "orig_remote": remote, "orig_local": local, "connection": self}
        if local is not None and not isinstance(local, str):
            self._copy(f"cat -- {there(remote)}", target=local)
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
        path = there(remote)
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
        """Copy one file to the host; the file there appears whole or not at all.

        Args:
            local: a path, or something to read from.
            remote: a path there, or a folder that is there; a relative one starts at the home folder.
                None: the home folder.
            preserve_mode: take the mode of a local path over.

        Raises:
            TransferError: it could not be read here or written there.
            ValueError: it has no name there.
        """
        name = Path(local if isinstance(local, str) else str(getattr(local, "name", ""))).name
        given = remote or name
        if not given:
            raise ValueError("what has no name needs a remote path")
        folder_test = f"test -d {there(given)} && echo yes || echo no"
        target = str(PurePosixPath(given, name)) if self._ask(folder_test) == "yes" else given
        part = there(f"{target}.{secrets.token_hex(4)}.part")
        # Two commands: the first one's success says that every byte arrived.
        finish = f"mv -f -- {part} {there(target)}"
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
        return str(self.run(command, hide=True, in_stream=False).stdout).strip()

    def _copy(self, command: str, source: IO[bytes] | None = None, target: IO[bytes] | None = None) -> None:
        """Run a command with its bytes piped here, past Invoke's runner, which holds output in memory."""
        self.master.open()
        words = [*self.master.words(), "-T", "--", self.master.destination.alias, command]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                words,
                stdin=subprocess.PIPE if source else subprocess.DEVNULL,
                stdout=subprocess.PIPE if target else subprocess.DEVNULL,
                stderr=said,
                bufsize=0,
            ) as process,
        ):
            if source is not None and process.stdin is not None:
                with suppress(BrokenPipeError):
                    shutil.copyfileobj(source, process.stdin)
                process.stdin.close()
            if target is not None and process.stdout is not None:
                shutil.copyfileobj(process.stdout, target)
            code = process.wait()
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if code:
            kind = PermissionDenied if "Permission denied" in text else TransferError
            raise kind("copy", f"{self.master.destination.alias}: {text}")

    def _not_over_openssh(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnavailableError(
            "connect", "this needs paramiko, which is never opened here", "use ssh's own -L, -R or sftp"
        )

    create_session = forward_local = forward_remote = sftp = _not_over_openssh


class ThreadingGroup(fabric.ThreadingGroup):
    """A `fabric.ThreadingGroup` of our Connections: `ThreadingGroup("trn1", "trn2").run("uname")`."""

    def __init__(self, *hosts: str, **kwargs: Any) -> None:
        """Name the hosts; nothing is connected."""
        super().__init__()
        self.extend(Connection(host, **kwargs) for host in hosts)
