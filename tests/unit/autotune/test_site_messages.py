"""Each message between tuner and keeper arrives as it was sent."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from autotune.backends.travel import Sent
from autotune.model.budget import Limits
from autotune.model.kernel import TensorSpec
from autotune.model.trial import Status
from autotune.sites import messages, wire
from autotune.sites.messages import OK, Ending, Message

SPECS = (TensorSpec("lhs", (2, 3), "int8", (3, 1)), TensorSpec("scale", ()))
SETTINGS = messages.Settings(
    backend=Sent("autotune.backends.c", "CBackend", "c.py", {"compiler": "cc", "flags": ["-O2"]}),
    runner=("/bin/runner", "--fast"),
    inputs=SPECS,
    outputs=SPECS[1:],
    limits=Limits(compile_s=1.5, memory_bytes=1 << 40),
    segment=7,
    size=1 << 34,
    tensors=((4096, 12288, 0), (8192, 16384, 128)),
    spares=64,
    rooms=((4096, 8192), (8192, 12288)),
    protected=((0, 4096, 0), (4096, 8192, 1)),
    compile_jobs=3,
    imports=(("ops", "/home/me/ops.py"), ("__main__", "x.py")),
    folder="/nowhere/a b",
    device="0",
    own_clock=True,
)
MESSAGES = [
    SETTINGS,
    messages.Unusable("no module"),
    messages.CompileRequest(4, ("cc", "-o", "x y"), "int main() { return '\u00e9'; }", "part", "whole"),
    messages.CompileReply(4, Ending(Status.COMPILE_ERROR, "exit code 1"), "log\n", 0.25, disk_full=True),
    messages.CompileReply(5, OK),
    messages.Load("whole", "gemm"),
    messages.Call(1.5, 3, 1, 16, 4, cold=True, timed=True),
    messages.Called(OK, (1, 2**60), 16, 0),
    messages.Called(Ending(Status.TIMEOUT, "did not return within 1 s")),
    messages.Called(Ending(Status.ERROR, "no such device"), lost=True),
    messages.Unload(distrusted=True),
    messages.Unloaded("printed"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(ours, message)
        assert message == wire.receive(theirs, type(message))


def test_every_kind_of_message_is_tried_here() -> None:
    kinds = {kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)}
    assert kinds - {Message} == {type(message) for message in MESSAGES}
    assert all(dataclasses.is_dataclass(kind) for kind in kinds - {Message})


def test_a_message_of_other_fields_is_rejected() -> None:
    with pytest.raises(TypeError, match="entri"):
        messages.Load.from_json({"object": "whole", "entri": "gemm"})
