"""What a host sends is checked where it comes in: a real session is recorded, and replayed with mutations."""

from __future__ import annotations

import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from remote_tools.errors import ProtocolError, RemoteError
from remote_tools.host import messages
from remote_tools.host.frames import HEADER, MAGIC, REPLY, STDERR, STDOUT, frame, json_frame
from remote_tools.host.messages import Request, Spec
from remote_tools.loop import steps
from remote_tools.runs import client
from remote_tools.runs.arrivals import Results
from remote_tools.settings.settings import Settings
from remote_tools.setup import doctor
from remote_tools.ssh import replies
from remote_tools.ssh.link import Link
from remote_tools.ssh.protocol_page import members, ops, types
from remote_tools.sync.last_push import LastPush
from remote_tools.sync.open_host import OpenHost, destination_of
from remote_tools.sync.plan import PushMode, check_deletes, make_plan
from remote_tools.sync.progress import Display
from remote_tools.sync.push import ended_lines, push
from remote_tools.tasks import runs as run_tasks
from tests.unit.test_messages import sample

RUN_ID = "20260101-000000000-x-abcdef"
OTHER = "20260101-000000001-y-abcdef"
SEED = 20261127
SHORT, LONG = 40, 1100
"""Mutations of each request's replies."""


# The gate ---------------------------------------------------------------------------------------------------


def asked(op: str, **params: object) -> Request:
    """Return a request."""
    return {"op": op, "code_path": "/p", "offset": 0, "params": {"id": RUN_ID, **params}}


def record(**more: object) -> dict[str, Any]:
    """Return a run's record."""
    given = {"id": RUN_ID, "state": "ended", "exit": 0, "started": 1.0, "ended": 2.0}
    return {**sample(messages.RunBegun), **given, **more}


def reply(**more: object) -> dict[str, Any]:
    """Return the reply about a run."""
    return {"run": record(), "outputs": [["k/a", 1, 1]], "rsync": None, **more}


def test_a_reply_is_taken_without_the_keys_that_it_must_not_have() -> None:
    found = replies.read(asked("outputs"), json.dumps(reply(more=1)).encode())

    assert (reply()["run"], [("k/a", 1, 1)], ["outputs", "rsync", "run"]) == (
        found["run"],
        found["outputs"],
        sorted(found),
    )


@pytest.mark.parametrize(
    ("op", "found"),
    [
        ("outputs", reply(run=record(id=OTHER))),
        ("outputs", reply(run=record(id="../x"))),
        ("list", {"runs": [record(id=".x")]}),
        ("list", {"runs": [record(id="a/b")]}),
        ("list", {"runs": [record(id="")]}),
        ("list", {"runs": [record(id="a" * 201)]}),
        ("list", {"runs": [record(state="well")]}),
        ("list", {"runs": [record(exit=None)]}),
        ("list", {"runs": [record(exit=10**400)]}),
        ("list", {"runs": [record(exit=True)]}),
        ("list", {"runs": [record(started=1e300)]}),
        ("list", {"runs": [record(ended=float("nan"))]}),
        ("outputs", reply(outputs=[["a", -1, 1]])),
        ("outputs", reply(outputs=[["a", 10**400, 1]])),
        ("outputs", reply(outputs=[["a", 1]])),
        ("outputs", reply(outputs=[["\ud800", 1, 1]])),
        ("outputs", {"stale": True}),
        ("outputs", {"started": RUN_ID, "pushed": None, "changed": []}),
        ("run", {"started": OTHER, "pushed": None, "changed": []}),
        ("probe", {"found": [{**sample(messages.Row), "code": 256}]}),
        ("sync.finish", {**sample(messages.PushEnded), "removed": "no base64"}),
        ("hello", []),
        ("hello", {"error": "io", "message": 1, "hint": ""}),
    ],
)
def test_a_reply_of_another_form_is_malformed(op: str, found: object) -> None:
    with pytest.raises(replies.Malformed):
        replies.read(asked(op), json.dumps(found).encode())


@pytest.mark.parametrize(
    ("op", "params", "found"),
    [
        ("run", {"stamp": None, "detach": False}, {"stale": True}),
        ("run", {"stamp": "x", "detach": False}, reply(run=record(state="running"))),
        ("attach", {"follow": True}, reply(run=record(state="running"))),
    ],
)
def test_a_reply_fits_its_request(op: str, params: dict[str, object], found: object) -> None:
    with pytest.raises(replies.Malformed):
        replies.read(asked(op, **params), json.dumps(found).encode())


def test_the_packed_keys_are_those_of_the_types() -> None:
    of_replies = {each for _, _, name in ops() for each in members(name)}
    packed = {
        key
        for name in of_replies
        for key, kind in types()[name].__annotations__.items()
        if getattr(kind, "__forward_arg__", "") == "Packed"
    }

    assert sorted(packed) == sorted(replies.PACKED)


# A session, recorded ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project, and the home of a host, as they are before a session."""
    top = tmp_path_factory.mktemp("world")
    for folder in ("here/k", "home/there", "home/cache/k/s"):
        (top / folder).mkdir(parents=True)
    (top / "here/tasks.py").write_text("from remote_tools import ns\n")
    (top / "here/k/a.py").write_text("print('a')\n")
    (top / "home/cache/k/s/perf_metrics.json").write_text("{}")
    return top


def settings_of(world: Path) -> Settings:
    """Return the settings of the project."""
    return Settings(
        world / "here", "h", str(world / "home/there"), cache_dir=str(world / "home/cache"), timeout_s=60
    )


def spec_of(world: Path) -> Spec:
    """Return a command that prints, and writes a result."""
    there = world / "home/cache"
    script = f"mkdir -p {there}/k; echo out; echo err >&2; echo result > {there}/k/new; exit 3"
    request = steps.RunRequest.of(settings_of(world), steps.How(), ["sh", "-c", script])
    return {**request.spec, "cache_dir": str(there)}


Consumer = Callable[[OpenHost], object]


def consumers(world: Path) -> dict[str, Consumer]:
    """Return what the laptop does with the replies to each request, by a name; in the order of a session."""
    tree = steps.workspace_of(settings_of(world))

    def planned(host: OpenHost) -> None:
        last = LastPush(tree.root, host.link.alias, host.settings.code_path)
        plan = make_plan(host, tree, last, dry_run=False)
        with suppress(RemoteError):
            check_deletes(plan, force=False)
        for line in (*plan.lines(), *plan.warnings(), *plan.announcements(tree)):
            host.display.say(line)

    def pushed(host: OpenHost) -> None:
        push(host, tree, PushMode(inline=True))

    def finished(host: OpenHost) -> None:
        params = {**sample(messages.PushEnding), "client": "a" * 16, "date": "1", "aside": "1"}
        for name in ("records", "vanished", "absent", "delete", "kept", "sent", "folders"):
            params[name] = "eJwDAAAAAAE="  # nothing, packed
        host.display.say(str(ended_lines(host.link.call(messages.FINISH({**params, "contents": {}})))))

    def ran(host: OpenHost) -> None:
        results = Results(world / "results")
        console = client.Console(results.take)
        wanted = client.results_wanted("rsync")
        answer = client.start(host.link, RUN_ID, spec_of(world), console, wanted=wanted)
        assert "run" in answer
        with suppress(RemoteError):
            client.exit_code(answer["run"], host.display.say)
        results.complete(host, answer, answer["run"]["cache_dir"])

    def probed(host: OpenHost) -> None:
        known: Any = {**sample(messages.ProbeSettings), "rsync": "rsync", "runs": [], "venv_path": None}
        params = {**known, "cache_dir": "/c", "python": None, "check": "python", "now": time.time()}
        for row in host.link.call(messages.PROBE(params))["found"]:
            run_tasks.print_table("a", rows=[(doctor._finding(row).seen,)])

    def listed(host: OpenHost) -> None:
        for each in client.list_runs(host.link)["runs"]:
            run_tasks._clock(each["started"]), run_tasks._lasted(each), client.words_of(each)

    return {
        "hello": lambda host: host.link.call(messages.HELLO({})),
        "plan": planned,
        "push": pushed,
        "finish": finished,
        "run": ran,
        "list": listed,
        "outputs": lambda host: steps.fetch_run(host, RUN_ID),
        "cache": lambda host: steps.fetch_cache(host, None),
        "probe": probed,
        "signal": lambda host: client.send_signal(host.link, RUN_ID, 15),
    }


class Recorder(Link):
    """A link to our program as it is, started on this machine; it keeps what the program sends."""

    def __init__(self, world: Path) -> None:
        super().__init__(destination_of(settings_of(world)), settings_of(world).code_path, lambda _text: None)
        local(self, ["env", f"HOME={world}/home", "sh", "-c", 'for last; do :; done; eval "$last"'])


def local(link: Link, words: list[str]) -> None:
    """Have a link start a command of this machine in place of ssh."""
    link.master.__dict__.update(resolved={"hostname": "h", "user": "u", "port": "22"}, control_path=None)
    link.master.words = lambda: words  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def recorded(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give what our program sends in reply to each request, greeting included."""
    found = {}
    tape = tmp_path_factory.mktemp("tape") / "tape"
    for name, consume in consumers(world).items():
        recorder = Recorder(world)
        base = recorder.master.words()
        recorder.master.words = lambda base=base: [  # type: ignore[method-assign, misc]
            "sh", "-c", '"$@" | tee ' + str(tape), "tee", *base,
        ]  # fmt: skip
        with suppress(RemoteError), Path(os.devnull).open("w") as nowhere:
            consume(OpenHost(settings_of(world), recorder, Display(nowhere)))
        process = recorder._open().process
        assert process.stdin is not None
        process.stdin.close()  # our program ends, and then tee
        process.wait()
        recorder.close()
        found[name] = tape.read_bytes()
    return found


def test_the_recording_is_of_a_whole_session(recorded: dict[str, bytes]) -> None:
    replied = {name: [kind for kind, _ in frames_of(data)].count(REPLY) for name, data in recorded.items()}
    assert [] == [name for name, data in recorded.items() if not data.startswith(MAGIC) or b'"error"' in data]
    assert [] == [name for name, count in replied.items() if not count]
    assert b"out\n" in recorded["run"]
    assert b"result\n" in recorded["run"]


# Mutations --------------------------------------------------------------------------------------------------

ODD = (
    None, True, -1, 0, 10**400, 1e308, float("nan"), "", "\ud800", "../../x", "/etc/passwd", "a\0b",
    "\x1b]52;c;eA==\x07", "x" * 5000, [], {}, [[]], {"a": 1}, ["a", "b", "c"], [None], "eJwDAAAAAAE=",
)  # fmt: skip


def frames_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the frames of a recording."""
    data = data[len(MAGIC) :]
    while data:
        kind, size = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : HEADER.size + size]
        data = data[HEADER.size + size :]


def odder(value: Any, chance: random.Random) -> Any:
    """Replace one part of a JSON value; or leave a key out, or put one in."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if chance.random() < 0.05:
            return {**value, chance.choice(["error", "started", "stale", "run", "x"]): chance.choice(ODD)}
        return {**value, key: odder(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], odder(value[at], chance), *value[at + chance.randrange(2) :]]
    return chance.choice(ODD)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a recording with something else in it: bytes, frames, or parts of a reply."""
    if data == MAGIC or chance.random() < 0.4:
        at, size = chance.randrange(len(data)), chance.randrange(1, 9)
        other = bytes(chance.randrange(256) for _ in range(size))
        return chance.choice([
            data[:at], data[:at] + other + data[at:], data[:at] + other + data[at + size :],
            data[:at] + data[at + size :], data[:at] + data[max(0, at - 40) :],
        ])  # fmt: skip
    parts = list(frames_of(data)) or [(REPLY, b"{}")]
    at = chance.randrange(len(parts))
    kind, payload = parts[at]
    if chance.random() < 0.2:
        parts.insert(at, chance.choice([*parts, (b"N", b""), (b"P", b""), (b"F", b"abc"), (b"O", b"x")]))
    elif kind == REPLY:
        parts[at] = (kind, json.dumps(odder(json.loads(payload), chance)).encode())
    elif kind in (STDOUT, STDERR):
        parts[at] = (chance.choice([b"F", b"R", b"O", b"Q", b"\0"]), payload)
    return MAGIC + b"".join(frame(*part) for part in parts)


def replayed(world: Path, consume: Consumer, tape: Path) -> None:
    """Consume a recording in place of a host; only errors of ours may come of it.

    Raises:
        RemoteError: as it would of the host.
    """
    link = Link(destination_of(settings_of(world)), settings_of(world).code_path, lambda _text: None)
    local(link, ["sh", "-c", f'exec cat "{tape}"'])
    with Path(os.devnull).open("w") as nowhere:
        try:
            consume(OpenHost(settings_of(world), link, Display(nowhere)))
        finally:
            link.close()


def test_a_recording_replayed_as_it_is_is_taken(
    world: Path, recorded: dict[str, bytes], tmp_path: Path
) -> None:
    for name, consume in consumers(world).items():
        (tmp_path / "tape").write_bytes(recorded[name])
        replayed(world, consume, tmp_path / "tape")


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "name", ["hello", "plan", "push", "finish", "run", "list", "outputs", "cache", "probe", "signal"]
)
def test_a_mutation_of_a_session_is_an_error_of_ours(
    world: Path, recorded: dict[str, bytes], tmp_path: Path, name: str, count: int
) -> None:
    """No traceback, no hang, no growth; and nothing is written outside of the folder for results."""
    chance, consume = random.Random(f"{SEED} {name}"), consumers(world)[name]
    before = everything(world)
    for _ in range(count):
        (tmp_path / "tape").write_bytes(mutated(recorded[name], chance))
        with suppress(RemoteError):
            replayed(world, consume, tmp_path / "tape")
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (before, True) == (everything(world), peak_kb < 1_000_000)


def everything(world: Path) -> list[str]:
    """List what lies outside of the folder for results, and our own records."""
    paths = (str(path.relative_to(world)) for path in world.rglob("*"))
    return sorted(path for path in paths if not path.startswith(("results", "here/cache", "here/.remote")))


def test_a_protocol_error_ends_the_session(world: Path, tmp_path: Path) -> None:
    (tmp_path / "tape").write_bytes(MAGIC + json_frame(REPLY, {"runs": [1]}))

    with pytest.raises(ProtocolError, match="h answered what was not asked") as raised:
        replayed(world, consumers(world)["list"], tmp_path / "tape")
    assert 76 == raised.value.exit_code
