"""Write a comparison as one HTML page, by running `autotune comparison`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from remote_tools.errors import SoftwareError, UnavailableError
from remote_tools.runs.compare import Side, WorkloadRow, closing
from remote_tools.runs.reporting import INSTALL, not_installed, run_autotune


def page(sides: Sequence[Side], rows: Sequence[WorkloadRow], made_at: str) -> str:
    """Return the page as HTML.

    Args:
        sides: the first is the one that the others are compared with.
        rows: the workloads.
        made_at: the date and time, as text.

    Raises:
        UnavailableError: the tuner, which writes the page, or a package that it needs is not installed.
        SoftwareError: the tuner failed.
    """
    if missing := not_installed():
        raise UnavailableError("compare", f"no page: {missing} is not installed", INSTALL)
    comparison = {
        "made_at": made_at,
        "sides": [{"name": each.name, "about": each.about} for each in sides],
        "lines": closing(sides, rows),
        "rows": [row.to_json() for row in rows],
    }
    done = run_autotune("comparison", text=json.dumps(comparison))
    if done.returncode:
        raise SoftwareError("compare", f"no page: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
