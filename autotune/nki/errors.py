"""What goes wrong in a kernel, with the line of the kernel that did it."""

from __future__ import annotations

import sys
from types import FrameType

from autotune.model.errors import AutotuneError

_PACKAGE = __name__.rpartition(".")[0]


def inside(frame: FrameType) -> bool:
    """Tell whether a frame runs code of the interpreter, not of a kernel."""
    name = str(frame.f_globals.get("__name__", ""))
    return name == _PACKAGE or name.startswith(_PACKAGE + ".")


def kernel_frame(frame: FrameType | None) -> FrameType | None:
    """Return the nearest frame, from this one outwards, that runs a line of the kernel."""
    while frame is not None and inside(frame):
        frame = frame.f_back
    return frame


def kernel_line() -> tuple[str, int]:
    """Return the file and the number of the kernel's line that is running; ("", 0) if none is."""
    frame = kernel_frame(sys._getframe(1))
    return (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)


class NkiError(AutotuneError):
    """A kernel asks for something that the machine, or this interpreter, does not do.

    Attributes:
        reason: what is wrong, without the place.
        file, line: the kernel's line.
        tensor: name of the tensor that it is about, "" if none.
        memory: "sbuf", "psum" or "hbm", "" if none.
        number, limit: what was asked for and what is allowed, None if it is not about a number.
    """

    exit_code = 65

    def __init__(
        self,
        reason: str,
        *,
        tensor: str = "",
        memory: str = "",
        number: int | None = None,
        limit: int | None = None,
        at: tuple[str, int] | None = None,
    ) -> None:
        """Say what is wrong at the kernel's line that is running, or at the line given."""
        self.reason = reason
        self.file, self.line = at or kernel_line()
        self.tensor, self.memory, self.number, self.limit = tensor, memory, number, limit
        super().__init__(f"{self.file}:{self.line}: {reason}" if self.line else reason)


class NkiUnavailableError(NkiError):
    """A documented function that this interpreter does not have yet; the message names its page."""

    exit_code = 69


class NkiWarning(UserWarning):
    """A kernel runs, but the machine may do it differently or much slower than it looks."""
