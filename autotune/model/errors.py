"""The tuner's exceptions. A candidate's failure is a trial's status, never an exception."""

from __future__ import annotations


class AutotuneError(Exception):
    """An error that the user can fix; the message says what failed, where, and what to do next.

    Attributes:
        exit_code: the sysexits code with which `python -m autotune` and the examples end.
    """

    exit_code = 70


class UsageError(AutotuneError):
    """The request is invalid: unknown parameter, empty space, no such backend."""

    exit_code = 64


class DataError(AutotuneError):
    """Inputs or a cache that cannot be trusted: NaN in inputs, a corrupt record."""

    exit_code = 65


class UnavailableError(AutotuneError):
    """Something the backend needs is not on this machine: a compiler, a device."""

    exit_code = 69


class DeviceLostError(UnavailableError):
    """A device failed, and not the candidate that it ran; it is used no more."""


class CacheError(AutotuneError):
    """The cache could not be written or read: full disk, missing rights."""

    exit_code = 74
