"""Resource limits of processes."""

from __future__ import annotations

import resource


def lower_limit(which: int, value: int, pid: int = 0) -> None:
    """Lower a resource limit; a lower one of the user's, which cannot be raised, holds.

    Args:
        which: RLIMIT_AS, ...
        value: the limit.
        pid: of the process; 0 for this one.
    """
    _, hard = resource.prlimit(pid, which)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, which, (most, most))
