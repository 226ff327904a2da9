"""Find out what is installed on this machine, and how to install more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from .accounts import replace

if TYPE_CHECKING:
    from .messages import RsyncHere, RsyncKept

INSTALLERS = (
    ("apt-get", "sudo apt-get install", "debian ubuntu"),
    ("dnf", "sudo dnf install", "fedora rhel centos amzn rocky almalinux"),
    ("zypper", "sudo zypper install", "suse opensuse sles"),
    ("apk", "sudo apk add", "alpine"),
    ("pacman", "sudo pacman -S", "arch"),
    ("brew", "brew install", "macos"),
)
"""Package managers: the program, its install command, and the systems that use it."""


def install(package: str) -> str:
    """Return the command that installs a package with this machine's package manager."""
    found = next((words for program, words, _ in INSTALLERS if shutil.which(program)), "install")
    return f"{found} {package}"


def install_on(system: str, package: str) -> str:
    """Return the command that installs a package on a system, named as `system_here` returns it."""
    here = set(system.split())
    found = next((words for _, words, systems in INSTALLERS if here & set(systems.split())), "install")
    return f"{found} {package}"


def rsync_here(state: str, name: str, keep: bool = True) -> RsyncHere:
    """Return the host's rsync; each program's version is read once, and cached in `state` if `keep`."""
    path = shutil.which(name)
    if path is None:
        return {"path": None, "says": "", "system": system_here()}
    info = os.stat(path)
    key: list[object] = [path, info.st_size, info.st_mtime_ns]
    cache = os.path.join(state, "rsync-version")
    try:
        with open(cache, encoding="ascii") as file:
            known: RsyncKept = json.load(file)
        if known["key"] == key:
            return known
    except (OSError, ValueError, KeyError):
        pass  # not cached yet, or only partly written
    command = [path, "--version"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode("ascii", "replace")[:2000]
    known = {"path": path, "says": text, "system": system_here(), "key": key}
    if keep:
        replace(cache, json.dumps(known).encode("ascii"))
    return known


def system_here() -> str:
    """Return ID and ID_LIKE of os-release(5), separated by spaces; `macos` on macOS."""
    if sys.platform == "darwin":
        return "macos"
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = dict(line.strip().partition("=")[::2] for line in file if "=" in line)
    except OSError:
        return ""
    return " ".join(lines.get(key, "").strip("\"'") for key in ("ID", "ID_LIKE")).strip()
