"""Make a project's virtual environment: the program that `inv provision` runs on the host.

Standard library only, Python >= 3.8; gets its orders as JSON in its one argument. It uses uv where the host
has it, else venv and pip, needs no rights beyond the user's own, and does nothing where its mark in the venv
says that the very same was installed before.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Sequence

if TYPE_CHECKING:
    from .messages import Mark, Orders

MARK = ".remote-provision.json"
LOCK = "requirements.lock"


def fail(code: int, message: str) -> NoReturn:
    """End with one of sysexits' codes, which becomes the command's own."""
    print(f"provision: {message}", file=sys.stderr)
    sys.exit(code)


def find_uv() -> str | None:
    """Find uv, also where its installer puts it, which is not in the PATH of an ssh session."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.expanduser("~/.local/bin:~/.cargo/bin"))


def accelerator() -> str:
    """Tell a Neuron host from a CUDA host from a plain one."""
    if glob.glob("/dev/neuron*"):
        return "neuron"
    if (
        shutil.which("nvidia-smi")
        and subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE).returncode == 0
    ):
        return "cuda"
    return "plain"


def known_extras(text: str) -> list[str]:
    """Return the names in pyproject.toml's [project.optional-dependencies]; tomllib came with Python 3.11."""
    names, inside = [], False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == "[project.optional-dependencies]"
        elif inside and line[:1].isalpha() and "=" in line:
            names.append(line.partition("=")[0].strip())
    return names


def wanted(orders: Orders) -> Mark:
    """Return all that decides what will be in the venv, for the mark."""
    texts = {}
    for name in (LOCK, "pyproject.toml", "requirements.txt"):
        if os.path.exists(name):
            with open(name, "rb") as file:
                texts[name] = file.read()
    kind = accelerator()
    known = known_extras(texts.get("pyproject.toml", b"").decode("utf-8", "replace"))
    unknown = sorted(set(orders["extras"]) - set(known))
    if unknown:
        fail(78, f"no extra {unknown[0]} in pyproject.toml; it has: {', '.join(known) or 'none'}")
    named = sorted({*orders["extras"], *({kind} & set(known))})
    print(f"{kind} host; extras: {', '.join(named) or 'none'}", flush=True)
    return {
        "accelerator": kind,
        "extras": named,
        "files": {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()},
        "project": os.getcwd(),
        "python": version_of(orders["python"] or sys.executable),
    }


def version_of(interpreter: str) -> str:
    """Return an interpreter's version, as far as a virtual environment depends on it."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.check_output([os.path.expanduser(interpreter), "-c", code]).decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        fail(69, f"{interpreter} does not start: {error}")


def changes(before: Mark, goal: Mark) -> list[str]:
    """Say what differs from what was installed before."""
    found = []
    for key, new in goal.items():
        if key == "files":
            old_files, files = before.get("files", {}), goal["files"]
            names = sorted({*old_files, *files})
            found += [name for name in names if old_files.get(name) != files.get(name)]
        elif before.get(key) != new:
            found.append(f"{key} {_text(before.get(key))} -> {_text(new)}")
    return found


def _text(value: object) -> str:
    return ",".join(value) or "none" if isinstance(value, list) else str(value)


def read_mark(path: str) -> Mark:
    """Return what was installed before; nothing where that is not known."""
    try:
        with open(path, encoding="ascii") as file:
            found: Mark = json.load(file)
            return found
    except (OSError, ValueError):
        return {}


def run(command: Sequence[str]) -> None:
    """Run one step, and end with its failure."""
    print("$ " + " ".join(command), flush=True)
    code = subprocess.run(command).returncode
    if code:
        fail(69, f"{command[0]} ended with {code}; what it said stands above")


def make_venv(venv: str, interpreter: str) -> None:
    """Make an empty virtual environment, in the place of one that another Python made."""
    uv, there = find_uv(), os.path.exists(venv)
    make = [uv, "venv", "-q", "--python", interpreter] if uv else [interpreter, "-m", "venv"]
    try:
        run([*make, "--clear", venv])
    except SystemExit:
        if not there:
            shutil.rmtree(venv, ignore_errors=True)  # half of one would be taken for a whole one
        raise


def install(venv: str, goal: Mark) -> None:
    """Install the lock where there is one, and the project itself where it is one."""
    python = os.path.join(venv, "bin", "python")
    uv = find_uv()
    pip = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
    locked, files = LOCK in goal["files"], goal["files"]
    if locked:
        run([*pip, "--no-deps", "--require-hashes", "-r", LOCK])
    elif "requirements.txt" in files and "pyproject.toml" not in files:
        run([*pip, "-r", "requirements.txt"])
    if "pyproject.toml" in files:
        extras = f"[{','.join(goal['extras'])}]" if goal["extras"] and not locked else ""
        run([*pip, *(["--no-deps"] if locked else []), "-e", f".{extras}"])


def main() -> None:
    """Carry out the orders that the one argument holds."""
    orders: Orders = json.loads(sys.argv[1])
    venv = os.path.abspath(os.path.expanduser(orders["venv"]))
    mark = os.path.join(venv, MARK)
    goal, before = wanted(orders), read_mark(mark)
    if before == goal:
        print(f"nothing to do: {venv} is as it should be")
        return
    another = bool(before) and before["python"] != goal["python"]
    if another or not os.path.exists(os.path.join(venv, "bin", "python")):
        make_venv(venv, os.path.expanduser(orders["python"] or sys.executable))
    with suppress(FileNotFoundError):
        os.unlink(mark)  # until all of it is installed, nobody knows what is
    install(venv, goal)
    with open(mark + ".part", "w", encoding="ascii") as file:
        json.dump(goal, file)
    os.replace(mark + ".part", mark)
    changed = changes(before, goal) if before else ["everything is new"]
    print(f"ready: {venv}; changed: {', '.join(changed)}")


if __name__ == "__main__":
    main()
