"""How a candidate ended, by what its process said and by how it died."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import struct

from autotune.model.budget import Limits
from autotune.model.trial import Status
from autotune.sites.messages import HEADER, LOST, REFUSALS, REFUSED_INPUT, Ending, Settings
from autotune.sites.processes import filled, out_of_memory, signal_name

_UNDECLARED = "a kernel changes only the inputs that its in_place names"


def refused(reply: bytes, limits: Limits) -> tuple[Ending, bool]:
    """Return how a candidate ended that could not be loaded or raised an exception.

    Returns:
        The ending, and whether the device has failed, and not the candidate.
    """
    (code,) = struct.unpack_from("=q", reply.ljust(8, b"\xff"))
    text = reply[8:].decode(errors="replace")
    if code == REFUSED_INPUT:
        return Ending(Status.WRONG_OUTPUT, f"{text}; {_UNDECLARED}"), False
    status = REFUSALS.get(code, Status.ERROR)
    if status is Status.OUT_OF_MEMORY and limits.memory_bytes:
        return out_of_memory(limits.memory_bytes), False
    return Ending(status, text or "sent a reply that is no result"), code == LOST


def died(
    status: int, usage: resource.struct_rusage, settings: Settings, header: bytes, *, oom_killed: bool
) -> Ending:
    """Return how a candidate ended whose process died, or stopped when it should not.

    Args:
        status: as waitpid returned it.
        usage: of the process.
        settings: its limits, and where the tensors are.
        header: the begin of the segment; see `HEADER`.
        oom_killed: the system has killed a process meanwhile, because it ran out of memory.
    """
    limits = settings.limits
    last_errno, _, fault = HEADER.unpack_from(header)
    if os.WIFSTOPPED(status):
        return Ending(Status.CRASH, f"stopped itself with {signal_name(os.WSTOPSIG(status))}")
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        return Ending(Status.ERROR, f"ended the process with exit code {code} before it returned")
    number = os.WTERMSIG(status)
    if number == signal.SIGXFSZ:
        return Ending(Status.ERROR, f"wrote more than {limits.output_bytes} bytes of output")
    if number == signal.SIGKILL and oom_killed:
        return Ending(Status.OUT_OF_MEMORY, "killed by the system, which ran out of memory")
    if number == signal.SIGSEGV and (name := _written_input(settings, fault)):
        return Ending(Status.WRONG_OUTPUT, f"wrote to its input {name}; {_UNDECLARED}")
    failed = last_errno == errno.ENOMEM
    if failed and filled(usage, limits.memory_bytes):
        return out_of_memory(limits.memory_bytes)
    hint = "; an allocation may have failed before (errno is ENOMEM)" if failed else ""
    return Ending(Status.CRASH, f"killed by {signal_name(number)}{hint}")


def _written_input(settings: Settings, fault: int) -> str:
    """Return the name of the read-only input that a candidate has died of writing to; empty if none."""
    for begin, length, protection in reversed(settings.protected):  # the last one holds
        if begin <= fault < begin + length:
            places = zip(settings.inputs, settings.tensors, strict=False)
            inside = [
                spec.name for spec, at in places if any(begin <= each < begin + length for each in at[:2])
            ]
            return inside[0] if inside and protection == mmap.PROT_READ else ""
    return ""
