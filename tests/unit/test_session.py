"""Sessions: what is sent to a host, and how long a lost one is called again."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from remote_tools.ssh import bootstrap, link
from remote_tools.ssh.bootstrap import host_program
from remote_tools.ssh.link import Outage


@pytest.mark.parametrize("name", host_program())
def test_the_host_program_is_python_3_8(name: str) -> None:
    ast.parse(host_program()[name], feature_version=(3, 8))


def test_the_bootstrap_script_is_python_3_8_too() -> None:
    ast.parse(bootstrap._SCRIPT, feature_version=(3, 8))


@pytest.mark.parametrize("sent", [b"", b"half a beginn"])
def test_a_bootstrap_script_that_never_arrives_ends_quietly(sent: bytes) -> None:
    command = [sys.executable, "-I", "-S", "-c", bootstrap.loader(len(bootstrap._SCRIPT))]

    done = subprocess.run(command, input=sent, capture_output=True)

    assert (75, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_the_loader_reads_the_same_to_every_shell() -> None:
    assert set() == set("'!\n\\$`") & set(bootstrap.loader(1234))


def test_a_host_that_never_answered_is_given_up_soon() -> None:
    outage = Outage()
    outage.hopeless(known=False, greeted=False)
    outage._since -= link.FIRST_PATIENCE_S

    assert (True, False) == (
        outage.hopeless(known=False, greeted=False),
        outage.hopeless(known=True, greeted=False),
    )


def test_a_program_that_dies_again_and_again_is_given_up() -> None:
    outage = Outage()

    assert [False] * 5 + [True] == [outage.hopeless(known=True, greeted=True) for _ in range(6)]


def test_waiting_grows() -> None:
    outage = Outage()

    assert [0.1, 0.5, 1, 2, 4, 8, 15, 30, 30] == [outage.backoff_s() for _ in range(9)]
