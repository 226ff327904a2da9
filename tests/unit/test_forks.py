"""Forks side by side, without a host: what each prints, how each ends, that none waits for another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Each host does what is written for it; the parent says how it went.
PROGRAM = """\
import json, os, pathlib, signal, subprocess, sys, time
from remote_tools import errors
from remote_tools.loop import fleet
from remote_tools.sync.progress import Display
from remote_tools.settings.settings import Settings
from remote_tools.loop.steps import Outcome

works = json.loads(sys.argv[1])

def work(settings, display):
    code = 0
    scope = {**globals(), "display": display, "code": code}
    exec(works[settings.host], scope)
    return Outcome("a run", scope["code"], ("gemm/result",))

each = [Settings(root=pathlib.Path(sys.argv[2]), host=host) for host in works]
ended = fleet.run_all(each, work, Display())
print(json.dumps([[one.settings.host, one.stage, one.code] for one in ended]), file=sys.stderr)
"""


def run(tmp_path: Path, **works: str) -> tuple[list[str], list[str], list[list[object]]]:
    """Let hosts do their works; return the lines of stdout and of stderr, and how they ended."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(works), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    *said, ended = done.stderr.splitlines()
    return done.stdout.splitlines(), said, json.loads(ended)


@pytest.mark.parametrize(
    ("work", "stage", "code"),
    [
        ("code = 7", "done", 7),
        ("raise errors.NoHostError('connect', 'no')", "connect", 68),
        ("raise KeyboardInterrupt", "interrupted", 130),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", 137),
        ("1 / 0", "crashed", 70),
    ],
)
def test_however_one_ends_the_others_go_on(tmp_path: Path, work: str, stage: str, code: int) -> None:
    out, _said, ended = run(tmp_path, a=work, bb="print('well')")

    assert (["[bb] well"], [["a", stage, code], ["bb", "done", 0]]) == (out, ended)


def test_lines_stay_whole(tmp_path: Path) -> None:
    write = "for i in range(300): os.write(1, b'x' * 70); time.sleep(0.0001); os.write(1, b'x' * 70 + b'\\n')"

    out, _said, _ended = run(tmp_path, a=write, b=write)

    assert {"[a] " + "x" * 140: 300, "[b] " + "x" * 140: 300} == {line: out.count(line) for line in set(out)}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"last line", "[a] last line"),
        (b"10%\r55%\r100%\n", "[a] 100%"),
        (b"from a terminal\r\n", "[a] from a terminal"),
        (b"\n", "[a] "),
    ],
)
def test_a_line_is_shown_as_it_stood_last(tmp_path: Path, written: bytes, shown: str) -> None:
    assert [shown] == run(tmp_path, a=f"os.write(1, {written!r})")[0]


def test_the_two_streams_stay_apart(tmp_path: Path) -> None:
    work = "print('out'); print('err', file=sys.stderr); display.say('said')"

    assert (["[a] out"], ["[a] err", "[a] said"], [["a", "done", 0]]) == run(tmp_path, a=work)


def test_a_process_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    out, _said, ended = run(tmp_path, a="p = subprocess.Popen(['sleep', '100']); print(p.pid)")

    subprocess.run(["kill", out[0].removeprefix("[a] ")], check=True)
    assert [["a", "done", 0]] == ended


def test_a_bar_without_a_terminal_is_a_line_a_host(tmp_path: Path) -> None:
    work = "with display.bar('Uploading', 2, 3000) as bar: bar.grow(1, 5); print(bar.files)"

    out, said, _ended = run(tmp_path, a=work, b=work)

    assert (["[a] 3", "[b] 3"], ["[a] Uploading 2 files, 3 kB", "[b] Uploading 2 files, 3 kB"]) == (
        sorted(out),
        sorted(said),
    )


def test_a_reader_that_leaves_ends_the_writers(tmp_path: Path) -> None:
    endless = "while True: os.write(1, b'more\\n')"
    command = [sys.executable, "-c", PROGRAM, json.dumps({"a": endless, "b": endless}), str(tmp_path)]

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()

    assert [["a", "crashed", 70], ["b", "crashed", 70]] == json.loads(said.splitlines()[-1])
