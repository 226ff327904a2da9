"""Messages between the tuner and its keeper; see `local.py` and `keeper.py`, the two ends.

The keeper imports this module without NumPy, so that its forks stay small.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from autotune.backends.travel import Sent
from autotune.model.budget import Limits
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.trial import Status

MAX_SAMPLES = 4096
"""Of one `Call`; as in runner.c."""
HEADER = struct.Struct("=iiq")
"""The begin of the segment: errno at the death of a candidate, commands that it has done, the offset in the
segment of what it could not access, or 0. The nanoseconds of up to `MAX_SAMPLES` samples follow, 8 bytes
each; see `header` in runner.c."""
HEADER_BYTES = HEADER.size + 8 * MAX_SAMPLES
LARGEST_MESSAGE = 1 << 16
"""Bytes of one message to or from a candidate's process."""
COMMAND = struct.Struct("=5q")
"""What a candidate's process receives: spares, warm, calls, samples, bytes of the sweep; see `Call`."""

REFUSED, REFUSED_MEMORY, REFUSED_INPUT, LOST = 1, 2, 3, 7
REFUSALS = {
    REFUSED: Status.ERROR, REFUSED_MEMORY: Status.OUT_OF_MEMORY, REFUSED_INPUT: Status.WRONG_OUTPUT,
    4: Status.CRASH, 5: Status.TIMEOUT, 6: Status.WRONG_OUTPUT,
}  # fmt: skip
"""What a candidate's process answers if it cannot do a command: a number in 8 bytes, and a text. `LOST` says
that the device has failed, and not the candidate."""
OPEN, LOAD, CALL, UNLOAD = b"O", b"L", b"C", b"U"
"""First byte of a message to a device's process. `Load.text` follows `LOAD`, a `COMMAND` follows `CALL`."""

_Kind = TypeVar("_Kind", bound="Message")


class Message:
    """One kind of message: a frozen dataclass. `wire.py` sends its fields as JSON."""

    @classmethod
    def from_json(cls: type[_Kind], plain: Mapping[str, Any]) -> _Kind:
        """Make a message of its fields after JSON, in which tuples are lists."""
        return cls(**{name: tuple(each) if isinstance(each, list) else each for name, each in plain.items()})


@dataclass(frozen=True)
class Settings(Message):
    """What a keeper needs to know; its first message.

    Args:
        backend: loads candidates.
        runner: command of the program that loads and forks them instead; empty for `runner.py`.
        inputs: specs of the inputs.
        outputs: specs of the outputs.
        limits: what one candidate may use.
        segment: descriptor of the memory file that holds the tensors.
        size: bytes of that file.
        tensors: of each tensor, inputs first: its offset in that file, that of its first spare copy, and the
            bytes from one copy to the next, 0 for an input that is not changed.
        spares: spare copies of each tensor that is written.
        rooms: offsets of the begin and end of each tensor with the poison around it.
        protected: (offset, bytes, protection) of the parts that a candidate must not write or read.
        compile_jobs: compilers that run at a time.
        imports: name and file of each Python module that candidates import.
        folder: for objects and temporary files; the keeper removes it at its end.
        device: the device whose process runs all candidates; empty for a process for each candidate.
        own_clock: the device counts the nanoseconds: compilers may run meanwhile.
        restored: of each input that the kernel changes: its place among the inputs; the offset of the lowest
            byte of its pristine copy; the bytes from there to the element at index 0; the bytes to copy. The
            process of the candidate restores it before each call.
    """

    backend: Sent
    runner: tuple[str, ...]
    inputs: Specs
    outputs: Specs
    limits: Limits
    segment: int
    size: int
    tensors: tuple[tuple[int, int, int], ...]
    spares: int
    rooms: tuple[tuple[int, int], ...]
    protected: tuple[tuple[int, int, int], ...]
    compile_jobs: int
    imports: tuple[tuple[str, str], ...]
    folder: str
    device: str = ""
    own_clock: bool = False
    restored: tuple[tuple[int, int, int, int], ...] = ()

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Settings:
        """See `Message`."""
        nested = {
            "backend": Sent(**plain["backend"]),
            "inputs": [*map(TensorSpec.from_json, plain["inputs"])],
            "outputs": [*map(TensorSpec.from_json, plain["outputs"])],
            "limits": Limits(**plain["limits"]),
            "tensors": [*map(tuple, plain["tensors"])],
            "rooms": [*map(tuple, plain["rooms"])],
            "protected": [*map(tuple, plain["protected"])],
            "restored": [*map(tuple, plain["restored"])],
            "imports": [*map(tuple, plain["imports"])],
        }
        return super().from_json({**plain, **nested})


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Args:
        status: ok, or how it failed.
        message: one line that says what failed; empty if ok.
    """

    status: Status
    message: str = ""

    @classmethod
    def from_json(cls, plain: Mapping[str, str]) -> Ending:
        """Make an ending of its fields after JSON."""
        return cls(Status(plain["status"]), plain["message"])


OK = Ending(Status.OK)


@dataclass(frozen=True)
class Unusable(Message):
    """The keeper cannot go on; its only message.

    Args:
        reason: why not.
    """

    reason: str


@dataclass(frozen=True)
class CompileRequest(Message):
    """Compile one candidate.

    Args:
        number: repeated in the reply.
        command: the compiler's command line.
        source: its standard input.
        part: the folder that the command fills; made before it starts.
        folder: the name that this folder gets after success.
    """

    number: int
    command: tuple[str, ...]
    source: str
    part: str
    folder: str


@dataclass(frozen=True)
class CompileReply(Message):
    """The end of one compilation.

    Args:
        number: of the request.
        ending: how the compiler ended.
        log: what the compiler printed.
        seconds: how long it took.
        disk_full: it failed because a file could not be written: no verdict on the candidate.
    """

    number: int
    ending: Ending
    log: str = ""
    seconds: float = 0.0
    disk_full: bool = False

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> CompileReply:
        """See `Message`."""
        return super().from_json({**plain, "ending": Ending.from_json(plain["ending"])})


@dataclass(frozen=True)
class Load(Message):
    """Start the process of one candidate, or give it to its device's. `Call`s follow, and one `Unload`.

    Args:
        object: path of the compiled candidate.
        entry: the symbol or function to call.
    """

    object: str
    entry: str

    def text(self) -> bytes:
        """Return what the process is sent."""
        return f"{self.object}\0{self.entry}\0".encode()


@dataclass(frozen=True)
class Call(Message):
    """Call the candidate; `Called` answers.

    Args:
        limit_s: seconds until it must have returned.
        spares: calls before all others, one for each spare copy of the outputs.
        warm: calls before the timed ones.
        calls: calls in each timed sample; 1 if the kernel changes an input, and 0 only to restore it.
        samples: number of samples, at most `MAX_SAMPLES`.
        cold: sweep the caches before each sample.
        timed: the samples count: stop all compilers meanwhile.
    """

    limit_s: float
    spares: int = 0
    warm: int = 0
    calls: int = 1
    samples: int = 0
    cold: bool = False
    timed: bool = False


@dataclass(frozen=True)
class Called(Message):
    """The calls are over. All threads of the candidate stand still until the next `Call`.

    Args:
        ending: ok, or how the candidate ended; then `Unload` is next.
        samples_ns: nanoseconds of each sample by the candidate's own clock; empty unless ok.
        ran_ns: nanoseconds that its main thread ran on a core, by the kernel's clock; -1 if unknown.
        waited_ns: nanoseconds that its main thread waited for a core; -1 if unknown.
        lost: the device has failed, as the ending's message says; the candidate is not to blame.
    """

    ending: Ending
    samples_ns: tuple[int, ...] = ()
    ran_ns: int = -1
    waited_ns: int = -1
    lost: bool = False

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Called:
        """See `Message`."""
        return super().from_json({**plain, "ending": Ending.from_json(plain["ending"])})


@dataclass(frozen=True)
class Unload(Message):
    """End the candidate with all that it started; `Unloaded` answers.

    Args:
        distrusted: it may have changed the process of its device, such as its clock: replace that.
    """

    distrusted: bool = False


@dataclass(frozen=True)
class Unloaded(Message):
    """The candidate is gone.

    Args:
        log: what it printed.
    """

    log: str
