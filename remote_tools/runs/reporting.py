"""Write a report of fetched results by running `autotune report`.

It is a process of its own because remote_tools never imports autotune; only the result files connect them.
"""

from __future__ import annotations

import locale
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from remote_tools.runs.summaries import SUMMARY
from remote_tools.sync.progress import Display

INSTALL = "pip install 'remote-autotune[autotune]'"
NEEDED = ("autotune", "ml_dtypes", "numpy", "matplotlib", "threadpoolctl")
_HOME = os.path.realpath(Path(__file__).parents[2])
_PROGRAM = "import sys; sys.path[:] = {path}; from autotune.__main__ import program; program()"


def not_installed() -> str:
    """Return the names of missing packages that a report needs."""
    return ", ".join(name for name in NEEDED if find_spec(name) is None)


def run_autotune(*words: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a command of the tuner with the packages of this process, and nothing of the current folder.

    The user may stand in a folder of results, whose names a host chose: `json.py`, `autotune/`,
    `sitecustomize.py`, or a file of settings for matplotlib, which looks for it in the current folder.

    Args:
        words: the command and its arguments; paths are absolute, as it runs in another folder.
        text: its standard input.
    """
    path = [each for each in sys.path if Path(each).is_absolute() and not _is_foreign(each)]
    # -I: Python 3.10 has no -P, and PYTHONPATH may name the current folder, where sitecustomize.py may lie.
    command = [sys.executable, "-I", "-c", _PROGRAM.format(path=ascii(path)), *words]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=False, cwd="/")


def _is_foreign(folder: str) -> bool:
    """Return whether a folder is the current one, unless that is the checkout that we run from."""
    try:
        return _HOME != os.path.realpath(folder) == os.path.realpath(os.curdir)
    except OSError:  # there is no current folder any more
        return False


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
    done = run_autotune("report", "--no-table", str(local_dir.absolute()))
    said = done.stdout if done.returncode == 0 else done.stderr
    for line in said.decode(locale.getpreferredencoding(False), "replace").strip().splitlines():
        display.say(line)
