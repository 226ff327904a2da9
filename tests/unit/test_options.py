"""The tables of options, held against the programs that they describe."""

from __future__ import annotations

import re
import string
import subprocess

import pytest

from remote_tools.settings.option_grammar import RSYNC, SSH, names


def run(*words: str) -> str:
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def rsync_help() -> str:
    text = run("rsync", "--help")
    if "rsync  version 3" not in run("rsync", "--version"):
        pytest.skip("the table describes rsync 3")
    return text


def test_every_option_of_rsyncs_help_that_has_a_value_is_known(rsync_help: str) -> None:
    valued = set(re.findall(r"^ *(?:-\w, )?(--[a-z0-9-]+)=", rsync_help, re.MULTILINE))
    refused = {option for options in RSYNC.refused.values() for option in options}
    assert set() == valued - RSYNC.long_with_value - refused


def test_rsync_asks_for_the_values_that_the_table_says(rsync_help: str) -> None:
    answers = {name: run("rsync", name) for name in RSYNC.long_with_value if name in rsync_help}
    assert set() == {name for name, answer in answers.items() if "missing argument" not in answer}
    letters = {
        letter for letter in string.ascii_letters + "@" if "missing argument" in run("rsync", f"-{letter}")
    }
    assert letters <= set(RSYNC.short_with_value)


def test_no_option_of_rsyncs_help_is_taken_for_the_beginning_of_another(rsync_help: str) -> None:
    refused = {option for options in RSYNC.refused.values() for option in options}
    known = set(re.findall(r"(?<!\S)--[a-z0-9][a-z0-9-]+[a-z0-9]", rsync_help)) - refused
    negated = {f"--no-{name[2:]}" for name in known} - refused
    assert set() == {name for name in known | negated if RSYNC.why_refused(name)}


def test_ssh_asks_for_the_values_that_the_table_says() -> None:
    letters = {x for x in string.ascii_letters if "requires an argument" in run("ssh", f"-{x}")}
    assert set(SSH.short_with_value) - {"P"} == letters - {"P"}  # ssh has had -P since 9.5


def test_options_are_named_without_their_values() -> None:
    words = ["-avf", "- *.o", "--exclude", "-n", "--bwlimit=5", "-T/tmp", "--progress", "file", "-"]
    expected = ["-a", "-v", "-f", "--exclude", "--bwlimit", "-T", "--progress", "file", "-"]
    assert expected == list(names(words, RSYNC))


def test_sshs_keywords_have_no_case() -> None:
    words = ["-o", "requestTTY = yes", "-oRemoteCommand=x", "-vo", "SessionType none", "-o", "Port=2"]
    expected = ["-oRequestTTY", "-oRemoteCommand", "-v", "-oSessionType", "-o"]
    assert expected == list(names(words, SSH))
