"""Runs as a user meets them: detached, listed, shown, attached to, killed, fetched, run again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_tools.host import processes
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import Laptop

COUNT = (
    "import time\nfor i in range(30):\n    print(i, flush=True)\n    time.sleep(0.05)\nraise SystemExit(7)\n"
)
COUNTED = "".join(f"{i}\n" for i in range(30))
HELD = """\
import pathlib, time
for i in range(30):
    print(i, flush=True)
    while i == 20 and not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
WRITE = """\
import os, pathlib, sys, time
path = pathlib.Path(os.environ["AUTOTUNE_CACHE_DIR"], "kernel", "1x1", sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(sys.argv[1])
print("wrote", flush=True)
time.sleep(float(sys.argv[2]))
raise SystemExit(3)
"""


@pytest.fixture(scope="module")
def laptop(make_laptop: Callable[[Sandbox], Laptop], sandbox: Sandbox) -> Laptop:
    """Give a laptop whose workspace is on the session's server."""
    made = make_laptop(sandbox)
    name = made.root.parent.name
    made.write("count.py", COUNT)
    made.write("held.py", HELD)
    made.write("write.py", WRITE)
    config = (made.root / ".remote_config").read_text()
    config = config.replace("~/project", f"~/{name}") + f"REMOTE_CACHE_DIR=~/{name}-cache\n"
    made.write(".remote_config", config)
    made.write("invoke.yaml", "remote: {keep_runs: 4}\n")
    assert 0 == made.inv("sync").returncode
    return made


def listed(laptop: Laptop) -> list[dict[str, Any]]:
    """Return what `inv runs.list --json` prints."""
    found: list[dict[str, Any]] = json.loads(laptop.inv("runs.list", "--json").stdout)
    return found


def detach(laptop: Laptop, *words: str) -> str:
    """Start a run without following it; return its id."""
    done = laptop.inv("exec", "--detach", *words)
    assert 0 == done.returncode
    found = re.search(r"\d{8}-\d{9}-\w+-[0-9a-f]{4,}", done.stderr)
    assert found
    return found[0]


def test_a_detached_run_goes_on_and_is_attached_to_by_a_part_of_its_id(laptop: Laptop) -> None:
    run_id = detach(laptop, "--", "python", "count.py")

    first = laptop.inv("runs.attach", run_id[-4:])
    again = laptop.inv("runs.attach", "last")

    assert [(7, COUNTED)] * 2 == [(done.returncode, done.stdout) for done in (first, again)]


def test_a_client_killed_outright_is_replaced_from_a_second_shell(laptop: Laptop) -> None:
    command = laptop.command("inv", "dev", "--", "count.py")
    with subprocess.Popen(command, cwd=laptop.root, env=laptop.env, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert b"0\n" == client.stdout.readline()
        client.kill()

    done = laptop.inv("runs.attach")

    assert (7, COUNTED) == (done.returncode, done.stdout)


def test_two_clients_follow_one_run(laptop: Laptop) -> None:
    detach(laptop, "--", "python", "count.py")
    command = laptop.command("inv", "runs.attach")
    clients = [
        subprocess.Popen(command, cwd=laptop.root, env=laptop.env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]

    printed = [client.communicate()[0] for client in clients]

    assert [(7, COUNTED)] * 2 == [
        (client.returncode, text) for client, text in zip(clients, printed, strict=True)
    ]


def test_a_log_shows_what_there_is_or_follows(laptop: Laptop) -> None:
    detach(laptop, "--", "python", "held.py")

    now = laptop.inv("runs.log")
    (laptop.host.home / laptop.root.parent.name / "go").touch()
    all_of_it = laptop.inv("runs.log", "--follow")

    assert (0, True, True) == (now.returncode, COUNTED.startswith(now.stdout), now.stdout != COUNTED)
    assert (0, COUNTED) == (all_of_it.returncode, all_of_it.stdout)


def test_a_run_is_killed_with_its_children(laptop: Laptop) -> None:
    run_id = detach(laptop, "--command", "sleep 1234.5 & sleep 1234.5")

    done = laptop.inv("runs.kill", run_id, "--signal", "KILL")

    assert f"SIGKILL sent to {run_id}\n" == done.stderr
    assert 137 == laptop.inv("runs.attach", run_id).returncode
    while "sleep 1234.5" in subprocess.run(["ps", "-axo", "args"], capture_output=True, text=True).stdout:
        time.sleep(0.05)  # a process takes a moment to die
    assert f"no process of {run_id} is running\n" == laptop.inv("runs.kill", run_id).stderr


ESCAPE = """\
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
worker = subprocess.Popen(sleep, start_new_session=True)
if os.fork() == 0:  # a daemon, with another environment
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "w") as file:
            file.write(f"{worker.pid} {os.getpid()}")
        os.execve(sleep[0], sleep, {})
    os._exit(0)
while not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])):
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(300 if len(sys.argv) == 2 else 0)
"""


def running(pid: int) -> bool:
    """Return whether a process runs, and is no zombie."""
    return processes.born(pid) is not None


@pytest.mark.parametrize("way", ["KILL", "TERM", "INT"])
def test_everything_that_a_run_started_ends_with_it(laptop: Laptop, tmp_path: Path, way: str) -> None:
    pids = tmp_path / "pids"
    run_id = detach(laptop, "--", "python", "-c", ESCAPE, str(pids))
    while "ready" not in laptop.inv("runs.log", run_id).stdout:
        time.sleep(0.1)

    assert 0 == laptop.inv("runs.kill", run_id, "--signal", way).returncode
    ended = laptop.inv("runs.attach", run_id)

    assert ended.returncode != 0
    assert "still run on" not in ended.stderr
    assert [False, False] == [running(int(pid)) for pid in pids.read_text().split()]


def test_what_outlives_a_run_is_named_and_can_be_ended(laptop: Laptop, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    done = laptop.inv("exec", "--", "python", "-c", ESCAPE, str(pids), "and end")

    left = pids.read_text().split()
    assert [True, True] == [running(int(pid)) for pid in left]
    assert (0, [True, True]) == (done.returncode, [f"{pid} (" in done.stderr for pid in left])
    assert "SIGKILL sent" in laptop.inv("runs.kill", "--signal", "KILL").stderr
    assert not any(running(int(pid)) for pid in left)


def test_results_of_a_run_that_was_killed_are_fetched(laptop: Laptop) -> None:
    run_id = detach(laptop, "--", "python", "write.py", "killed", "60")
    while "wrote" not in laptop.inv("runs.log").stdout:
        time.sleep(0.05)
    laptop.inv("runs.kill")
    assert 143 == laptop.inv("runs.attach").returncode

    assert 0 == laptop.inv("runs.fetch", run_id).returncode

    assert "killed" == (laptop.root / "cache/kernel/1x1/killed").read_text()


def test_results_of_a_run_whose_owner_was_killed_are_fetched(laptop: Laptop) -> None:
    detach(laptop, "--", "python", "write.py", "orphaned", "60")
    while "wrote" not in laptop.inv("runs.log").stdout:
        time.sleep(0.05)
    (record,) = [record for record in listed(laptop) if record["state"] == "running"]
    subprocess.run(["kill", "-KILL", str(record["owner"][0])], check=True)

    done = laptop.inv("runs.attach")
    fetched = laptop.inv("runs.fetch")

    assert (70, 0) == (done.returncode, fetched.returncode)
    assert "its supervisor on the host was killed" in done.stderr
    assert "orphaned" == (laptop.root / "cache/kernel/1x1/orphaned").read_text()


def test_a_run_is_shown_whole(laptop: Laptop) -> None:
    assert 3 == laptop.inv("dev", "--auto-fetch", "--", "write.py", "a b", "0").returncode

    shown = json.loads(laptop.inv("runs.show", "--json").stdout)

    assert ["write.py", "a b", "0"] == shown["words"]
    assert (["kernel/1x1/a b"], 3, "sandbox") == (shown["fetched"], shown["exit"], shown["host"])
    there = shown["there"]
    assert {"exit": 3, "signal": None, "state": "ended", "files": 1, "files_bytes": 3} == {
        name: there[name] for name in ("exit", "signal", "state", "files", "files_bytes")
    }
    assert there["started"] < there["ended"]


def test_a_rerun_runs_the_same_words_with_the_sources_of_now(laptop: Laptop) -> None:
    laptop.write("again.py", "import sys; print(1, sys.argv[1:])\n")
    assert 0 == laptop.inv("dev", "--", "again.py", "a b").returncode
    laptop.write("again.py", "import sys; print(2, sys.argv[1:])\n")

    done = laptop.inv("runs.rerun")

    assert (0, "2 ['a b']\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    "words", [("dev", "--pty", "--", "at_terminal.py"), ("exec", "--pty", "--command", "test -t 1")]
)
def test_a_rerun_has_a_terminal_if_the_run_had_one(laptop: Laptop, words: tuple[str, ...]) -> None:
    laptop.write("at_terminal.py", "import sys; sys.exit(not sys.stdout.isatty())\n")

    done = [laptop.inv(*words), laptop.inv("runs.rerun")]

    assert [0, 0] == [each.returncode for each in done], [each.stderr for each in done]


RUN_SHELL = """\
from pathlib import Path
from remote_tools.loop import steps
from remote_tools.settings.settings import load
from remote_tools.sync.progress import Display

how = steps.How(auto_fetch=True)
shell = "mkdir -p $AUTOTUNE_CACHE_DIR/k && date > $AUTOTUNE_CACHE_DIR/k/shell"
steps.execute(load({}, Path.cwd()), None, how, Display(), shell=shell)
"""


def test_a_rerun_of_a_shells_line_brings_its_results(laptop: Laptop) -> None:
    subprocess.run([sys.executable, "-c", RUN_SHELL], cwd=laptop.root, env=laptop.env, check=True)
    result = laptop.root / "cache/k/shell"
    result.unlink()

    assert 0 == laptop.inv("runs.rerun").returncode

    assert result.exists()


def test_the_host_keeps_the_last_runs_and_those_that_run(laptop: Laptop) -> None:
    running = detach(laptop, "--", "sleep", "60")
    for _ in range(5):
        assert 0 == laptop.inv("exec", "--", "true").returncode

    # The owner of the last run removes the surplus after its end was told.
    while [*(states := {each["id"]: each["state"] for each in listed(laptop)}).values()].count("ended") > 4:
        pass

    assert ("running", 4) == (states[running], [*states.values()].count("ended"))
    laptop.inv("runs.kill", running)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs.attach", "nosuch"), "runs: no run nosuch\n"),
        (("runs.kill", "--signal", "NOSUCH"), "runs: no signal NOSUCH\n"),
        (
            ("exec", "--on-disconnect", "maybe", "--", "true"),
            "exec: --on-disconnect must be keep or kill, got maybe\n",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(laptop: Laptop, words: tuple[str, ...], said: str) -> None:
    done = laptop.inv(*words)

    assert (64, said) == (done.returncode, done.stderr[: len(said)])


@pytest.mark.long
def test_an_orphan_is_ended_where_that_was_asked_for(laptop: Laptop) -> None:
    """A quarter of a minute: three signs of life must be missing."""
    command = laptop.command("inv", "exec", "--on-disconnect", "kill", "--", "sleep", "60")
    with subprocess.Popen(command, cwd=laptop.root, env=laptop.env) as client:
        while "running" not in {record["state"] for record in listed(laptop)}:
            time.sleep(0.05)
        client.kill()

    while "running" in {record["state"] for record in listed(laptop)}:
        time.sleep(0.5)

    assert (143, True) == (listed(laptop)[-1]["exit"], listed(laptop)[-1]["lease_ended"])
