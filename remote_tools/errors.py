"""Define our errors; a remote command's own failure is its exit code, never one of them."""

from __future__ import annotations

from invoke.exceptions import Exit

from remote_tools.escape import escaped, one_line


class RemoteError(Exit):
    """End the command with a message and a sysexits code; Invoke prints no traceback for it.

    Args:
        stage: the step that failed (`connect`, `sync`, `exec`, `fetch`, `settings`).
        message: what failed and where.
        hint: what to type or look at next.

    Attributes:
        code: the process's exit code, from sysexits.h.
    """

    exit_code = 70

    def __init__(self, stage: str, message: str, hint: str = "") -> None:
        """Compose the user's message."""
        self.stage = stage
        self.reason = message
        self.hint = hint
        text = f"{stage}: {message}" + (f"\n  next: {hint}" if hint else "")
        super().__init__(message=escaped(text), code=self.exit_code)


class UsageError(RemoteError):
    """The command line is invalid (EX_USAGE)."""

    exit_code = 64


class DataError(RemoteError):
    """Data is not plausible: too many deletes, a path outside its folder (EX_DATAERR)."""

    exit_code = 65


class NoHostError(RemoteError):
    """The host is unknown or does not respond (EX_NOHOST)."""

    exit_code = 68


class UnavailableError(RemoteError):
    """A program or folder that we need is missing: rsync, python3, a venv (EX_UNAVAILABLE)."""

    exit_code = 69


class SoftwareError(RemoteError):
    """A bug of ours (EX_SOFTWARE)."""

    exit_code = 70


class TransferError(RemoteError):
    """A file cannot be read or written: full disk, read-only path (EX_IOERR)."""

    exit_code = 74


class TemporaryError(RemoteError):
    """A temporary failure, such as a lost network; a retry may succeed (EX_TEMPFAIL)."""

    exit_code = 75


class Dropped(TemporaryError):
    """The connection was lost; the request can be retried over a new one."""


class BusyError(TemporaryError):
    """Another push to the code path is in progress."""


class ProtocolError(RemoteError):
    """The host sent what the protocol does not allow (EX_PROTOCOL)."""

    exit_code = 76


class PermissionDenied(RemoteError):
    """Access was denied: key, account, path, or a changed host key (EX_NOPERM)."""

    exit_code = 77


class ConfigError(RemoteError):
    """A setting is invalid or missing (EX_CONFIG)."""

    exit_code = 78


def not_asked(stage: str, alias: str, what: str) -> ProtocolError:
    """Return the error for a host that sends what nobody asked for."""
    message = f"{alias} answered what was not asked: {one_line(what)}"
    return ProtocolError(stage, message, f"is it the host that you meant? ssh {alias}; if it is, inv doctor")


def host_hint(alias: str, hint: str) -> str:
    """Return a host's own hint, labelled as such; empty if there is none."""
    return f"{alias} says: {one_line(hint)}" if hint else ""


SIGNALLED = 128
"""A command that was ended by a signal exits with this plus the signal's number, as in a shell."""
