"""Messages between the tuner and its keeper; see `workers.py` and `keeper.py`, the two ends.

The keeper imports this module without NumPy, so that its forks stay small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from autotune.model.budget import Limits
from autotune.model.kernel import Specs, TensorSpec
from autotune.model.timing import Timing
from autotune.model.trial import Status

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
        backend: name of the backend.
        runner: command of the program that forks candidates; empty for `runner.py`.
        inputs: specs of the inputs.
        outputs: specs of the outputs.
        limits: what one candidate may use.
        segment: descriptor of the memory file that holds the tensors.
        size: bytes of that file.
        tensors: offset of each tensor in it, inputs first.
        protected: (offset, bytes, protection) of the parts that a candidate must not write or read.
        compile_jobs: compilers that run at a time.
        folder: for objects and temporary files; the keeper removes it at its end.
    """

    backend: str
    runner: tuple[str, ...]
    inputs: Specs
    outputs: Specs
    limits: Limits
    segment: int
    size: int
    tensors: tuple[int, ...]
    protected: tuple[tuple[int, int, int], ...]
    compile_jobs: int
    folder: str

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Settings:
        """See `Message`."""
        nested = {
            "inputs": [*map(TensorSpec.from_json, plain["inputs"])],
            "outputs": [*map(TensorSpec.from_json, plain["outputs"])],
            "limits": Limits(**plain["limits"]),
            "protected": [*map(tuple, plain["protected"])],
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
class CompileRequest(Message):
    """Compile one candidate.

    Args:
        number: repeated in the reply.
        command: the compiler's command line.
        source: its standard input.
        produces: the file that the command writes.
        object: the name that this file gets after success.
    """

    number: int
    command: tuple[str, ...]
    source: str
    produces: str
    object: str


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
class MeasureRequest(Message):
    """Run one candidate: one call, which `FirstCall` answers, and after `Verdict` the timing.

    Args:
        object: path of the compiled candidate.
        entry: the symbol or function to call.
        timing: how to time it.
    """

    object: str
    entry: str
    timing: Timing

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MeasureRequest:
        """See `Message`."""
        return super().from_json({**plain, "timing": Timing(**plain["timing"])})


@dataclass(frozen=True)
class FirstCall(Message):
    """The first call is over.

    Args:
        returned: the outputs can be checked. Otherwise the candidate ended, and `MeasureReply` follows.
    """

    returned: bool


@dataclass(frozen=True)
class Verdict(Message):
    """The tuner's check of the first call's outputs; `MeasureReply` follows."""

    correct: bool


@dataclass(frozen=True)
class MeasureReply(Message):
    """The end of one measurement.

    Args:
        ending: how the candidate ended.
        log: what it printed.
        samples_ns: nanoseconds of each sample; empty unless ok.
        calls: calls in each sample.
    """

    ending: Ending
    log: str
    samples_ns: tuple[int, ...] = ()
    calls: int = 1

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MeasureReply:
        """See `Message`."""
        return super().from_json({**plain, "ending": Ending.from_json(plain["ending"])})
