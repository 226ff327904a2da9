"""What a Neuron host has: both interpreters with their half of the SDK, the runtime, and the cores.

Sent to the host: standard library only, Python >= 3.8. Nothing here opens a core.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
from typing import Any, NamedTuple, Sequence

TOOLS = "/opt/aws/neuron/bin"
COMPILE_PYTHON, RUN_PYTHON = "AUTOTUNE_NEURON_COMPILE_PYTHON", "AUTOTUNE_NEURON_RUN_PYTHON"
VISIBLE = "NEURON_RT_VISIBLE_CORES"
NEVER_RUN = "backend neuron was never run on a device by its authors"
COMMAND_S = 20.0
# An import would prove nothing: the packages of these names on PyPI are empty.
VERSIONS = """\
import importlib.util, importlib.metadata, sys
def version(name):
    try: return name + " " + importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return name + " of unknown version"
parts = sys.argv[1].split()
find = importlib.util.find_spec
there = [name for name in parts if find(name.split(".")[0]) and find(name)]
print(*map(version, [there[0].split(".")[0], *sys.argv[2:]] if there else ()), sep=", ")
"""


class Seen(NamedTuple):
    """What a check found, and how to fix it; empty if it is well."""

    text: str
    hint: str = ""


def present() -> bool:
    """Return whether this host has Neuron devices, or the tools for them."""
    return bool(glob.glob("/dev/neuron[0-9]*")) or _find("neuron-ls") is not None


def compiler(python: str) -> Seen:
    """Look for nki and neuronx-cc, in the interpreter that compiles candidates."""
    return _half(python, COMPILE_PYTHON, ("nki.language", "neuronx-cc"), "nki of the Neuron SDK")


def runtime(python: str) -> Seen:
    """Look for nrtpy or spike in the interpreter that runs candidates, and for the runtime's package."""
    found = _half(python, RUN_PYTHON, ("nrtpy spike",), "nrtpy or spike")
    package = "aws-neuronx-runtime-lib"
    asked = ("dpkg-query", "-W", "-f", "${Version}", package), ("rpm", "-q", "--qf", "%{VERSION}", package)
    known = [text for code, text in map(_run, asked) if code == 0 and text]
    return Seen(f"{found.text}; {package} {(known or ['unknown'])[0]}", found.hint)


def cores() -> Seen:
    """Count the cores that are free, and name who holds the others."""
    code, text = _run(("neuron-ls", "--json-output"))
    if code:
        return Seen(
            text[-300:] or f"neuron-ls failed with exit code {code}",
            f"install aws-neuronx-tools; or add {TOOLS} to PATH",
        )
    try:
        total, held, logical = _holders(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        return Seen(f"neuron-ls printed something unknown: {type(error).__name__}", "neuron-ls --json-output")
    free = total - sum(len(numbers) for numbers in held.values())
    who = "".join(f"; {', '.join(map(str, numbers))} held by {name}" for name, numbers in held.items())
    seen = f"{free} of {total} free, LNC {logical}{who}; {NEVER_RUN}"
    return Seen(seen, "" if free else "end what holds them")


def _half(python: str, variable: str, wanted: Sequence[str], what: str) -> Seen:
    """Look for modules in the interpreter that a variable names, else in that of runs."""
    named = os.path.expanduser(os.environ.get(variable) or python)
    code, text = _run((named, "-I", "-c", VERSIONS, *wanted))
    if code or not text:
        seen = text[-300:] if code else f"{named} has no {what}"
        return Seen(
            seen, f"export {variable}=<venv>/bin/python on the host (nki and nrtpy cannot share a venv)"
        )
    return Seen(f"{text} in {named}")


def _holders(chips: Sequence[dict[str, Any]]) -> tuple[int, dict[str, list[int]], int]:
    """Return how many cores there are, process -> those that it holds, and the LNC.

    neuron-ls names the processes of a chip. Their cores are in their environment; if that cannot be read, all
    of the chip count.
    """
    total, logical = 0, 1
    held: dict[str, list[int]] = {}
    taken: set[int] = set()
    for chip in chips:
        count = int(chip["nc_count"])
        numbers = chip.get("neuroncore_ids") or range(total, total + count)
        total, logical = total + count, int(chip.get("logical_neuroncore_config") or 1)
        for process in chip.get("neuron_processes") or ():
            name = f"process {process['pid']} ({str(process.get('command', ''))[:40]})"
            own = _visible_to(int(process["pid"]))
            new = [number for number in numbers if (not own or number in own) and number not in taken]
            taken.update(new)
            if new:
                held.setdefault(name, []).extend(new)
    return total, held, logical


def _visible_to(pid: int) -> list[int]:
    """Return the cores that a process has asked for; none if nobody knows."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().decode("utf-8", "replace").split("\0")
        text = next(word.split("=", 1)[1] for word in words if word.startswith(f"{VISIBLE}="))
        parts = [part.split("-") for part in text.split(",") if part]
        return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]
    except (OSError, StopIteration, ValueError):
        return []


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=TOOLS)


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed, errors too."""
    program = _find(command[0])
    if program is None:
        return 127, f"no {command[0]}"
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
