"""Run a script whose `import nki` finds the interpreter: `python -m autotune nki run FILE.py [words]`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.model.errors import UsageError
from autotune.nki.activate import activate
from autotune.nki.launch import SHOW_MEMORY, UNWRITTEN
from autotune.nki.machine import machine

_TARGET = "NEURON_PLATFORM_TARGET_OVERRIDE"


def run_script(
    file: Path,
    words: Sequence[str],
    target: str | None = None,
    unwritten: str | None = None,
    memory: bool = False,
    force: bool = False,
) -> int:
    """Run a script as `python FILE.py words` would, with its kernels interpreted; return its exit code.

    Args:
        file: the script.
        words: its arguments.
        target: "trn1", "trn2" or "trn3", as NEURON_PLATFORM_TARGET_OVERRIDE.
        unwritten: what reading memory that nobody wrote does, as AUTOTUNE_NKI_UNWRITTEN.
        memory: print after each kernel what SBUF and PSUM hold at their peaks.
        force: replace AWS's own `nki`, if it is installed.

    Raises:
        UsageError: there is no such script or target.
        NkiError: a kernel asks for something that the target does not do.
    """
    if not file.is_file():
        raise UsageError(f"no script {file}")
    for name, value in ((_TARGET, target), (UNWRITTEN, unwritten), (SHOW_MEMORY, "1" if memory else None)):
        if value:
            os.environ[name] = value
    if activate(force=force):
        chosen = machine().target
        print(
            f"nki: interpreted on this CPU within the limits of {chosen}; nothing ran on a device",
            file=sys.stderr,
        )
    sys.argv = [str(file), *words]
    sys.path.insert(0, str(file.resolve().parent))
    runpy.run_path(str(file), run_name="__main__")
    return 0
