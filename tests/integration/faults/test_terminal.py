"""What a user does at a real terminal: Ctrl-C, keys, resizing, closing it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pexpect
import pytest

from remote_tools.setup.sandbox import Sandbox
from tests.integration.faults.conftest import Cable

STUBBORN = (
    "import signal, time\nfor s in {ignored}: signal.signal(s, signal.SIG_IGN)\nprint('ready', flush=True)\n"
)
FOREVER = STUBBORN + "while True: time.sleep(1)\n"


@pytest.fixture(scope="module")
def pushed(plug: Callable[[Sandbox], Cable], sandbox: Sandbox) -> Cable:
    """Give a laptop with scripts that ignore signals."""
    made = plug(sandbox)
    made.laptop.write("polite.py", FOREVER.format(ignored=[]))
    made.laptop.write("stubborn.py", FOREVER.format(ignored=[int(signal.SIGINT)]))
    made.laptop.write("deaf.py", FOREVER.format(ignored=[int(signal.SIGINT), int(signal.SIGTERM)]))
    made.laptop.write("debug.py", "import os\nbreakpoint()\nprint('size', *os.get_terminal_size())\n")
    assert 0 == made.inv("sync").returncode
    return made


Shell = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def at_terminal(pushed: Cable) -> Iterator[Shell]:
    """Type `inv` with words at a terminal of 24 rows and 80 columns."""
    spawned = []

    def type_in(*words: str) -> pexpect.spawn[str]:
        command, *rest = pushed.laptop.command("inv", *words)
        env = {**pushed.laptop.env, "TERM": "xterm"}
        child = pexpect.spawn(
            command,
            rest,
            cwd=str(pushed.laptop.root),
            env=env,
            encoding="utf-8",
            timeout=60,
            dimensions=(24, 80),
        )
        spawned.append(child)
        return child

    yield type_in
    for child in spawned:
        child.close(force=True)


def end(child: pexpect.spawn[str]) -> tuple[str, int | None]:
    """Wait for the end; return what was printed until then, and the exit code."""
    child.expect(pexpect.EOF)
    child.wait()
    return child.before or "", child.exitstatus


def test_one_ctrl_c_is_sigint(at_terminal: Shell) -> None:
    child = at_terminal("exec", "--", "python", "polite.py")
    child.expect("ready")

    child.sendintr()

    printed, code = end(child)
    assert 130 == code
    assert "KeyboardInterrupt" in printed
    assert "SIGINT sent to" in printed


def test_two_are_sigterm(at_terminal: Shell) -> None:
    child = at_terminal("exec", "--", "python", "stubborn.py")
    child.expect("ready")

    child.sendintr()
    child.expect("once more for SIGTERM")
    child.sendintr()

    assert 143 == end(child)[1]


def test_three_let_go_of_the_run_and_say_how_to_come_back(at_terminal: Shell, pushed: Cable) -> None:
    child = at_terminal("exec", "--", "python", "deaf.py")
    child.expect("ready")

    for answer in ("once more for SIGTERM", "once more to leave it running", "inv runs.attach"):
        child.sendintr()
        child.expect(answer)

    assert 130 == end(child)[1]
    assert 0 == pushed.inv("runs.kill", "--signal", "KILL").returncode
    assert (137, b"ready\n") == ((done := pushed.inv("runs.attach")).returncode, done.stdout)


def test_ctrl_c_while_the_host_is_called_again(at_terminal: Shell, pushed: Cable) -> None:
    """Let go of a run although its host cannot be reached."""
    child = at_terminal("exec", "--", "python", "polite.py")
    child.expect("ready")
    target, pushed.network.target = pushed.network.target, 1
    pushed.network.cut()
    child.expect("connecting again")

    for answer in ("once more for SIGTERM", "once more to leave it running", "inv runs.attach"):
        child.sendintr()
        child.expect(answer)

    assert 130 == end(child)[1]
    pushed.network.target = target
    assert 0 == pushed.inv("runs.kill").returncode


def test_a_debugger_has_the_terminal_and_its_size(at_terminal: Shell) -> None:
    child = at_terminal("dev", "--pty", "--", "debug.py")
    child.expect_exact("(Pdb) ")
    child.sendline("print(6 * 7)")
    child.expect_exact("42\r\n(Pdb) ")
    child.sendintr()
    child.expect_exact("(Pdb) ")

    child.setwinsize(33, 99)
    child.sendline("while os.get_terminal_size() != (99, 33): pass")
    child.expect_exact("(Pdb) ")
    child.sendline("continue")

    child.expect("size 99 33")
    assert 0 == end(child)[1]


def test_a_terminal_run_can_be_left_and_taken_up_again(at_terminal: Shell) -> None:
    child = at_terminal("dev", "--pty", "--", "debug.py")
    child.expect_exact("(Pdb) ")
    child.send("\x1d")
    child.expect("inv runs.attach")
    assert 130 == end(child)[1]

    child = at_terminal("runs.attach")
    child.expect_exact("(Pdb) ")
    child.sendline("continue")

    child.expect("size 80 24")
    assert 0 == end(child)[1]


def test_the_terminal_is_given_back_as_it_was(pushed: Cable) -> None:
    command = " ".join(pushed.laptop.command("inv", "exec", "--pty", "--", "true"))
    script = f"stty -a > before; {command}; stty -a > after; cmp before after && echo same"
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", script],
        cwd=str(pushed.laptop.root),
        env=pushed.laptop.env,
        encoding="utf-8",
        timeout=60,
    )

    child.expect("same")


def test_a_terminal_that_is_closed_leaves_the_run_alone(at_terminal: Shell, pushed: Cable) -> None:
    child = at_terminal("exec", "--", "python", "polite.py")
    child.expect("ready")

    child.close()

    assert 0 == pushed.inv("runs.kill", "--signal", "INT").returncode
    done = pushed.inv("runs.attach")
    assert (130, b"ready\n") == (done.returncode, done.stdout)
