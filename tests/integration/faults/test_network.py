"""Networks, servers and masters that give out, or never let us in as we would like."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.proxy import Fault
from remote_tools.setup import sandbox as servers
from remote_tools.setup.sandbox import Sandbox
from tests.integration.conftest import SandboxMaker
from tests.integration.faults.conftest import Cable

COUNT = (
    "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.05)\nraise SystemExit(7)\n"
)
COUNTED = b"".join(b"%d\n" % i for i in range(40))
HELD = """\
import pathlib, time
for i in range(40):
    print(i, flush=True)
    while i == 20 and not pathlib.Path("go").exists():
        time.sleep(0.01)
raise SystemExit(7)
"""
"""Prints the same, the second half of it once there is a file `go`."""

Plug = Callable[[Sandbox], Cable]


@pytest.fixture(scope="module")
def pushed(plug: Plug, sandbox: Sandbox) -> Cable:
    """Give a laptop whose workspace is on the host, and whose master is open."""
    made = plug(sandbox)
    made.laptop.write("count.py", COUNT)
    made.laptop.write("held.py", HELD)
    assert 0 == made.inv("sync").returncode
    return made


def let_go(cable: Cable) -> None:
    """Let held.py print its second half."""
    (cable.laptop.host.home / cable.laptop.root.parent.name / "go").touch()


def control_socket(cable: Cable) -> Path:
    """Return the socket of the laptop's master."""
    folder = Path(cable.laptop.env["XDG_RUNTIME_DIR"])
    (found,) = [path for path in folder.rglob("*") if path.is_socket()]
    return found


def master_pid(cable: Cable) -> int:
    """Ask the master for its process."""
    check = ["ssh", "-S", str(control_socket(cable)), "-O", "check", "host"]
    return int(
        subprocess.run(check, capture_output=True, text=True).stderr.partition("pid=")[2].rstrip(")\r\n")
    )


def test_a_stalled_network_is_noticed_said_and_recovered(pushed: Cable) -> None:
    pushed.network.set(Fault("stall", "down", 2_000))

    words = ["exec", "--", "python", "count.py"]
    done = pushed.inv_disturbed(words, b"connecting again", pushed.network.heal)

    assert (7, COUNTED) == (done.returncode, done.stdout)
    assert b"connecting again" in done.stderr


def test_a_stalled_upload_is_noticed_said_and_recovered(pushed: Cable) -> None:
    (pushed.laptop.root / "large.bin").write_bytes(os.urandom(3_000_000))
    pushed.network.set(Fault("stall", "up", 1_000_000))

    done = pushed.inv_disturbed(["sync"], b"connecting again", pushed.network.heal)

    assert 0 == done.returncode
    assert b"connecting again" in done.stderr
    there = pushed.laptop.host.home / pushed.laptop.root.parent.name / "large.bin"
    assert (pushed.laptop.root / "large.bin").read_bytes() == there.read_bytes()


def test_sshd_restarted_in_mid_run(plug: Plug, make_sandbox: SandboxMaker) -> None:
    host = make_sandbox()
    cable = plug(host)
    cable.laptop.write("held.py", HELD)
    assert 0 == cable.inv("sync").returncode

    def restart() -> None:
        os.kill(host.pid, signal.SIGKILL)
        cable.network.cut()
        (host.root / "running.json").unlink()
        time.sleep(1)
        servers.up(host.root, port=host.port)
        let_go(cable)

    done = cable.inv_disturbed(["exec", "--", "python", "held.py"], b"0\n", restart)

    assert (7, COUNTED) == (done.returncode, done.stdout)
    assert 1 == done.stderr.count(b"\n")


def test_a_master_killed_in_mid_run(pushed: Cable) -> None:
    def kill() -> None:
        os.kill(master_pid(pushed), signal.SIGKILL)
        let_go(pushed)

    done = pushed.inv_disturbed(["exec", "--", "python", "held.py"], b"0\n", kill)

    assert (7, COUNTED) == (done.returncode, done.stdout)


def test_a_socket_that_nobody_listens_on(pushed: Cable) -> None:
    assert 0 == pushed.inv("exec", "--", "true").returncode
    path = control_socket(pushed)
    os.kill(master_pid(pushed), signal.SIGTERM)
    while path.exists():
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    done = pushed.inv("exec", "--", "true")

    assert (0, b"") == (done.returncode, done.stderr)


def test_a_master_that_hangs(pushed: Cable) -> None:
    assert 0 == pushed.inv("exec", "--", "true").returncode
    pid = master_pid(pushed)
    os.kill(pid, signal.SIGSTOP)

    done = pushed.inv("exec", "--command", "exit 5")

    os.kill(pid, signal.SIGKILL)
    assert 5 == done.returncode
    assert b"connecting again" in done.stderr


def test_two_commands_at_once_share_one_master(plug: Plug, sandbox: Sandbox) -> None:
    cable = plug(sandbox)
    assert 0 == cable.inv("sync").returncode
    os.kill(master_pid(cable), signal.SIGTERM)
    both = [
        subprocess.Popen(
            cable.laptop.command("inv", "exec", "--", "true"), cwd=cable.laptop.root, env=cable.laptop.env
        )
        for _ in range(2)
    ]

    assert [0, 0] == [process.wait() for process in both]
    table = subprocess.run(["ps", "-axww", "-o", "command="], capture_output=True, text=True).stdout
    assert 1 == table.count(f'ControlPath="{cable.laptop.env["XDG_RUNTIME_DIR"]}')


def test_no_place_for_a_socket(pushed: Cable) -> None:
    """A path that is too long for one: every session connects for itself."""
    folder = pushed.laptop.root.parent / ("x" * 100)
    folder.mkdir()
    env = {**pushed.laptop.env, "XDG_RUNTIME_DIR": str(folder)}

    command = pushed.laptop.command("inv", "exec", "--command", "exit 5")
    done = subprocess.run(command, cwd=pushed.laptop.root, env=env, capture_output=True)

    assert (5, b"") == (done.returncode, done.stderr)


def test_a_server_that_allows_one_session(plug: Plug, make_sandbox: SandboxMaker) -> None:
    cable = plug(make_sandbox("MaxSessions 1"))
    cable.laptop.write("count.py", COUNT)

    done = cable.inv("dev", "--auto-fetch", "--", "count.py")

    assert (7, COUNTED) == (done.returncode, done.stdout)


def test_a_server_that_allows_no_session(plug: Plug, make_sandbox: SandboxMaker) -> None:
    done = plug(make_sandbox("MaxSessions 0")).inv("exec", "--", "true")

    assert 69 == done.returncode
    assert b"MaxSessions" in done.stderr


def test_a_host_key_that_changes_in_mid_run(plug: Plug, make_sandbox: SandboxMaker) -> None:
    """Another machine answers in the host's place: it is refused, and the run goes on without us."""
    host = make_sandbox()
    cable = plug(host)
    cable.laptop.write("held.py", HELD)
    assert 0 == cable.inv("sync").returncode

    def replace() -> None:
        os.kill(host.pid, signal.SIGKILL)
        (host.root / "running.json").unlink()
        for name in ("host_key", "host_key.pub"):
            (host.root / name).rename(host.root / f"{name}.old")
        known = host.known_hosts.read_text()
        servers.up(host.root, port=host.port)
        host.known_hosts.write_text(known)
        cable.network.cut()
        let_go(cable)

    done = cable.inv_disturbed(["exec", "--", "python", "held.py"], b"0\n", replace)

    assert 77 == done.returncode
    assert COUNTED != done.stdout
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert b"inv runs.attach" in done.stderr


@pytest.mark.parametrize(
    "start_up", ["echo welcome; echo to >&2; printf 'no newline'", "seq 100000", "sleep 1"]
)
def test_start_up_files_that_print(plug: Plug, make_sandbox: SandboxMaker, start_up: str) -> None:
    host = make_sandbox()
    cable = plug(host)
    (host.root / "enter").write_text(f"{start_up}\n{(host.root / 'enter').read_text()}")
    (host.home / cable.laptop.root.parent.name).mkdir()

    done = cable.inv("exec", "--command", "echo only this; exit 5")

    assert (5, b"only this\n") == (done.returncode, done.stdout)


def test_a_host_without_python(plug: Plug, make_sandbox: SandboxMaker) -> None:
    host = make_sandbox()
    cable = plug(host)
    (host.root / "enter").write_text(f"PATH=/nowhere\n{(host.root / 'enter').read_text()}")

    done = cable.inv("exec", "--", "true")

    assert 69 == done.returncode
    assert done.stderr.startswith(b"connect: sandbox has no python3\n")
