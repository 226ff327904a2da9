"""Provide Fabric's Connection over the user's own OpenSSH.

Fabric's client is paramiko, with a policy that accepts any host key (fabric#1804, #2071) and never reads
known_hosts. Here Fabric is the API and ssh is the transport: `run`, `sudo`, `shell`, `cd`, `prefix`, `local`,
`get`, `put` and groups work as documented, over the shared master; paramiko is never opened.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import fabric
from fabric.runners import Result as RunResult
from fabric.transfer import Result as TransferResult
from invoke.runners import Local

from remote_tools.errors import PermissionDenied, RemoteError, TransferError, UnavailableError
from remote_tools.settings.whole_file import replacement
from remote_tools.ssh.captured import Kept, capture
from remote_tools.ssh.login_shell import MARK, not_run, quoted, read_past_mark
from remote_tools.ssh.master import Destination, Master, quote
from remote_tools.ssh.variables import Variables


def quote_path(path: str) -> str:
    """Quote a path for the host's shell, which still expands a leading ~; protect a leading -."""
    home, slash, rest = path.partition("/")
    if home == "~":
        return home + slash + (quote(rest) if rest else "")
    return quote(f"./{path}" if path.startswith("-") else path)


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder, or a link of the user's own to one; others may plant links."""
    return path.is_dir() and (not path.is_symlink() or path.lstat().st_uid == os.getuid())


def _receive(stream: IO[bytes], target: IO[bytes]) -> bool:
    """Copy what comes after the mark; return whether it came."""
    first = read_past_mark(stream)
    if first is None:
        return False
    target.write(first)
    shutil.copyfileobj(stream, target)
    return True


class Ssh(Local):
    """Run a command on a Connection's host, by a local `ssh` with the command as its last argument."""

    _variables: Variables | None = None

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:  # noqa: ARG002
        """Start ssh; variables travel apart, see `variables`."""
        # At INFO, ssh prints to this terminal that the shared connection is closed (mux.c).
        terminal = ["-tt", "-o", "LogLevel=ERROR"] if self.using_pty else ["-T"]
        master = self.context.master
        master.open()
        if env:
            self._variables = Variables(master, env)
            command = self._variables.before(command)
        words = [*master.words(), *terminal, "--", master.destination.alias, command]
        super().start("exec " + shlex.join(words), "/bin/sh", dict(os.environ))

    def stop(self) -> None:
        """End what the command's end leaves here."""
        super().stop()
        if self._variables:
            self._variables.close()

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
            preserve_mode: copy the file's mode, less the umask; never set-user-ID and the like.

        Raises:
            TransferError: the file cannot be read on the host or written here.
        """
        result = {"remote": remote, "orig_remote": remote, "orig_local": local, "connection": self}
        if local is not None and not isinstance(local, str):
            self._copy(f"cat -- {quote_path(remote)}", target=local)
            return TransferResult(local=local, **result)
        folder, _, name = remote.rpartition("/")
        places = {"host": self.host, "user": self.user, "port": self.port}
        given = local.format(**places, dirname=folder, basename=name) if local else name
        target = Path(given, name) if given.endswith("/") or _is_folder(Path(given)) else Path(given)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            mode = self._mode_of(remote) if preserve_mode else 0o600
            with replacement(target, mode) as part:
                self._copy(f"cat -- {quote_path(remote)}", target=part)
        except OSError as error:
            raise TransferError("copy", f"cannot write {target}: {error.strerror}") from error
        return TransferResult(local=str(target.absolute()), **result)

    def _mode_of(self, remote: str) -> int:
        """Return the mode of a file on the host; what the host says may be anything."""
        said = self._ask(f"stat -L -c %a -- {quote_path(remote)}")
        if not re.fullmatch("[0-7]{1,4}", said):
            raise TransferError("copy", f"{self.host} names no mode of {remote}: {quoted(said.encode())}")
        return int(said, 8)

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
        part = quote_path(str(PurePosixPath(target).parent / f".remote-{secrets.token_hex(8)}.part"))
        # A second command, sent only after the first one has succeeded: then every byte has arrived. Until
        # then nobody else can read it; `=rw` is the mode that the umask there leaves.
        move, mode_text = f"mv -f -- {part} {quote_path(target)}", "'=rw'"
        try:
            if isinstance(local, str):
                with Path(local).open("rb") as source:
                    mode = os.fstat(source.fileno()).st_mode & 0o777
                    self._copy(f"umask 077; cat > {part}", source=source)
                mode_text = f"{mode:o}" if preserve_mode else mode_text
            else:
                self._copy(f"umask 077; cat > {part}", source=local)
        except BaseException as error:
            with suppress(RemoteError):
                self._copy(f"rm -f -- {part}")
            if isinstance(error, OSError):
                raise TransferError("copy", f"cannot read {local}: {error.strerror}") from error
            raise
        self._copy(f"chmod {mode_text} -- {part} && {move}")
        return TransferResult(
            local=local, orig_local=local, remote=target, orig_remote=remote, connection=self
        )

    def _ssh(self, command: str) -> list[str]:
        self.master.open()
        return [*self.master.words(), "-T", "--", self.master.destination.alias, command]

    def _ask(self, command: str) -> str:
        """Return what a command prints."""
        done = capture(self._ssh(f"echo {MARK}; {command}"))
        self._check(done.code, done.stderr)
        return done.stdout.decode(errors="replace").partition(MARK)[2].strip()

    def _copy(self, command: str, source: IO[bytes] | None = None, target: IO[bytes] | None = None) -> None:
        """Run a command with its streams connected to files; Invoke's runner would keep output in memory."""
        with subprocess.Popen(
            self._ssh(f"echo {MARK}; {command}" if target else command),
            stdin=subprocess.PIPE if source else subprocess.DEVNULL,
            stdout=subprocess.PIPE if target else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as process:
            assert process.stderr is not None
            errors, ran = Kept(process.stderr), True
            try:
                if source is not None and process.stdin is not None:
                    with suppress(BrokenPipeError):
                        shutil.copyfileobj(source, process.stdin)
                    process.stdin.close()
                if target is not None and process.stdout is not None:
                    ran = _receive(process.stdout, target)
            except BaseException:
                process.kill()
                raise
            if not ran:
                process.kill()
            code = process.wait()
            said = errors.data()
        if not ran:
            raise not_run(self.master.destination.alias, quoted(said))
        self._check(code, said)

    def _check(self, code: int, stderr: bytes) -> None:
        """Raise the error of a command that failed."""
        if code:
            kind = PermissionDenied if b"Permission denied" in stderr else TransferError
            raise kind("copy", f"{self.master.destination.alias}: {quoted(stderr)}")

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
