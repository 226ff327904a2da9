"""What travels: every message passes the codec as it is, both ends know it, and docs/protocol.md has it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from remote_tools.host import frames, messages, probe, replica, supervisor
from remote_tools.host.messages import FRAMES
from remote_tools.runs.client import INLINE_BYTES
from remote_tools.runs.records import Record
from remote_tools.ssh import protocol_page
from remote_tools.ssh.protocol_page import keys, members, ops, page, types

ROOT = Path(__file__).parents[2]
NAME = "caf\udce9 'x'\n☃"  # no UTF-8: one byte of it is a lone surrogate


def sample(kind: Any) -> Any:
    """Make a value of a type, with every key that it may have."""
    if is_typeddict(kind):
        return {key: sample(each) for key, each in get_type_hints(kind).items()}
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return [sample(each) for each in arguments]
    if get_origin(kind) is tuple:
        return [sample(each) for each in arguments]
    if get_origin(kind) is dict:
        return {NAME: sample(arguments[1])}
    if arguments:
        return sample(arguments[0])
    return {str: NAME, int: 1 << 62, float: 1.7e9 + 1e-7, bool: True, Any: None, object: 7}[kind]


def sent(kind: bytes, message: dict[str, Any]) -> Any:
    """Send a message as one end does, in two pieces, and receive it as the other does."""
    data, buffer = frames.json_frame(kind, message), bytearray()
    arrived = []
    for piece in (data[:7], data[7:] + frames.frame(frames.PING, b"")):
        buffer += piece
        arrived += frames.take_frames(buffer, {kind: 1 << 20, frames.PING: 0})
    (kind_there, payload), ping = arrived
    assert (kind, (frames.PING, b""), b"") == (kind_there, ping, bytes(buffer))
    return json.loads(payload)


@pytest.mark.parametrize("name", types())
def test_a_message_arrives_as_it_was_sent(name: str) -> None:
    message = sample(types()[name])

    assert types()[name].__annotations__.keys() == message.keys()
    assert message == sent(frames.REPLY, message)


@pytest.mark.parametrize(("op", "params"), [(op, each) for op, name, _ in ops() for each in members(name)])
def test_a_request_arrives_with_its_parameters(op: Any, params: str) -> None:
    asked = op(sample(types()[params]))
    request = {"op": asked.op, "code_path": NAME, "offset": 0, "params": asked.params}

    assert messages.Request.__annotations__.keys() == request.keys()
    assert request == sent(frames.REQUEST, request)


def test_the_host_answers_every_request() -> None:
    answered = {**supervisor.STREAMS, **supervisor.OPS, **replica.OPS, **probe.OPS}

    assert sorted(op.name for op, _, _ in ops()) == sorted(answered)


def test_the_host_answers_without_making_the_types() -> None:
    """It takes longer than to answer a request."""
    code = "import sys; from host import supervisor, replica, probe; print('host.messages' in sys.modules)"
    env = {"PYTHONPATH": str(Path(supervisor.__file__).parents[1])}

    assert b"False\n" == subprocess.check_output([sys.executable, "-c", code], env=env)


@pytest.mark.parametrize("name", types())
def test_every_key_says_what_it_is(name: str) -> None:
    inherited: set[str] = set()
    above = list(protocol_page.bases()[name])
    while above:
        base = above.pop()
        if base in types():
            inherited |= keys(types()[base]).keys()
            above += protocol_page.bases()[base]

    assert types()[name].__annotations__.keys() == keys(types()[name]).keys() | inherited


def test_a_key_that_may_be_missing_is_spelt_as_in_its_type() -> None:
    """mypy accepts any key for `get`."""
    known = {key for kind in (*types().values(), Record) for key in kind.__annotations__}
    records = {"record", "there", "header", "before", "params", "spec", "reply", "run", "others_record"}
    asked = {
        (path.name, node.args[0].value)
        for path in (ROOT / "remote_tools").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "get" == node.func.attr
        if ast.unparse(node.func.value).rpartition(".")[2] in records
        if isinstance(node.args[0], ast.Constant)
    }

    assert (True, set()) == (len(asked) > 10, {(name, key) for name, key in asked if key not in known})


@pytest.mark.parametrize("end", ["host", "laptop"])
def test_a_kind_means_one_frame_at_each_end(end: str) -> None:
    kinds = [frame.kind for frame in FRAMES if frame.to == end]

    assert sorted(set(kinds)) == sorted(kinds)


def test_the_page_is_as_the_types_are() -> None:
    """If this fails: python -m remote_tools.ssh.protocol_page."""
    text = protocol_page.PAGE.read_text(encoding="utf-8")

    assert page(text) == text
    assert ["frames", "requests", "messages"] == re.findall("<!-- table: (.*) -->", text)


def test_the_page_has_the_codes_numbers() -> None:
    text = protocol_page.PAGE.read_text(encoding="utf-8")

    assert f"no larger than {supervisor.INLINE_FILE_BYTES >> 10} KiB" in text
    assert f"`inline_bytes` ({INLINE_BYTES >> 20} MiB)" in text
