"""Wait for the host's accelerator, then become the command: a lock that cannot outlive its holder.

    python3 -I -S device_lock.py HOLDER COMMAND...

The lock is flock(2) on one file that all users of the host share. It belongs to the open file, which the
command inherits through exec, so the kernel frees it when the command and whatever it forked are gone,
however they ended: there is nothing to clean up. Where only the connection or the run's owner dies, the
command, which still uses the accelerator, keeps it.

What the file says, who holds it, is for people. Anybody on the host can write it, so nothing rests on it.
This file is sent to the host: stdlib only, Python >= 3.8.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING, NoReturn, Sequence

if TYPE_CHECKING:
    from .messages import DeviceHolder, DeviceOrder

PATH_VARIABLE = "REMOTE_DEVICE_LOCK"
"""Where a host has several accelerators for several people, its administrator sets one path for each."""
PATH = "/tmp/remote-tools-device.lock"
"""/tmp is the one folder that every user of a Linux host can write to."""
REMIND_S = 60.0
"""How often one who waits is told that they still do."""
FIRST_SHARED_FD = 100
"""The command inherits the lock above the descriptors that shell scripts use for themselves."""
RETRIES = 20


class Unusable(Exception):
    """The lock's file cannot be used; says why, and what mends it."""


def guarded(argv: Sequence[str], holder: DeviceOrder) -> list[str]:
    """Return the words that run a command under the lock.

    Args:
        argv: the command.
        holder: {"run": id, "for": who asked for it}.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(holder), *argv]


def open_shared(path: str) -> int:
    """Open the file that all users share, making it where it is missing.

    A link in its place is refused, else anybody could have us write to a file of ours. O_CREAT stands only
    beside O_EXCL: fs.protected_regular (proc_sys_fs(5)) forbids it on a file of another user in /tmp.

    Raises:
        Unusable: something else stands there, or it may not be opened.
    """
    for _ in range(RETRIES):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(fd, 0o666)  # whatever the umask says
            except FileExistsError:
                continue
        except PermissionError:  # between another's open and its fchmod
            time.sleep(0.05)
            continue
        except OSError as error:
            raise Unusable(f"{path}: {error.strerror}; remove it") from error
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_nlink <= 1:
            return fd
        raise Unusable(f"{path} is not a plain file of its own; remove it")
    raise Unusable(f"{path} may not be opened; remove it, or give everybody the right to write there")


def still_there(fd: int, path: str) -> bool:
    """Tell whether the path still leads to the open file: what cleans /tmp may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def take(path: str, order: DeviceOrder) -> int:
    """Wait until the lock is ours; return the open file that holds it.

    Raises:
        Unusable: there can be no lock.
    """
    began = time.monotonic()
    while True:
        fd = open_shared(path)
        waited = not locked_at_once(fd)
        if waited:
            wait(fd)
        if still_there(fd, path):
            break
        os.close(fd)
    if waited:
        say(f"the accelerator is free, after {span(time.monotonic() - began)}")
    holder: DeviceHolder = {**order, "user": user(), "pid": os.getpid(), "since": time.time()}
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(holder).encode("ascii"), 0)
    return fd


def locked_at_once(fd: int) -> bool:
    """Take the lock where nobody holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait(fd: int) -> None:
    """Wait for the lock; the kernel serves those who wait in their order."""
    time.sleep(0.05)  # a holder writes its name right after it took the lock
    say(f"{held_by(fd)}; waiting")
    signal.signal(signal.SIGALRM, lambda *_: say(f"{held_by(fd)}; still waiting"))
    signal.setitimer(signal.ITIMER_REAL, REMIND_S, REMIND_S)
    fcntl.flock(fd, fcntl.LOCK_EX)
    signal.setitimer(signal.ITIMER_REAL, 0)


def holder_of(fd: int) -> DeviceHolder | None:
    """Return what a holder wrote, printable; None if it cannot be read."""
    try:
        found = json.loads(os.pread(fd, 4096, 0))
        return {
            "for": plain(found["for"]),
            "run": plain(found["run"]),
            "user": plain(found["user"]),
            "pid": int(plain(found["pid"])),
            "since": float(found["since"]),
        }
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def outlived(holder: DeviceHolder) -> bool:
    """Tell whether the run that took the lock is gone, and what it left running holds it."""
    return not os.path.exists(f"/proc/{holder['pid']}")


def held_by(fd: int) -> str:
    """Say who holds the lock, since when, and with which run."""
    holder = holder_of(fd)
    if holder is None:
        return "the accelerator is in use"
    who, run, account, pid = holder["for"], holder["run"], holder["user"], holder["pid"]
    if outlived(holder):
        return f"the accelerator is in use by what {run} of {who} left running here as {account}"
    since = span(max(0.0, time.time() - holder["since"]))
    return f"the accelerator is in use by {who} for {since} now: {run}, here as {account}, process {pid}"


def user() -> str:
    """Name the account that this runs as; a container's may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def plain(value: object) -> str:
    """Return a value as short text without control characters: anybody may have written it."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:100])


def span(seconds: float) -> str:
    """Return a length of time for people."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def say(text: str) -> None:
    """Tell the user, past the command's own output."""
    print(f"device: {text}", file=sys.stderr, flush=True)


def main(holder: str, argv: Sequence[str]) -> NoReturn:
    """Take the lock and become the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the waiting
    try:
        fd = take(os.environ.get(PATH_VARIABLE) or PATH, json.loads(holder))
    except Unusable as error:
        say(f"no lock: {error}, or set device_lock to false")
        sys.exit(69)
    os.set_inheritable(fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_SHARED_FD), True)
    os.close(fd)
    for number in (signal.SIGALRM, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        print(f"cannot execute {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
