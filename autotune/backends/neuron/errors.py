"""What the Neuron runtime and compiler say failed, and whose fault it is.

The numbers are those of nrt_status.h, as the runtime's API reference has them.
"""

from __future__ import annotations

import re
from typing import Literal

from autotune.backends.device import DeviceFault, Fault
from autotune.model.trial import Status

_NRT = re.compile(r"NRT Error (\w+)\((\d+)\)")
_OF_THE_CANDIDATE = {
    1: Status.ERROR,  # NRT_FAILURE
    2: Status.ERROR,  # NRT_INVALID
    3: Status.ERROR,  # NRT_INVALID_HANDLE
    4: Status.OUT_OF_MEMORY,  # NRT_RESOURCE
    5: Status.TIMEOUT,  # NRT_TIMEOUT
    10: Status.ERROR,  # NRT_UNSUPPORTED_NEFF_VERSION
    11: Status.OUT_OF_MEMORY,  # NRT_FAIL_HOST_MEM_ALLOC
    1002: Status.ERROR,  # NRT_EXEC_BAD_INPUT
    1003: Status.WRONG_OUTPUT,  # NRT_EXEC_COMPLETED_WITH_NUM_ERR: it computed NaN
    1004: Status.CRASH,  # NRT_EXEC_COMPLETED_WITH_ERR
    1006: Status.CRASH,  # NRT_EXEC_OOB
    1204: Status.TIMEOUT,  # NRT_EXEC_SW_NQ_OVERFLOW: notifications were lost
}
_OF_THE_CORE = frozenset({6, 9, 101, 1200, 1201, 1202, 1203, 1205, 1206})
"""NRT_HW_ERROR, NRT_LOAD_NOT_ENOUGH_NC, NRT_EXEC_UNIT_UNRECOVERABLE, the NRT_EXEC_HW_ERR_*, the proxy."""
_HARMLESS = frozenset({2, 4, 10, 1002, 1003})
"""After these the process can run the next candidate; nobody knows for the others, so it is replaced."""
_HARDWARE, _BUSY = 6, 1005

_MEMORY = re.compile(r"out of memory in (sbuf|psum)[^\n]*|NCC_EOOM\d+[^\n]*", re.IGNORECASE)
_COMPILER = re.compile(r"NCC_[A-Z]+\d+[^\n]*")


def of_the_runtime(text: str, kind: str, order: str) -> Fault | DeviceFault | Literal["busy"]:
    """Return what an error of the process that runs NEFFs means.

    Args:
        text: the exception's words, such as `NRT Error NRT_EXEC_OOB(1006): Failed to execute model`.
        kind: the exception's type.
        order: what it was to do: `load`, `run` or another.

    Returns:
        The exception to raise; "busy" if the core is to be tried again.
    """
    found = _NRT.search(text)
    if not found:
        status = Status.OUT_OF_MEMORY if kind == "MemoryError" else Status.ERROR
        return Fault(f"{kind}: {text}" if text else kind, status)
    code = int(found[2])
    if code == _BUSY:
        return "busy"
    if code == _HARDWARE and order == "load":  # so says the runtime's troubleshooting page
        return Fault(f"{text} (the NEFF may be for another target)", Status.ERROR, fatal=True)
    if code in _OF_THE_CORE:
        return DeviceFault(text)
    return Fault(text, _OF_THE_CANDIDATE.get(code, Status.ERROR), fatal=code not in _HARMLESS)


def of_the_compiler(log: str) -> tuple[Status, str] | None:
    """Return the status and one line for a compiler's log; None if it does not say what is wrong.

    What does not fit SBUF, PSUM or HBM is out_of_memory; all else that it names is compile_error.
    """
    if found := _MEMORY.search(log):
        return Status.OUT_OF_MEMORY, _line(found[0])
    if found := _COMPILER.search(log):
        return Status.COMPILE_ERROR, _line(found[0])
    told = [line for line in log.splitlines() if line.startswith("error: ")]
    return (Status.COMPILE_ERROR, _line(told[-1][len("error: ") :])) if told else None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
