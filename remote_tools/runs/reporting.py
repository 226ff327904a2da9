"""Turn fetched results into a report: a door to `python -m autotune report`, in a process of its own.

The task collection knows nothing of kernels and imports nothing of the tuner; they meet in the files.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from remote_tools.runs.summaries import SUMMARY
from remote_tools.sync.progress import Display

INSTALL = "pip install 'remote-autotune[autotune]'"
NEEDED = ("autotune", "numpy", "matplotlib", "threadpoolctl")


def not_installed() -> str:
    """Return the names of the packages that a report needs and that are missing here."""
    return ", ".join(name for name in NEEDED if find_spec(name) is None)


def write_report(local_dir: Path, fetched: Sequence[str], display: Display) -> None:
    """Write the report of a results folder where tuning results came in, and say where it is.

    Args:
        local_dir: the results folder.
        fetched: what has just come in, below it.
        display: where the lines go; a report that cannot be written is said and changes nothing else.
    """
    if not any(PurePosixPath(path).name == SUMMARY for path in fetched):
        return
    if missing := not_installed():
        display.say(f"No report: {missing} is not installed; {INSTALL}")
        return
    command = [sys.executable, "-m", "autotune", "report", "--no-table", str(local_dir)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    for line in (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines():
        display.say(line)
