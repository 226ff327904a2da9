"""Test on the host what a run will need: the host's half of `inv doctor`.

Sent to the host: standard library only, Python >= 3.8. Each check is a function that uses the capability and
returns what it found, returns None if it does not apply, or raises `Trouble`; `OPS["probe"]` runs one.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, TypeVar

from . import neuron
from .command import find_program, python_folder
from .processes import alive, born
from .python_path import python_path
from .run_folder import Place
from .software import install

if TYPE_CHECKING:
    from . import messages
    from .messages import LeftBehind, LookReply, Nothing, ProbeParams, ProbeReply, Row

    class Subject(ProbeParams):
        """The input of a check on the host: the request, its code path, and its time of arrival."""

        code_path: str
        state: str
        arrived: float


SubjectT = TypeVar("SubjectT")
RSYNC_FLAGS = (
    "-a",
    "-s",
    "--from0",
    "--partial-dir=.part",
    "--out-format=%i %l %b",
    "--timeout=60",
    "--outbuf=L",
    "--no-human-readable",
    "--info=progress2",
    "--ignore-missing-args",
    "--no-implied-dirs",
)
"""The flags that transfers use if both sides have them."""
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
FEW_INODES = 10_000
LITTLE_BYTES = 1 << 30
COMMAND_S = 20.0
LEFT_S = 10.0
STATE_BYTES = 512 * 1024
"""What a push and a run of a middling project write to our state."""
TRANSFERRED = "transferred"
"""The file in the state's folder that `inv doctor` pushes by rsync."""


class Trouble(Exception):
    """A missing capability.

    Args:
        seen: what the check found.
        hint: how to fix it.
        code: exit code of a run that needs the capability; 0 if a run would continue without it.
    """

    def __init__(self, seen: str, hint: str = "", code: int = 0) -> None:
        """Keep the parts; the client composes the row from them."""
        super().__init__(seen)
        self.seen, self.hint, self.code = seen, hint, code


def output_of(*command: str, env: dict[str, str] | None = None) -> str:
    """Return a command's output.

    Raises:
        Trouble: the command is missing, fails, or does not end within `COMMAND_S`.
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
        raise Trouble(f"{command[0]} failed with exit code {done.returncode}: {text[-300:]}")
    return text


def expanded(path: str) -> str:
    """Return an absolute path, with ~ expanded."""
    return os.path.abspath(os.path.expanduser(path))


def nearest_folder(path: str) -> str:
    """Return the nearest existing folder at or above a path."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def write_and_remove(folder: str, hint: str) -> None:
    """Create a file in a folder and remove it.

    Raises:
        Trouble: the file cannot be created.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".remote-tools-probe-") as file:
            file.write(b"it")
            file.flush()
    except OSError as error:
        denied = error.errno in DENIED or not os.access(folder, os.W_OK | os.X_OK)  # /proc says ENOENT
        code = 77 if denied else 74
        raise Trouble(f"{folder}: {error.strerror}", hint, code) from None


def code_path(params: Subject) -> str:
    """Write to the code path, or to its parent directory if it is missing."""
    path = params["code_path"]
    place = path if os.path.isdir(path) else os.path.dirname(path)
    if not os.path.isdir(place):
        raise Trouble(f"no folder {place}", "inv provision creates it; or correct code_path", 74)
    write_and_remove(place, "correct code_path, or its permissions")
    return f"{path} is writable" if place == path else f"the first push will create {path}"


def disk(params: Subject) -> str:
    """Check the free space and inodes at the code path."""
    found = os.statvfs(nearest_folder(params["code_path"]))
    free = found.f_bavail * found.f_frsize
    seen = f"{free / 1e9:.1f} GB free, {found.f_favail:,} inodes"
    if (found.f_blocks and free < LITTLE_BYTES) or (found.f_files and found.f_favail < FEW_INODES):
        raise Trouble(seen, "make room, over plain ssh: du -xsh ~/* | sort -h")
    return seen


def rsync_there(params: Subject) -> str:
    """Test the host's rsync."""
    return rsync_works(params["rsync"])


def rsync_works(program: str) -> str:
    """Copy a file with the flags that transfers use."""
    if not shutil.which(program):
        raise Trouble(f"no {program}", install("rsync"), 69)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "from")
        os.mkdir(source)
        with open(os.path.join(source, "it"), "w") as file:
            file.write("it")
        listing = os.path.join(folder, "list")
        with open(listing, "wb") as names:
            names.write(b"it\0")
        try:
            to = os.path.join(folder, "to")
            output_of(program, *RSYNC_FLAGS, f"--files-from={listing}", source + "/", to + "/")
        except Trouble as trouble:
            hint = "transfers leave out the flags that one side lacks; rsync 3.2 has all"
            raise Trouble(trouble.seen, hint) from None
    return output_of(program, "--version").splitlines()[0]


def interpreter(params: Subject) -> str:
    """Return the path of the Python that runs will use, found as the supervisor finds it.

    Raises:
        Trouble: the interpreter or virtual environment in the settings is missing.
    """
    venv, named = params["venv_path"], params["python"]
    if venv:
        program = shutil.which(os.path.join(expanded(venv), "bin", "python"))
        if program is None:
            raise Trouble(f"no virtual environment at {venv}", "inv provision", 69)
        return program
    found = shutil.which(os.path.expanduser(named)) if named else shutil.which("python") or sys.executable
    if found is None:
        raise Trouble(f"no {named}", "correct python: inv config", 69)
    return found


def as_python(interpreter: str) -> str:
    """Return the `python` that a run is given if the host has none of that name.

    Raises:
        Trouble: it cannot be executed.
    """
    folder = python_folder(interpreter)
    found = find_program("python", folder)
    if found is None:
        raise Trouble(f"{folder}/python cannot be executed", "name another folder with state_path", 69)
    return found


def python(params: Subject) -> str:
    """Start the Python that runs will use."""
    try:
        program = interpreter(params)
        if not (params["venv_path"] or params["python"] or shutil.which("python")):
            program = as_python(program)
        seen = output_of(program, "-c", "import sys; print(sys.version.split()[0], sys.prefix)")
    except Trouble as trouble:
        raise Trouble(trouble.seen, trouble.hint or "inv provision", 69) from None
    return f"{seen} ({'venv' if params.get('venv_path') else 'no venv_path is set'})"


def lock(params: Subject) -> str | None:
    """Compare the installed requirements.lock with the one that is pushed."""
    venv = params["venv_path"]
    wanted = params["lock"]
    if not venv or not wanted:
        return None
    try:
        with open(os.path.join(expanded(venv), ".remote-provision.json"), encoding="ascii") as file:
            held = json.load(file)["files"].get("requirements.lock")
    except (OSError, ValueError, KeyError):
        raise Trouble("the venv was not made by inv provision", "inv provision") from None
    if held != wanted:
        raise Trouble("the venv was made from another requirements.lock", "inv provision")
    return "as locked"


def autotune(params: Subject) -> str | None:
    """Import the tuner as a run would."""
    if not os.path.isdir(os.path.join(params["code_path"], "autotune")):
        return None
    env = {**os.environ, "PYTHONPATH": python_path(params["state"], params["code_path"])}
    code = "import autotune, numpy; print('importable, NumPy', numpy.__version__)"
    try:
        return output_of(interpreter(params), "-c", code, env=env)
    except Trouble as trouble:
        last = (trouble.seen.splitlines() or [""])[-1]
        raise Trouble(f"cannot be imported: {last}", "inv provision, with extras: [autotune]") from None


def compiler(_params: Subject) -> str:
    """Compile a program for this machine."""
    name = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if name is None:
        raise Trouble("no cc, gcc or clang", f"backend c needs one: {install('gcc')}")
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "it.c")
        with open(source, "w") as file:
            file.write("#include <math.h>\nint main(void) { return 0; }\n")
        output_of(name, "-O3", "-march=native", source, "-o", os.path.join(folder, "it"))
    return output_of(name, "--version").splitlines()[0]


def accelerator(_params: Subject) -> str:
    """Name the accelerator, its driver and the cores that a run will see."""
    cores = len(os.sched_getaffinity(0))
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES")
    devices = sorted(glob.glob("/dev/neuron[0-9]*"))
    if devices:
        known = shutil.which("modinfo")
        driver = output_of("modinfo", "-F", "version", "neuron") if known else "driver unknown"
        seen = f"{len(devices)} Neuron devices, driver {driver}, visible cores: {visible or 'all'}"
        return f"{seen}; {cores} CPU cores"
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version"
        return f"{output_of('nvidia-smi', query, '--format=csv,noheader').splitlines()[0]}; {cores} CPU cores"
    return f"none; {cores} CPU cores"


def neuron_compiler(params: Subject) -> str | None:
    """Look for what compiles NKI kernels."""
    return _on_neuron(lambda: neuron.compiler(interpreter(params)))


def neuron_runtime(params: Subject) -> str | None:
    """Look for what runs NKI kernels."""
    return _on_neuron(lambda: neuron.runtime(interpreter(params)))


def neuron_cores(_params: Subject) -> str | None:
    """Count the NeuronCores that are free."""
    return _on_neuron(neuron.cores)


def _on_neuron(check: Callable[[], neuron.Seen]) -> str | None:
    if not neuron.present():
        return None
    seen = check()
    if seen.hint:
        raise Trouble(*seen)
    return seen.text


def clock(params: Subject) -> str:
    """Compare the clocks; results carry the host's times."""
    skew_s = params["arrived"] - params["now"]
    if abs(skew_s) > 5:
        raise Trouble(
            f"{skew_s:+.1f} s from this machine's", "sudo timedatectl set-ntp true; results carry its times"
        )
    return f"{skew_s:+.1f} s from this machine's, transit included"


def state(params: Subject) -> str:
    """Write where our state goes as much as a push and a run do."""
    folder = params["state"]
    hint = "make room there over plain ssh (df -h; rm ...), or name another folder with state_path"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".remote-tools-probe-") as file:
            file.write(b"x" * STATE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        place = mount_point(nearest_folder(folder))
        denied = error.errno in DENIED
        raise Trouble(f"{folder}, on {place}: {error.strerror}", hint, 77 if denied else 74) from None
    return folder


def mount_point(path: str) -> str:
    """Return where the file system of a path is mounted."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def transfer(params: Subject) -> str | None:
    """Look at what the laptop pushed by rsync a moment ago, and remove it."""
    path = os.path.join(params["state"], TRANSFERRED)
    if not os.path.exists(path):
        return None
    size_bytes = os.stat(path).st_size
    os.unlink(path)
    return f"{size_bytes // 1024} KiB by rsync"


def cache_root(params: Subject) -> str:
    """Write into the cache root, and name its file system."""
    root = expanded(params["cache_dir"])
    place = nearest_folder(root)
    write_and_remove(place, "correct cache_dir")
    try:
        kind = output_of("stat", "-f", "-c", "%T", place)
    except Trouble:
        kind = "unknown file system"
    return f"{root}, {kind}"


def runs(params: Subject) -> str:
    """Look for lost and running runs."""
    found: dict[str, list[str]] = {"running": [], "lost": []}
    for record in params["runs"]:
        found.setdefault(record["state"], []).append(record["id"])
    if found["lost"]:
        last = found["lost"][-1]
        seen = f"{len(found['lost'])} lost, the last is {last}"
        raise Trouble(seen, f"the run's owner was killed; inv runs.kill {last} ends its remaining processes")
    return f"{len(params['runs'])} kept, running: {', '.join(found['running']) or 'none'}"


def device(params: Subject) -> str:
    """Find the holder of the accelerator's lock; processes that an ended run left may still hold it."""
    from . import device_lock

    path = device_lock.lock_path()
    where = ""
    if params["device_lock"] and device_lock.is_shared(path):
        where = f"; any user can hold or remove {path}: root can make {device_lock.OWN}, mode 666"
    if not os.path.lexists(path):
        return "free" + where
    try:
        fd = device_lock.open_shared(path)
    except device_lock.Unusable as error:
        raise Trouble(str(error), f"remove {path}", 69 if params["device_lock"] else 0) from None
    try:
        if device_lock.locked_at_once(fd):
            return "free" + where
        seen, holder = str(device_lock.held_by(fd)), device_lock.holder_of(fd)
        if holder and device_lock.outlived(holder):
            raise Trouble(seen, f"inv runs.kill {holder['run']}, in the project that started it")
        return seen
    finally:
        os.close(fd)


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "rsync there": rsync_there,
    "code path": code_path,
    "disk": disk,
    "state": state,
    "transfer": transfer,
    "python": python,
    "lock": lock,
    "autotune": autotune,
    "compiler": compiler,
    "accelerator": accelerator,
    "neuron compiler": neuron_compiler,
    "neuron runtime": neuron_runtime,
    "neuron cores": neuron_cores,
    "clock": clock,
    "cache root": cache_root,
    "runs": runs,
    "device lock": device,
}


def examine(checks: Mapping[str, Callable[[SubjectT], str | None]], subject: SubjectT) -> Iterator[Row]:
    """Run the checks in order; a check that does not apply has no row."""
    for name, check in checks.items():
        begun = time.monotonic()
        seen: str | None
        ok, hint, code = False, "", 0
        try:
            seen, ok = check(subject), True
        except Trouble as trouble:
            seen, hint, code = trouble.seen, trouble.hint, trouble.code
        except OSError as error:
            seen, code = str(error), 74
        if seen is not None:
            seconds = time.monotonic() - begun
            yield {"name": name, "ok": ok, "seen": seen, "hint": hint, "code": code, "seconds": seconds}


def probe(params: ProbeParams, place: Place) -> ProbeReply:
    """Run one check of the host."""
    name = params["check"]
    subject: Subject = {
        **params,
        "code_path": place.code_path,
        "state": place.state,
        "arrived": time.time(),
    }
    return {"found": list(examine({name: CHECKS[name]}, subject))}


def digest(path: str) -> str | None:
    """Return the SHA-256 of a file, as in the venv's mark; None if the file is missing."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def leave(_params: Nothing, _place: Place) -> LeftBehind:
    """Leave a process behind as an owner is left: no parent, no terminal, none of the session's streams."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        os.waitpid(child, 0)
        pid = int(os.read(told, 32))
        os.close(told)
        return {"process": [pid, born(pid)]}
    os.setsid()
    if os.fork() == 0:
        os.write(tell, b"%d" % os.getpid())
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.closerange(3, 64)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(LEFT_S)
    os._exit(0)


def look(params: LeftBehind, _place: Place) -> LookReply:
    """Tell whether the process that was left behind still runs."""
    return {"alive": alive(params["process"])}


OPS: dict[str, Callable[[Any, Place], Mapping[str, object]]] = {"probe": probe, "leave": leave, "look": look}
if TYPE_CHECKING:
    messages.LEAVE.answered_by(leave)
    messages.LOOK.answered_by(look)
    messages.PROBE.answered_by(probe)
