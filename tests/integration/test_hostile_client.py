"""What a client sends is checked on the host: the real program, as a process, is sent mutated requests."""

from __future__ import annotations

import base64
import json
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_tools.host.frames import FROM_CLIENT, PING, REQUEST, frame, json_frame
from remote_tools.host.listing import file_record, pack
from tests.integration.program import Program

RUN_ID = "20260101-000000000-x-abcdef"
SEED = 20261127
SHORT, LONG = 15, 1000
ODD = (
    None, True, -1, 0, 10**400, 1e308, float("nan"), "", "\ud800", "../x", "a/../../x", "a\0b", "x" * 5000,
    [], {}, [[]], {"a": 1}, ["a", "b", "c"], [None], "eJwDAAAAAAE=", "no base64",
    pack([b"../x"]), pack([b"/x"]), pack([b""]), pack([b"f644 1 1 ../x"]), pack([b"f"]),
    base64.b64encode(zlib.compress(bytes(64 << 20))).decode(),
    base64.b64encode(zlib.compress(b"f")[:-3]).decode(),
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give an account's home, with a code path and a cache."""
    for folder in ("home/code", "home/cache/k"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home/cache/k/a").write_text("a")
    return tmp_path / "home"


def requests(home: Path) -> dict[str, dict[str, Any]]:
    """Return a request of each op, by op; in the order of a session."""
    record = file_record(b"k/a.py", Path(__file__).stat(), 0o755)
    size = int(record.split(b" ")[1])
    client = {"client": "0123456789abcdef", "name": "ann@laptop"}
    comparison = {**client, "stamp": "s", "dry": False, "rsync": "rsync", "more": False}
    none = {name: pack([]) for name in ("records", "vanished", "absent", "delete", "kept", "folders")}
    ending = {**client, **none, "stamp": "s", "date": "20260101-000000", "sent": pack([b"k/a.py"])}
    ending |= {
        "contents": {"k/a.py": base64.b64encode(bytes(size)).decode()},
        "aside": "0123",
        "altering": False,
    }
    spec = {
        "argv": ["true"], "shell": None, "cache_dir": str(home / "cache"), "venv_path": None, "python": None,
        "pty": False, "size": None, "term": None, "on_disconnect": "keep", "lease_s": 0, "keep_runs": 20,
        "device_for": None, "env": {},
    }  # fmt: skip
    wanted = {"inline_bytes": 1000, "rsync": "rsync"}
    ended = {"id": RUN_ID, "stamp": None, "ending": None, "detach": False, "spec": spec, **wanted}
    known = {"venv_path": None, "python": None, "cache_dir": "/c", "rsync": "rsync", "device_lock": False}
    params: dict[str, dict[str, Any]] = {
        "hello": {},
        "sync.begin": {**comparison, "listing": pack([record])},
        "sync.clear": {
            **client,
            **{name: pack([]) for name in ("blocked", "delete", "folders")},
            "date": "1",
        },
        "sync.finish": ending,
        "run": ended,
        "attach": {"id": RUN_ID, "follow": False, **wanted},
        "list": {"newest": 10},
        "signal": {"id": RUN_ID, "signal": 15},
        "outputs": {"id": RUN_ID, **wanted},
        "cache": {"cache_dir": str(home / "cache"), "kernel": None, **wanted},
        "probe": {**known, "lock": None, "runs": [], "check": "python", "now": time.time()},
    }
    place = {"code_path": str(home / "code"), "offset": 0}
    return {op: {"op": op, **place, "params": each} for op, each in params.items()}


def odder(value: Any, chance: random.Random, key: str = "") -> Any:
    """Replace one part of a request, but not the folders that it is about."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {each: value[each] for each in value if each != name}
        return {**value, name: odder(value[name], chance, name)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], odder(value[at], chance), *value[at + chance.randrange(2) :]]
    return value if key in ("code_path", "cache_dir", "argv") else chance.choice(ODD)


def everything(home: Path) -> Iterator[str]:
    """Yield what lies beside the home, and in it outside of our state and the folders given."""
    for path in sorted(home.parent.rglob("*")):
        name = str(path.relative_to(home.parent))
        if not name.startswith(("home/.cache", "home/code", "home/cache")):
            yield name


def test_a_whole_session_is_answered(home: Path) -> None:
    program = Program(home)
    replies = {op: program.ask(json.dumps(each).encode()) for op, each in requests(home).items()}

    assert [] == [(op, reply) for op, reply in replies.items() if "error" in reply]
    assert (0, "") == program.end()


@pytest.mark.parametrize(
    "count", [SHORT, pytest.param(LONG, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
@pytest.mark.parametrize(
    "op",
    [
        "hello",
        "sync.begin",
        "sync.clear",
        "sync.finish",
        "run",
        "attach",
        "list",
        "signal",
        "outputs",
        "cache",
    ],
)
def test_a_mutated_request_is_answered_with_an_error(home: Path, op: str, count: int) -> None:
    """No traceback, no hang; the session goes on, and nothing is written elsewhere."""
    chance, asked = random.Random(f"{SEED} {op}"), requests(home)
    before = list(everything(home))
    program = Program(home)
    for earlier in ("hello", "sync.begin", "sync.finish", "run")[: 4 if op not in ("sync.finish",) else 2]:
        program.ask(json.dumps(asked[earlier]).encode())
    for _ in range(count):
        request = odder(asked[op], chance)
        reply = program.ask(json.dumps(request).encode())
        assert isinstance(reply, dict)
    peak_kb = int(Path(f"/proc/{program.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0])

    assert (before, True) == (list(everything(home)), peak_kb < 1_000_000), peak_kb
    assert (0, "") == program.end()


def torn(session: bytes, chance: random.Random) -> bytes:
    """Replace, delete or insert bytes of a session at some places; frames lose their borders too."""
    data = bytearray(session)
    for _ in range(chance.randrange(1, 5)):
        at, most = chance.randrange(len(data)), chance.choice((1, 1, 5, 300))
        new = bytes(chance.choice((0, 34, 91, 92, 255, chance.randrange(256))) for _ in range(most))
        data[at : at + chance.randrange(most + 1)] = chance.choice((new, new[:1], b""))
    return bytes(data)


@pytest.mark.parametrize("count", [5, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_torn_session_ends(home: Path, count: int) -> None:
    chance = random.Random(SEED)
    session = b"".join(json_frame(REQUEST, each) for each in requests(home).values())
    ends = set()
    for _ in range(count):
        program = Program(home)
        program.ask(b"{}")
        program.put(torn(session, chance))
        ends.add(program.end())

    assert {(0, ""), (76, "")} >= ends


@pytest.mark.parametrize("link", ["code/k", "code/.remote-displaced"])
def test_a_push_follows_no_link_in_the_code_path(home: Path, link: str) -> None:
    """A run may have put it there since the trees were compared."""
    asked, program, elsewhere = requests(home), Program(home), home / "elsewhere"
    program.ask(json.dumps(asked["sync.begin"]).encode())
    (elsewhere / "__pycache__").mkdir(parents=True)
    for name in ("kept", "__pycache__/a.cpython-311.pyc"):
        (elsewhere / name).write_text("theirs")
    (home / link).symlink_to(elsewhere)

    program.ask(json.dumps(asked["sync.finish"]).encode())

    assert (0, "") == program.end()
    assert ["__pycache__", "__pycache__/a.cpython-311.pyc", "kept"] == sorted(
        str(path.relative_to(elsewhere)) for path in elsewhere.rglob("*")
    )


@pytest.mark.parametrize("field", ["term", "python", "venv_path", "cache_dir", "shell", "argv"])
@pytest.mark.parametrize("word", ["\ud800", "a\0b"])
def test_words_that_no_program_can_be_given_start_no_run(home: Path, field: str, word: str) -> None:
    asked, program = requests(home)["run"], Program(home)
    value = [word] if field == "argv" else word
    asked["params"]["spec"] |= {field: value, **({"argv": None} if field == "shell" else {})}

    reply = program.ask(json.dumps(asked).encode())
    listed = program.ask(json.dumps(requests(home)["list"]).encode())

    assert ("protocol", []) == (reply["error"], listed["runs"])
    program.end()


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"[]", b"1", b"null", b"{}", b"no JSON", b"\xff", b"[" * 5000, b"9" * 5000, b'{"op": "hello"}',
        b'{"op": [], "code_path": "x", "offset": 0, "params": {}}',
        b'{"op": "none", "code_path": "x", "offset": 0, "params": {}}',
        b'{"op": "sync.none", "code_path": "x", "offset": 0, "params": {}}',
        b'{"op": "hello", "code_path": 7, "offset": 0, "params": {}}',
        b'{"op": "hello", "code_path": "a\\u0000b", "offset": 0, "params": {}}',
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_request_is_told(home: Path, payload: bytes) -> None:
    program = Program(home)

    reply = program.ask(payload)
    again = program.ask(json.dumps(requests(home)["hello"]).encode())

    assert ("protocol", True) == (reply["error"], "error" not in again), reply
    assert (0, "") == program.end()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">cI", b"Q", 0xFFFFFFFF),
        struct.pack(">cI", b"S", FROM_CLIENT[b"S"] + 1),
        frame(b"K", b"9" * 65),
        frame(b"X", b""),
        frame(PING, b"x"),
        b"\0" * 100,
    ],
    ids=repr,
)
def test_what_is_no_frame_ends_the_session(home: Path, data: bytes) -> None:
    program = Program(home)
    program.ask(json.dumps(requests(home)["hello"]).encode())
    program.put(data)

    with pytest.raises(EOFError) as ended:
        while True:
            program.ask(b"{}")
    assert (76, "") == ended.value.args[0]


@pytest.mark.parametrize(
    "frames", [[(b"K", b"x")], [(b"K", b"99")], [(b"W", b"")], [(b"W", b"x y")], [(b"W", b"-1 9")]]
)
def test_odd_keys_and_signals_are_dropped(home: Path, frames: list[tuple[bytes, bytes]]) -> None:
    asked = requests(home)
    asked["run"]["params"]["spec"].update(argv=["sleep", "0.2"], pty=True, size=[24, 80])
    program = Program(home)
    for each in frames:
        program.put(json_frame(REQUEST, asked["run"]) + frame(*each))
    reply = program.ask(json.dumps(asked["hello"]).encode())

    assert ("ended", 0) == (reply["run"]["state"], reply["run"]["exit"]), reply
    program.end()
