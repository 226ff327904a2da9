"""The two interpreters, and the versions of all that decides a result on a NeuronCore."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from autotune.model.errors import UnavailableError

COMPILE_PYTHON, RUN_PYTHON = "AUTOTUNE_NEURON_COMPILE_PYTHON", "AUTOTUNE_NEURON_RUN_PYTHON"
COMPILE_PROGRAM = str(Path(__file__).with_name("neuron_compile.py"))
RUN_PROGRAM = str(Path(__file__).with_name("neuron_run.py"))
_LIBRARIES = "/opt/aws/neuron/lib"
_TIMEOUT_S = 120
_UNKNOWN = "unknown"


def interpreter(given: str, variable: str) -> str:
    """Return the absolute path of an interpreter: the one given, else the variable's, else this one.

    Raises:
        UnavailableError: it cannot be executed.
    """
    named = given or os.environ.get(variable, "") or sys.executable
    found = shutil.which(Path(named).expanduser())
    if found is None:
        raise UnavailableError(
            f"no interpreter {named}; set {variable} to a virtual environment's bin/python"
        )
    return str(Path(found).absolute())  # not resolved: a venv is known by its link


def libraries() -> dict[str, str]:
    """Return the environment with the runtime's libraries on the path."""
    known = os.environ.get("LD_LIBRARY_PATH", "")
    return {**os.environ, "LD_LIBRARY_PATH": f"{_LIBRARIES}:{known}" if known else _LIBRARIES}


@functools.cache
def versions(python: str, program: str, variable: str) -> Mapping[str, str]:
    """Return the versions that an interpreter has of what a program needs.

    Args:
        python: the interpreter.
        program: `COMPILE_PROGRAM` or `RUN_PROGRAM`.
        variable: names another interpreter, for the message.

    Raises:
        UnavailableError: it does not have it.
    """
    command = [python, "-I", program, "--versions"]
    try:
        done = subprocess.run(
            command, env=libraries(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode == 0:
            found: dict[str, str] = json.loads(done.stdout)
            return found
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        last = str(error)
    raise UnavailableError(
        f"{last.removeprefix('error: ')}; set {variable} to the python of the virtual environment that "
        "has it (nki and nrtpy cannot share one)"
    )


def instance_type(root: Path = Path("/")) -> str:
    """Return the instance's type, such as trn2.48xlarge; `unknown` if this machine does not say.

    On EC2 it is the product's name; the driver only knows the family (Trn1).
    """
    for place in (
        "sys/devices/virtual/dmi/id/product_name",
        "sys/devices/virtual/neuron_device/neuron0/neuron_core0/info/architecture/instance_type",
        "sys/devices/virtual/neuron_device/neuron0/info/architecture/instance_type",
    ):
        text = _text(root / place).lower()
        if text.startswith(("trn", "inf")):
            return text
    return _UNKNOWN


def driver_version(root: Path = Path("/")) -> str:
    """Return the version of the kernel's driver, `aws-neuronx-dkms`."""
    return _text(root / "sys/module/neuron/version") or _UNKNOWN


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
