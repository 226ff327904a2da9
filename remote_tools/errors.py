"""What can go wrong on our side; a remote command's own failure is its exit code and never one of these."""

from __future__ import annotations

from invoke.exceptions import Exit


class RemoteError(Exit):
    """End the command with a message and a sysexits code; Invoke prints no traceback for it.

    Args:
        stage: what was under way (`connect`, `sync`, `exec`, `fetch`, `settings`).
        message: what failed and where.
        hint: what to type or look at next.

    Attributes:
        code: the process's exit code, named after sysexits.h.
    """

    exit_code = 70

    def __init__(self, stage: str, message: str, hint: str = "") -> None:
        """Compose the one message that the user sees."""
        self.stage = stage
        self.reason = message
        self.hint = hint
        text = f"{stage}: {message}" + (f"\n  next: {hint}" if hint else "")
        super().__init__(message=text, code=self.exit_code)


class UsageError(RemoteError):
    """The words typed cannot be carried out (EX_USAGE)."""

    exit_code = 64


class DataError(RemoteError):
    """What was found cannot be trusted: too many deletes, a path that leaves its folder (EX_DATAERR)."""

    exit_code = 65


class NoHostError(RemoteError):
    """The host's name is unknown or nothing answers there (EX_NOHOST)."""

    exit_code = 68


class UnavailableError(RemoteError):
    """Something we need is not there: rsync, python3, a venv (EX_UNAVAILABLE)."""

    exit_code = 69


class SoftwareError(RemoteError):
    """A fault of ours (EX_SOFTWARE)."""

    exit_code = 70


class TransferError(RemoteError):
    """Bytes could not be read or written: full disk, read-only path (EX_IOERR)."""

    exit_code = 74


class TemporaryError(RemoteError):
    """The network gave out; the same command may work in a minute (EX_TEMPFAIL)."""

    exit_code = 75


class Dropped(TemporaryError):
    """The connection gave out under us: what was asked can be asked again over a new one."""


class PermissionDenied(RemoteError):
    """The host refused: key, account, path, or a host key that changed (EX_NOPERM)."""

    exit_code = 77


class ConfigError(RemoteError):
    """A setting is wrong or missing (EX_CONFIG)."""

    exit_code = 78


SIGNALLED = 128
"""A command that a signal ended exits with this plus the signal's number, as in a shell."""
