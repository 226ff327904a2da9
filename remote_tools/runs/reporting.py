"""Write a report of fetched results by running `python -m autotune report`.

It is a process of its own because remote_tools never imports autotune; only the result files connect them.
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
    """Return the names of missing packages that a report needs."""
    return ", ".join(name for name in NEEDED if find_spec(name) is None)


def write_report(local_dir: Path, fetched: Sequence[str], display: Display) -> None:
    """Write the report of a results folder if tuning results were fetched, and print its path.

    Args:
        local_dir: the results folder.
        fetched: the fetched paths below it.
        display: prints the lines; if the report fails, the reason is printed and nothing is raised.
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
