"""Wait for the lock on the host's accelerator, then exec the command.

    python3 -I -S device_lock.py HOLDER COMMAND...

The lock is flock(2) on one file that all users of the host share. It belongs to the open file, which the
command inherits through exec. So the kernel frees it when the command and its children have ended, however
they ended; no stale lock is possible. If only the connection or the run's owner dies, the command keeps it.

The file names the holder, for messages only: anybody on the host can write it.
This file is sent to the host: standard library only, Python >= 3.8.
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
"""Variable with the lock's path; on a host with several accelerators, its administrator sets one for each."""
OWN = "/var/lib/remote-tools/device.lock"
"""The administrator's lock, if there is one: in a folder of root's, nobody can remove it while it is held."""
SHARED = "/tmp/remote-tools-device.lock"
"""Every user of a Linux host can write to /tmp."""
REMIND_S = 60.0
"""Time between two reminders to a waiting run."""
FIRST_SHARED_FD = 100
"""The command inherits the lock above the descriptors that shell scripts use."""
RETRIES = 20


class Unusable(Exception):
    """The lock file cannot be used; the message says why, and how to fix it."""


def lock_path() -> str:
    """Return the path of the lock's file."""
    given = os.environ.get(PATH_VARIABLE)
    return given or (OWN if os.path.exists(OWN) else SHARED)


def is_shared(path: str) -> bool:
    """Return whether users of the host may put another file in the place of the lock."""
    try:
        info = os.stat(os.path.dirname(path) or ".")
        return bool(info.st_mode & 0o022) or info.st_uid not in (os.getuid(), 0)
    except OSError:
        return False


def guarded(argv: Sequence[str], holder: DeviceOrder) -> list[str]:
    """Return the command line that runs a command under the lock.

    Args:
        argv: the command.
        holder: the run, and the person who asked for it.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(holder), *argv]


def open_shared(path: str) -> int:
    """Open the file that all users share; create it if it is missing.

    A link is rejected: anybody could point it at one of our files. O_CREAT needs O_EXCL, because
    fs.protected_regular (proc_sys_fs(5)) forbids O_CREAT on another user's file in /tmp.

    Raises:
        Unusable: it is not a regular file, or cannot be opened.
    """
    for _ in range(RETRIES):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(fd, 0o666)  # regardless of the umask
            except FileExistsError:
                continue
            except OSError as error:
                raise Unusable(f"{path} cannot be created: {error.strerror}") from error
        except PermissionError:  # another process is between its open and its fchmod
            time.sleep(0.05)
            continue
        except OSError as error:
            raise Unusable(f"{path}: {error.strerror}; remove it") from error
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_nlink <= 1:
            return fd
        raise Unusable(f"{path} is not a regular file with one link; remove it")
    raise Unusable(f"{path} cannot be opened; remove it, or let everybody write to it")


def still_there(fd: int, path: str) -> bool:
    """Return whether the path still leads to the open file; a cleaner of /tmp may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def take(path: str, order: DeviceOrder) -> int:
    """Wait for the lock; return the open file that holds it.

    Raises:
        Unusable: the lock file cannot be used.
    """
    began = time.monotonic()
    while True:
        fd = open_shared(path)
        try:
            waited = not locked_at_once(fd)
            if waited:
                wait(fd)
        except OSError as error:  # not each file system has locks
            raise Unusable(f"{path} cannot be locked: {error.strerror}") from error
        if still_there(fd, path):
            break
        os.close(fd)
    if waited:
        report(f"the accelerator is free, after {span(time.monotonic() - began)}")
    holder: DeviceHolder = {**order, "user": user(), "pid": os.getpid(), "since": time.time()}
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode("ascii"), 0)
    except OSError:  # a full disk: the lock is held all the same, and nobody learns by whom
        pass
    return fd


def locked_at_once(fd: int) -> bool:
    """Take the lock if it is free; return whether it was."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait(fd: int) -> None:
    """Wait for the lock; the kernel grants it in the order of the requests."""
    time.sleep(0.05)  # a holder writes its name right after it took the lock
    report(f"{held_by(fd)}; waiting")
    signal.signal(signal.SIGALRM, lambda *_: report(f"{held_by(fd)}; still waiting"))
    signal.setitimer(signal.ITIMER_REAL, REMIND_S, REMIND_S)
    fcntl.flock(fd, fcntl.LOCK_EX)
    signal.setitimer(signal.ITIMER_REAL, 0)


def holder_of(fd: int) -> DeviceHolder | None:
    """Return the holder from the lock file, in printable text; None if it cannot be read.

    Anybody may have written anything there.
    """
    try:
        found = json.loads(os.pread(fd, 4096, 0))
        return {
            "for": plain(found["for"]),
            "run": plain(found["run"]),
            "user": plain(found["user"]),
            "pid": int(plain(found["pid"])),
            "since": float(found["since"]),
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def outlived(holder: DeviceHolder) -> bool:
    """Return whether the process that took the lock has ended, so its children hold it."""
    return not os.path.exists(f"/proc/{holder['pid']}")


def held_by(fd: int) -> str:
    """Return a message about the holder of the lock, its run, and for how long it has held it."""
    holder = holder_of(fd)
    if holder is None:
        return "the accelerator is in use"
    who, run, account, pid = holder["for"], holder["run"], holder["user"], holder["pid"]
    if outlived(holder):
        return f"the accelerator is in use by processes that {run} of {who} left running here as {account}"
    since = span(max(0.0, time.time() - holder["since"]))
    return f"the accelerator is in use by {who} for {since} now: {run}, here as {account}, process {pid}"


def user() -> str:
    """Return the name of this process's account, or its uid; in a container it may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def plain(value: object) -> str:
    """Return a value as at most 100 printable characters: anybody may have written it."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:100])


def span(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def report(text: str) -> None:
    """Print a message on stderr, apart from the command's output."""
    print(f"device: {text}", file=sys.stderr, flush=True)


def main(holder: str, argv: Sequence[str]) -> NoReturn:
    """Take the lock and exec the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the wait
    try:
        fd = take(lock_path(), json.loads(holder))
    except Unusable as error:
        report(f"no lock: {error}, or set device_lock to false")
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
