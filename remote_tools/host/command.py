"""Start the command of a run: its arguments, its environment, its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import signal
import stat
import sys
import termios
from typing import TYPE_CHECKING

from .python_path import python_path
from .run_folder import Run, account_umask, name_sum, state_home

if TYPE_CHECKING:
    from .messages import Spec


class Refusal(Exception):
    """A failed request; it becomes an error reply.

    Args:
        kind: kind of error (`unavailable`, `permission`, `usage`, `io`, `data`).
        message: what failed and where.
        hint: what to type next.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        """Keep the parts; the client composes the user's message from them."""
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


_TEXT = (str, type(None))
SPEC = {
    **dict.fromkeys(("shell", "venv_path", "python", "term", "device_for"), _TEXT),
    **{name: (list, type(None)) for name in ("argv", "size")},
    **dict.fromkeys(("cache_dir", "on_disconnect"), (str,)),
    "pty": (bool,),
    "lease_s": (int, float),
    "keep_runs": (int,),
    "env": (dict,),
}
"""The types of a run's spec: what is wrong in it would end the run's owner, which has no caller."""


def check_spec(spec: Spec) -> None:
    """Check the types of a spec.

    Raises:
        ValueError: one is another.
    """
    for name, kinds in SPEC.items():
        if type(spec[name]) not in kinds:  # type: ignore[literal-required]
            raise ValueError(name)
    argv, size = spec["argv"], spec["size"] or [0, 0]
    words = [*(argv or []), *spec["env"], *spec["env"].values()]
    words += [spec[name] or "" for name in ("shell", "term", "venv_path", "python", "cache_dir")]
    if (
        (argv is None) == (spec["shell"] is None)
        or argv == []
        or any(b"\0" in os.fsencode(word) for word in words)
    ):
        raise ValueError("argv")
    if len(size) != 2 or not all(type(each) is int and 0 <= each < 1 << 16 for each in size):
        raise ValueError("size")
    if spec["keep_runs"] < 0 or not 0 <= spec["lease_s"] < 1e9 or any("=" in name for name in spec["env"]):
        raise ValueError("keep_runs, lease_s or env")


def environment(spec: Spec, run: Run, code_path: str, root: str) -> dict[str, str]:
    """Return the variables that we set for the run.

    Raises:
        Refusal: the interpreter or virtual environment in the settings is missing.
    """
    added = {
        "PYTHONPATH": python_path(os.path.dirname(os.path.dirname(run.folder)), code_path),
        "PYTHONUNBUFFERED": "1",
        "AUTOTUNE_CACHE_DIR": root,
        "AUTOTUNE_OUTPUTS": run.claims_path,
        "REMOTE_RUN_ID": run.id,
    }
    search = os.environ.get("PATH", os.defpath)
    if spec["venv_path"]:
        venv = os.path.abspath(os.path.expanduser(spec["venv_path"]))
        if find_program("python", os.path.join(venv, "bin")) is None:
            hint = "inv provision creates it; or correct venv_path"
            message = "no virtual environment at {} on the host".format(spec["venv_path"])
            raise Refusal("unavailable", message, hint)
        added.update(VIRTUAL_ENV=venv, PATH=os.path.join(venv, "bin") + os.pathsep + search)
    elif spec["python"]:
        python = find_program(os.path.expanduser(spec["python"]), search)
        if python is None:
            raise Refusal(
                "unavailable", "no {} on the host".format(spec["python"]), "correct python: inv config"
            )
        added["PATH"] = python_folder(python) + os.pathsep + search
    elif find_program("python", search) is None:
        added["PATH"] = search + os.pathsep + python_folder(find_program("python3", search) or sys.executable)
    if spec["term"]:
        added["TERM"] = spec["term"]
    added.update(spec["env"])
    return added


def find_program(name: str, search: str) -> str | None:
    """Return the executable file of a name or path; importing shutil would slow down every session."""
    for folder in search.split(os.pathsep) if "/" not in name else [""]:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def python_folder(interpreter: str) -> str:
    """Return a folder for PATH in which `python` is this interpreter.

    It is a script, not a link: an interpreter that is started by a link does not find its environment. The
    state may be on a file system from which nothing can be executed (mount(8): noexec).
    """
    name = f"python-{name_sum(interpreter):08x}"
    folder = ""
    temporary = (os.environ.get("TMPDIR") or "/var/tmp", "/tmp")
    for place in (state_home(), *(f"{tmp}/remote-tools-{os.getuid()}" for tmp in temporary)):
        with contextlib.suppress(OSError):
            if place != state_home() and not is_private(place):
                continue
            folder = folder_with_python(os.path.join(place, name), interpreter)
            if os.access(os.path.join(folder, "python"), os.X_OK):
                break
    return folder or os.path.dirname(interpreter)


def is_private(place: str) -> bool:
    """Return whether a folder is this account's alone and stays where it is; make it if it is missing.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(place, mode=0o700, exist_ok=True)
    info, above = os.lstat(place), os.stat(os.path.dirname(place))
    moved_by_others = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    return info.st_uid == os.getuid() and info.st_mode & 0o170077 == stat.S_IFDIR and not moved_by_others


def folder_with_python(folder: str, interpreter: str) -> str:
    """Write the script that starts an interpreter, if it is missing; return its folder."""
    path, part = os.path.join(folder, "python"), os.path.join(folder, str(os.getpid()))
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("#!/bin/sh\nexec '{}' \"$@\"\n".format(interpreter.replace("'", "'\\''")))
        os.chmod(part, 0o700)
        os.replace(part, path)
    return folder


def command_of(spec: Spec) -> list[str]:
    """Return the arguments to execute; a shell string goes to the login shell, as under ssh."""
    shell = spec["shell"]
    if shell is None:
        return list(spec["argv"] or ())
    # A shell would take a string that begins with - for an option.
    blank = " " if shell.startswith("-") else ""
    return [pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh", "-c", blank + shell]


def guarded(argv: list[str], run_id: str, device_for: str) -> list[str]:
    """Return the command line that runs a command once the host's accelerator is free."""
    from . import device_lock

    return device_lock.guarded(argv, {"run": run_id, "for": device_for})


def spawn(argv: list[str], cwd: str, env: dict[str, str], streams: tuple[int, int, int], pty: bool) -> int:
    """Start the command as leader of its own session and process group; return its pid.

    Raises:
        OSError: the command could not be executed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            if pty:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGHUP", "SIGCHLD"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            os.umask(account_umask())
            os.chdir(cwd)
            os.closerange(3, writing)
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(writing, b"%d" % (error.errno or errno.EIO))
        os._exit(127)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        failure = file.read()
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return pid
