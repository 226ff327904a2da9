"""The NeuronCores of this machine and who holds them, by neuron-ls and the environment of processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.model.errors import UnavailableError

VISIBLE = "NEURON_RT_VISIBLE_CORES"
LOGICAL = "NEURON_LOGICAL_NC_CONFIG"
_TIMEOUT_S = 20
_TOOLS = "/opt/aws/neuron/bin"


@dataclass(frozen=True)
class Core:
    """A logical NeuronCore.

    Args:
        number: as NEURON_RT_VISIBLE_CORES has it.
        chip: the device that it is on.
        logical: physical cores that it is made of (LNC).
        held_by: who holds it, for people; empty if it is free.
    """

    number: int
    chip: int
    logical: int
    held_by: str = ""


def has_devices() -> bool:
    """Return whether this machine has Neuron devices, or the tools for them; nothing is started."""
    return any(Path("/dev").glob("neuron[0-9]*")) or shutil.which("neuron-ls") is not None


def list_cores(logical: int = 0) -> tuple[Core, ...]:
    """Return the cores of this machine, in order.

    Args:
        logical: physical cores of a logical one; 0 for the runtime's own setting.

    Raises:
        UnavailableError: neuron-ls is missing or fails, or there is no core.
    """
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_TOOLS}"}
    if logical:
        env[LOGICAL] = str(logical)
    try:
        done = subprocess.run(
            ["neuron-ls", "--json-output"],
            env=env,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise UnavailableError(
            "no neuron-ls: this machine has no Neuron tools. On a trn instance install aws-neuronx-tools"
        ) from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"neuron-ls --json-output did not end within {_TIMEOUT_S} s") from None
    if done.returncode:
        raise UnavailableError(
            f"neuron-ls failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    try:
        return cores_of(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"neuron-ls --json-output printed something unknown: {error}") from None


def cores_of(chips: Sequence[Mapping[str, Any]]) -> tuple[Core, ...]:
    """Return the cores that the JSON of neuron-ls describes.

    It names the processes of a chip, and not their cores: those are in the environment of a process. If
    that cannot be read, all cores of the chip count as held.

    Raises:
        KeyError, TypeError, ValueError: it is not as documented.
        UnavailableError: there is none.
    """
    cores: dict[int, Core] = {}
    for chip in chips:
        logical = int(chip.get("logical_neuroncore_config") or 1)
        first = len(cores)
        numbers = [
            int(each) for each in chip.get("neuroncore_ids") or range(first, first + int(chip["nc_count"]))
        ]
        holders: dict[int, str] = {}
        for process in chip.get("neuron_processes") or ():
            pid = int(process["pid"])
            who = f"process {pid} ({str(process.get('command', '')).strip()[:60]})"
            holders.update(dict.fromkeys(visible_cores(_variable_of(pid)) or numbers, who))
        for number in numbers:
            cores[number] = Core(number, int(chip["neuron_device"]), logical, holders.get(number, ""))
    if not cores:
        raise UnavailableError("neuron-ls lists no NeuronCore on this machine")
    return tuple(cores[number] for number in sorted(cores))


def usable(cores: Sequence[Core], visible: str) -> tuple[Core, ...]:
    """Return the cores that are free and that a scheduler has given to us.

    Args:
        cores: of the machine.
        visible: NEURON_RT_VISIBLE_CORES of this process; empty for all.

    Raises:
        UnavailableError: there is none; the message says who holds them.
    """
    ours = visible_cores(visible)
    given = [core for core in cores if not ours or core.number in ours]
    if not given:
        raise UnavailableError(f"{VISIBLE}={visible} names no core of this machine, which has {len(cores)}")
    free = tuple(core for core in given if not core.held_by)
    if not free:
        held = "; ".join(f"{core.number} by {core.held_by}" for core in given[:4])
        more = f"; and {len(given) - 4} more" if len(given) > 4 else ""
        raise UnavailableError(
            f"all {len(given)} NeuronCores are held: {held}{more}. End what holds them, and run again"
        )
    return free


def visible_cores(text: str) -> frozenset[int]:
    """Return the cores that a text such as `0,4-7` names; none if it is empty or something else."""
    found: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        low, _, high = part.partition("-")
        if not low.isdecimal() or not (high or low).isdecimal():
            return frozenset()
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


def _variable_of(pid: int) -> str:
    """Return NEURON_RT_VISIBLE_CORES of another process; empty if it is another user's, or not set."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    head = f"{VISIBLE}=".encode()
    return next((word[len(head) :].decode(errors="replace") for word in words if word.startswith(head)), "")
