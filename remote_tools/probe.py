"""Try on the host what a run will need, each capability for real: the host's half of `inv doctor`.

Sent to the host: standard library only, Python >= 3.8. Each check is a function that returns what it saw, or
raises `Trouble` with what mends it; `OPS["probe"]` runs them all and times each.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict

Params = Dict[str, Any]
RSYNC_FLAGS = (
    "-a",
    "-s",
    "--from0",
    "--partial-dir=.part",
    "--out-format=%i %l %b",
    "--timeout=60",
    "--outbuf=L",
)
"""The flags that transfers use where both sides have them."""
FEW_INODES = 10_000
LITTLE_BYTES = 1 << 30
COMMAND_S = 20.0


class Trouble(Exception):
    """A capability that is missing.

    Args:
        seen: what was tried and what it said.
        hint: what mends it.
        code: the exit code that a run would end with; 0 where a run would go on.
    """

    def __init__(self, seen: str, hint: str = "", code: int = 0) -> None:
        """Keep them apart: the client words the rest."""
        super().__init__(seen)
        self.seen, self.hint, self.code = seen, hint, code


def said(*command: str, env: dict[str, str] | None = None) -> str:
    """Return what a command prints.

    Raises:
        Trouble: there is no such command, it fails, or it does not end.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
            env=env,
        )
    except FileNotFoundError:
        raise Trouble(f"no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{command[0]} did not end within {COMMAND_S:.0f} s") from None
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        raise Trouble(f"{command[0]} ended with {done.returncode}: {text[-300:]}")
    return text


def expanded(path: str) -> str:
    """Return a path with its ~ resolved."""
    return os.path.abspath(os.path.expanduser(path))


def write_and_remove(folder: str) -> None:
    """Make a file in a folder.

    Raises:
        OSError: it cannot be made.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".remote-tools-probe-") as file:
        file.write(b"it")
        file.flush()


def code_path(params: Params) -> str:
    """Write into the code path, or where it will be made."""
    path = params["code_path"]
    place = path if os.path.isdir(path) else os.path.dirname(path)
    if not os.path.isdir(place):
        raise Trouble(f"no folder {place}", "inv provision makes it; or correct code_path", 74)
    try:
        write_and_remove(place)
    except OSError as error:
        raise Trouble(f"{place}: {error.strerror}", "correct code_path, or its owner's rights", 77) from None
    return f"{path} is writable" if place == path else f"{path} will be made by the first push"


def disk(params: Params) -> str:
    """Look at the space and the inodes where the code goes."""
    place = params["code_path"]
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    seen = f"{free / 1e9:.1f} GB free, {found.f_favail:,} inodes"
    if free < LITTLE_BYTES or (found.f_files and found.f_favail < FEW_INODES):
        raise Trouble(seen, "make room: inv exec --command 'du -xsh ~/* | sort -h'")
    return seen


def rsync_works(_params: Params) -> str:
    """Copy a file with the very flags that transfers use."""
    if not shutil.which("rsync"):
        raise Trouble("no rsync", "install it, e.g. sudo apt-get install rsync", 69)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "from")
        os.mkdir(source)
        with open(os.path.join(source, "it"), "w") as file:
            file.write("it")
        listing = os.path.join(folder, "list")
        with open(listing, "wb") as names:
            names.write(b"it\0")
        try:
            said(
                "rsync",
                *RSYNC_FLAGS,
                f"--files-from={listing}",
                source + "/",
                os.path.join(folder, "to") + "/",
            )
        except Trouble as trouble:
            hint = "transfers do without these flags where one side lacks them; rsync 3.2 has all"
            raise Trouble(trouble.seen, hint) from None
    return said("rsync", "--version").splitlines()[0]


def python(params: Params) -> str:
    """Start the Python that runs will have."""
    venv = params.get("venv_path")
    program = os.path.join(expanded(venv), "bin", "python") if venv else None
    program = program or shutil.which(params.get("python") or "python") or shutil.which("python3")
    if program is None or not os.path.exists(program):
        raise Trouble(f"no virtual environment at {venv}", "inv provision", 69)
    version = said(program, "-c", "import sys; print(sys.version.split()[0], sys.prefix)")
    return f"{version} ({'venv' if venv else 'no venv_path is set'})"


def lock(params: Params) -> str:
    """Compare what was installed with the lock that is pushed."""
    venv = params.get("venv_path")
    wanted = params.get("lock")
    if not venv or not wanted:
        return "no lock to compare with"
    try:
        with open(os.path.join(expanded(venv), ".remote-provision.json"), encoding="ascii") as file:
            held = json.load(file)["files"].get("requirements.lock")
    except (OSError, ValueError, KeyError):
        raise Trouble("the venv was not made by inv provision", "inv provision") from None
    if held != wanted:
        raise Trouble("the venv was made from another requirements.lock", "inv provision")
    return "as locked"


def autotune(params: Params) -> str:
    """Import the tuner as a run would."""
    program = python(params).split()[1] + "/bin/python"
    if not os.path.isdir(os.path.join(params["code_path"], "autotune")):
        return "not part of this project"
    env = {**os.environ, "PYTHONPATH": params["code_path"]}
    try:
        return "importable, NumPy " + said(
            program, "-c", "import autotune, numpy; print(numpy.__version__)", env=env
        )
    except Trouble as trouble:
        last = (trouble.seen.splitlines() or [""])[-1]
        raise Trouble(f"cannot be imported: {last}", "inv provision, with extras: [autotune]") from None


def compiler(_params: Params) -> str:
    """Compile a program for this machine."""
    name = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if name is None:
        raise Trouble("no cc, gcc or clang", "backend c needs one: sudo apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "it.c")
        with open(source, "w") as file:
            file.write("#include <math.h>\nint main(void) { return 0; }\n")
        said(name, "-O3", "-march=native", source, "-o", os.path.join(folder, "it"))
    return said(name, "--version").splitlines()[0]


def accelerator(_params: Params) -> str:
    """Name the accelerator, its driver and the cores that a run will see."""
    cores = len(os.sched_getaffinity(0))
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES")
    devices = sorted(glob.glob("/dev/neuron[0-9]*"))
    if devices:
        driver = said("modinfo", "-F", "version", "neuron") if shutil.which("modinfo") else "driver unknown"
        seen = f"{len(devices)} Neuron devices, driver {driver}, visible cores: {visible or 'all'}"
        return f"{seen}; {cores} CPU cores"
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version"
        return f"{said('nvidia-smi', query, '--format=csv,noheader').splitlines()[0]}; {cores} CPU cores"
    return f"none; {cores} CPU cores"


def clock(params: Params) -> str:
    """Compare the clocks; results carry the host's times."""
    skew_s = params["arrived"] - params["now"]
    if abs(skew_s) > 5:
        raise Trouble(
            f"{skew_s:+.1f} s from this machine's", "nothing here relies on it; chrony or ntp mends it"
        )
    return f"{skew_s:+.1f} s from this machine's, transit included"


def cache_root(params: Params) -> str:
    """Write into the cache root, and name its file system."""
    root = expanded(params["cache_dir"])
    place = root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    try:
        write_and_remove(place)
    except OSError as error:
        raise Trouble(f"{place}: {error.strerror}", "correct cache_dir", 77) from None
    try:
        kind = said("stat", "-f", "-c", "%T", place)
    except Trouble:
        kind = "unknown file system"
    return f"{root}, {kind}"


def runs(params: Params) -> str:
    """Look for runs that still hold the machine."""
    found = {"running": [], "lost": []}  # type: Dict[str, list[str]]
    for record in params["runs"]:
        found.setdefault(record["state"], []).append(record["id"])
    if found["lost"]:
        raise Trouble(
            f"lost: {', '.join(found['lost'][-3:])}", "their supervisor was killed; inv runs.show ID"
        )
    return f"{len(params['runs'])} kept, running: {', '.join(found['running']) or 'none'}"


CHECKS: dict[str, Callable[[Params], str]] = {
    "rsync there": rsync_works,
    "code path": code_path,
    "disk": disk,
    "python": python,
    "lock": lock,
    "autotune": autotune,
    "compiler": compiler,
    "accelerator": accelerator,
    "clock": clock,
    "cache root": cache_root,
    "runs": runs,
}


def examine(checks: dict[str, Callable[[Params], str]], params: Params) -> list[Params]:
    """Run checks; each becomes {"name", "ok", "seen", "hint", "code", "seconds"}."""
    found = []
    for name, check in checks.items():
        begun = time.monotonic()
        row: Params = {"name": name, "ok": True, "seen": "", "hint": "", "code": 0}
        try:
            row["seen"] = check(params)
        except Trouble as trouble:
            row.update(ok=False, seen=trouble.seen, hint=trouble.hint, code=trouble.code)
        except OSError as error:
            row.update(ok=False, seen=str(error), hint="", code=74)
        row["seconds"] = time.monotonic() - begun
        found.append(row)
    return found


def probe(params: Params) -> Params:
    """Run every check of this side."""
    return {"checks": examine(CHECKS, {**params, "arrived": time.time()})}


def digest(path: str) -> str | None:
    """Return the digest of a file, as provisioning marks it; None where it is missing."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


OPS: dict[str, Callable[[Params], Params]] = {"probe": probe}
