"""Start and kill processes with all that they started."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from autotune.model.trial import Status
from autotune.sites.messages import Ending
from autotune.sites.runner import PR_SET_CHILD_SUBREAPER, prctl

FileAction = tuple[int, int, int]
"""An entry of posix_spawn's `file_actions`: what to do, and with which descriptors."""


class Family:
    """All descendants of this process, in whatever session: this process is their subreaper."""

    def __init__(self) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)

    def kill_all_but(self, kept: Collection[int]) -> None:
        """Kill and reap our descendants, except those that are kept."""
        while strays := [pid for pid in self.children() if pid not in kept]:
            for pid in dict.fromkeys(strays):
                kill(pid)
                with contextlib.suppress(
                    ChildProcessError
                ):  # the list may be wrong while it changes: proc(5)
                    os.waitpid(pid, 0)

    def children(self) -> list[int]:
        """Return our own children, in any order."""
        return [int(word) for word in os.pread(self._children, 1 << 16, 0).split()]


def children_of(pid: int) -> set[int]:
    """Return the children of any process of this user; empty if it is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.update(map(int, (task / "children").read_text(encoding="ascii").split()))
    return found


def spawn(command: Sequence[str], environment: Mapping[str, str], files: Sequence[FileAction]) -> int:
    """Start a program in a new session; signals that Python ignores get their default action.

    Raises:
        OSError: it cannot be executed.
    """
    ignored = [signal.SIGPIPE, signal.SIGXFSZ]
    return os.posix_spawn(
        command[0], list(command), environment, file_actions=files, setsid=True, setsigdef=ignored
    )


def kill(pid: int) -> None:
    """Kill a process that is not reaped yet, and its group if it leads one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    signal_group(pid, signal.SIGKILL)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a process group; do nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@contextlib.contextmanager
def first_to_go() -> Iterator[None]:
    """Make the kernel kill processes started here first if memory runs out (proc(5), oom_score_adj)."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        own = score.read_text(encoding="ascii")
        score.write_text("1000", encoding="ascii")
    yield
    with contextlib.suppress(OSError):
        score.write_text(own, encoding="ascii")


def signal_name(number: int) -> str:
    """Return SIGSEGV for 11; a number for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills() -> int:
    """Return how many processes the system has killed because it ran out of memory (proc_vmstat(5))."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def filled(usage: resource.struct_rusage, memory_bytes: int) -> bool:
    """Return whether a process failed because of its memory limit.

    Half of the limit counts: an array that grows by doubling fails well before all of it is in use.
    """
    return bool(memory_bytes and usage.ru_maxrss * 1024 * 2 >= memory_bytes)


def out_of_memory(memory_bytes: int) -> Ending:
    """Return the ending of a process that reached its memory limit."""
    return Ending(Status.OUT_OF_MEMORY, f"needed more than {memory_bytes / 2**20:g} MiB of memory")
