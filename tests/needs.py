"""What some tests need beyond what `./inv` installs: one table, for their skips and `./inv test --all`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOG = ROOT / ".venv" / "needs.log"
POLICY = "/usr/sbin/policy-rc.d"
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
CHROMIUM = "chromium or chromium-browser"
LOCALE_SOURCE = "/usr/share/i18n/locales/en_US"

PACKAGES = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "/usr/aarch64-linux-gnu/include/stdio.h": "libc6-dev-arm64-cross",
    "qemu-aarch64": "qemu-user",
    "busybox": "busybox",
    CHROMIUM: "chromium",
    "dropbear": "dropbear-bin",
    "fish": "fish",
    "ksh": "ksh",
    "tcsh": "tcsh",
    "zsh": "zsh",
    LOCALE_SOURCE: "locales",
    "shellcheck": "shellcheck",
    "sshfs": "sshfs",
    "uv": "",
}
"""A program or a file, and the Debian package that brings it; Debian has no package of an empty name."""
ARM64 = ("aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu/include/stdio.h", "qemu-aarch64")


def find(name: str) -> str | None:
    """Return where a program or file of the table is, or None if it is missing."""
    if name.startswith("/"):
        return name if Path(name).exists() else None
    path = f"{os.environ.get('PATH', os.defpath)}:{SBIN}"
    return next((found for each in name.split(" or ") if (found := shutil.which(each, path=path))), None)


def why_missing(*names: str) -> str:
    """Return why a test that needs these must skip, or nothing if all are here."""
    missing = [name for name in names if not find(name)]
    packages = [PACKAGES[name] for name in missing if PACKAGES.get(name)]
    advice = f" (./inv test --all, or apt-get install {' '.join(packages)})" if packages else ""
    return f"missing: {', '.join(missing)}{advice}" if missing else ""


def skip_without(*names: str) -> pytest.MarkDecorator:
    """Return the mark of a test that skips if one of these is missing."""
    reason = why_missing(*names)
    return pytest.mark.skipif(bool(reason), reason=reason)


def install() -> None:
    """Install what is missing, if apt-get and the rights for it are here; print what cannot be had."""
    missing = _missing()
    packages = [PACKAGES[name] for name in missing if PACKAGES[name]]
    if packages and shutil.which("apt-get"):
        as_root = _as_root()
        if as_root is not None:
            _apt_install(as_root, packages)
    left = _missing()
    if left:
        _say(f"cannot be installed here, their tests skip: {', '.join(left)}")


def _missing() -> list[str]:
    unused = {CHROMIUM} if "CI" in os.environ else set()  # its tests skip in CI
    return [name for name in PACKAGES if not find(name) and name not in unused]


def _say(line: str) -> None:
    print(f"inv test --all: {line}", file=sys.stderr, flush=True)


def _as_root() -> list[str] | None:
    """Return the words before a command that make it root's, or None if nothing does."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    if shutil.which("sudo") and subprocess.run([*sudo, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        return sudo
    return None


def _apt_install(as_root: list[str], packages: list[str]) -> None:
    """Install those of the packages that this release of Debian has."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:

        def apt_get(*words: str) -> bool:
            command = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *words]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            )
            return done.returncode == 0

        _say(f"installing with apt-get: {' '.join(packages)} (log: {LOG})")
        words = ["install", "-y", "--no-install-recommends"]
        updated = apt_get("update")
        # One name that is unknown here would stop all.
        known = [name for name in packages if apt_get("--simulate", *words, name)]
        with _no_services(as_root):
            installed = apt_get(*words, *known)
    if not (updated and installed):
        _say(f"apt-get failed, see {LOG}")


@contextmanager
def _no_services(as_root: list[str]) -> Iterator[None]:
    """Keep Debian from starting services as it installs them (invoke-rc.d(8)), as `./inv` does."""
    if Path(POLICY).exists() and not is_left(Path(POLICY).read_text(errors="replace")):
        yield
        return
    made = f"# made by ./inv, process {os.getpid()}"
    script = f"printf '#!/bin/sh\\n{made}\\nexit 101\\n' >{POLICY} && chmod 755 {POLICY}"
    subprocess.run([*as_root, "sh", "-c", script], check=True)
    try:
        yield
    finally:
        subprocess.run([*as_root, "rm", "-f", POLICY], check=True)


def is_left(policy: str) -> bool:
    """Return whether a run of `./inv` that was killed left this file."""
    made = re.search(r"^# made by \./inv, process (\d+)$", policy, re.MULTILINE)
    try:
        return made is not None and b"inv" not in Path(f"/proc/{made[1]}/cmdline").read_bytes()
    except OSError:
        return True
