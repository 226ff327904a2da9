"""Create a project's virtual environment: the program that `inv provision` runs on the host.

Standard library only, Python >= 3.8. It reads `Orders` as JSON from its one argument, uses uv if the host has
it, else venv and pip, and does not need root. It does nothing if the venv's mark shows that all of it is
installed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Sequence

if TYPE_CHECKING:
    from .messages import Mark, Orders

MARK = ".remote-provision.json"
LOCK = "requirements.lock"
PIP = ("--no-input", "--disable-pip-version-check", "install", "-q")
MISSING = """\
import contextlib, importlib, json, re, sys
from importlib import metadata
def lacks(name):
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return True
names, backend = json.loads(sys.argv[1])
missing = list(filter(lacks, names))
if not missing and backend:
    with contextlib.redirect_stdout(sys.stderr):
        module = importlib.import_module(backend)
        more = getattr(module, "get_requires_for_build_editable", list)()
    missing = [name for name in (re.match("[A-Za-z0-9._-]*", each)[0] for each in more) if lacks(name)]
print(*missing)
"""
"""Prints, in the venv's Python, what is missing to build the project, and to make it editable (PEP 660)."""


def fail(code: int, message: str) -> NoReturn:
    """Print a message and exit with a sysexits code."""
    print(f"provision: {message}", file=sys.stderr)
    sys.exit(code)


def find_uv() -> str | None:
    """Return uv's path; its installer's folders may not be in the PATH of an ssh session."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.expanduser("~/.local/bin:~/.cargo/bin"))


def accelerator() -> str:
    """Return `neuron`, `cuda` or `plain`."""
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
    """Return the mark of the venv to create: everything that decides what will be in it."""
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
    """Return an interpreter's version as major.minor, which a virtual environment depends on."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.check_output([os.path.expanduser(interpreter), "-c", code]).decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        fail(69, f"{interpreter} does not start: {error}")


def changes(before: Mark, goal: Mark) -> list[str]:
    """Return a line for each difference from the installed state."""
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
    """Return the mark of what is installed; empty if it is missing or damaged."""
    try:
        with open(path, encoding="ascii") as file:
            found: Mark = json.load(file)
            return found
    except (OSError, ValueError):
        return {}


def run(command: Sequence[str]) -> None:
    """Run a command; exit if it fails."""
    print("$ " + " ".join(command), flush=True)
    code = subprocess.run(command).returncode
    if code:
        fail(69, f"{command[0]} failed with exit code {code}; see its output above")


def make_venv(venv: str, interpreter: str) -> None:
    """Create an empty virtual environment, replacing an existing one."""
    uv, there = find_uv(), os.path.exists(venv)
    make = [uv, "venv", "-q", "--python", interpreter] if uv else [interpreter, "-m", "venv"]
    try:
        run([*make, "--clear", venv])
    except SystemExit:
        if not there:
            shutil.rmtree(venv, ignore_errors=True)  # an incomplete venv would look complete
        raise


def install(venv: str, goal: Mark) -> None:
    """Install the locked requirements, and the project itself if it has a pyproject.toml.

    With a lock nothing is fetched without a hash: what builds the project must be in the lock too.
    """
    python = os.path.join(venv, "bin", "python")
    uv = find_uv()
    pip = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", *PIP]
    locked, files = LOCK in goal["files"], goal["files"]
    if locked:
        run([*pip, "--no-deps", "--require-hashes", "-r", LOCK])
    elif "requirements.txt" in files and "pyproject.toml" not in files:
        run([*pip, "-r", "requirements.txt"])
    if "pyproject.toml" in files and locked:
        check_backend(python)
        run([*pip, "--no-deps", "--no-build-isolation", "-e", "."])
    elif "pyproject.toml" in files:
        extras = f"[{','.join(goal['extras'])}]" if goal["extras"] else ""
        run([*pip, "-e", f".{extras}"])


def build_system(text: str) -> tuple[list[str], str]:
    """Return what builds a project by its pyproject.toml: the names required, and the backend's module.

    Requirements with a condition (a marker) are left out; the backend is empty if it is in the project.
    """
    section = re.search(r"^\[build-system\](.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"^\s*#.*$", "", section[1] if section else "", flags=re.MULTILINE)
    wanted = re.search(r"^\s*requires\s*=\s*\[(.*?)\]\s*$", lines, re.MULTILINE | re.DOTALL)
    backend = re.search(r"^\s*build-backend\s*=\s*[\"']([\w.]+)", lines, re.MULTILINE)
    words = [one or two for one, two in re.findall(r'"([^"]*)"|\'([^\']*)\'', wanted[1])] if wanted else []
    names = [re.split(r"[^\w.-]", word.strip(), maxsplit=1)[0] for word in words if ";" not in word]
    within = re.search(r"^\s*backend-path\s*=", lines, re.MULTILINE)
    module = "" if within else backend[1] if backend else "setuptools.build_meta"
    return (names if wanted else ["setuptools"]), module


def check_backend(python: str) -> None:
    """Exit if something that builds the project is not in the venv: pip would not say where it belongs."""
    with open("pyproject.toml", encoding="utf-8", errors="replace") as file:
        names, backend = build_system(file.read())
    words = [python, "-c", MISSING, json.dumps([names, backend])]
    # A backend that fails prints why again when pip calls it.
    found = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    missing = found.stdout.decode("utf-8", "replace").split()
    if missing:
        fail(
            78,
            f"{LOCK} lacks what builds the project: {' '.join(missing)} ([build-system] of pyproject.toml)\n"
            "  next: lock it too, for nothing is fetched without a hash, for example: echo "
            f"{' '.join(missing)} | uv pip compile --generate-hashes pyproject.toml - -o {LOCK}",
        )


def main() -> None:
    """Carry out the orders in the program's argument."""
    orders: Orders = json.loads(sys.argv[1])
    venv = os.path.abspath(os.path.expanduser(orders["venv"]))
    mark = os.path.join(venv, MARK)
    goal, before = wanted(orders), read_mark(mark)
    if before == goal:
        print(f"nothing to do: {venv} is up to date")
        return
    another = bool(before) and before["python"] != goal["python"]
    if another or not os.path.exists(os.path.join(venv, "bin", "python")):
        make_venv(venv, os.path.expanduser(orders["python"] or sys.executable))
    with suppress(FileNotFoundError):
        os.unlink(mark)  # until the installation is complete, the state of the venv is unknown
    install(venv, goal)
    with open(mark + ".part", "w", encoding="ascii") as file:
        json.dump(goal, file)
    os.replace(mark + ".part", mark)
    changed = changes(before, goal) if before else ["everything is new"]
    print(f"ready: {venv}; changed: {', '.join(changed)}")


if __name__ == "__main__":
    main()
