"""What is not ours is shown as text."""

from __future__ import annotations

import io

import pytest

from remote_tools.errors import RemoteError, host_hint, not_asked
from remote_tools.escape import escaped, one_line
from remote_tools.sync.progress import Display


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ☃ café", "plain ☃ café"),
        ("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
        ("\x9b31m\x7f\r\b", r"\x9b31m\x7f\r\x08"),
        ("turned \u202e round", r"turned \u202e round"),
        ("no text \udcff", r"no text \udcff"),
        ("two\n\tlines", "two\n\tlines"),
    ],
)
def test_control_characters_become_text(text: str, expected: str) -> None:
    assert expected == escaped(text)


def test_one_line_has_no_newline() -> None:
    assert r"two\n\tlines" == one_line("two\n\tlines")


def test_an_error_and_a_message_are_escaped() -> None:
    stream = io.StringIO()
    Display(stream).say("said \x1b[2J")

    assert (
        "sync: failed \\x1b[2J\n  next: type \\x07"
        == RemoteError("sync", "failed \x1b[2J", "type \x07").message
    )
    assert "said \\x1b[2J\n" == stream.getvalue()


def test_a_hosts_own_words_stay_in_their_line() -> None:
    error = not_asked("sync", "trn1", "a\nUploaded 1 file")

    assert [r"sync: trn1 answered what was not asked: a\nUploaded 1 file"] == error.message.splitlines()[:1]
    assert r"trn1 says: one\ntwo" == host_hint("trn1", "one\ntwo")
