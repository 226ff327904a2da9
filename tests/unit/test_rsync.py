"""Which rsync is where, and how it is told what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from remote_tools.errors import ConfigError, TransferError
from remote_tools.sync import rsync
from remote_tools.sync.rsync import Pair, Stalled, Version, parse_version
from remote_tools.sync.rsync_processes import RsyncExit

NEW, OLD, MAC = Version(False, (3, 5, 0)), Version(False, (2, 6, 9)), Version(True, (2, 6, 9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rsync  version 3.5.0  protocol version 32\n", NEW),
        ("rsync  version v3.2.4  protocol version 31\n", Version(False, (3, 2, 4))),
        ("rsync  version 2.6.9  protocol version 29\n", OLD),
        ("openrsync: protocol version 29\nrsync version 2.6.9 compatible\n", MAC),
        ("openrsync 0.1\n", MAC),
        ("", OLD),
    ],
)
def test_a_version_is_read_from_what_rsync_says(text: str, expected: Version) -> None:
    assert expected == parse_version(text)


@pytest.mark.parametrize(
    "pair", [Pair(NEW, OLD), Pair(OLD, NEW), Pair(MAC, NEW), Pair(NEW, MAC), Pair(OLD, OLD)]
)
def test_protected_arguments_are_used_only_where_both_know_them(pair: Pair) -> None:
    words = rsync.push_words(pair, (), 60, Path("list"), True, "aside")
    quoted_here = pair.local_has(3, 2, 4)
    assert ("-s" not in words, "a b" if quoted_here else "'a b'") == (True, rsync.remote_path(pair, "a b"))


def test_no_version_of_the_host_makes_rsync_trust_it() -> None:
    """With --old-args, rsync writes whatever file a host sends."""
    words = [rsync.pull_words(Pair(NEW, there), (), 60, Path("list"), True) for there in (OLD, MAC, NEW)]

    assert [False] * 3 == ["--old-args" in each for each in words]
    assert r"/a b/\*\[c\]" == rsync.remote_path(Pair(NEW, OLD), "/a b/*[c]")


def test_an_old_rsync_here_gets_no_option_of_a_newer_one() -> None:
    newer = {"--info=progress2", "--outbuf=L", "--no-human-readable", "--ignore-missing-args", "-s"}
    for words in (
        rsync.push_words(Pair(MAC, NEW), (), 60, Path("list"), True, "aside"),
        rsync.pull_words(Pair(MAC, NEW), (), 60, Path("list"), True),
    ):
        assert set() == newer & set(words)


def test_only_options_that_suit_results_are_used_for_them() -> None:
    given = shlex.split(
        "-av --exclude '*.log' --bwlimit 5m --rsync-path='sudo rsync' -z --chmod=F600 -T /tmp"
    )
    words = rsync.pull_words(Pair(NEW, NEW), given, 60, Path("list"), True)
    own = rsync.pull_words(Pair(NEW, NEW), (), 60, Path("list"), True)
    assert ["--bwlimit", "5m", "--rsync-path=sudo rsync", "-z", "-T", "/tmp"] == [
        w for w in words if w not in own
    ]


def test_words_for_ssh_survive_rsyncs_own_splitting() -> None:
    words = ["ssh", "-o", "ControlPath=/a b/%%C", "-i", 'the "key"', "-p", "22"]
    assert 'ssh -o "ControlPath=/a b/%%C" -i "the ""key""" -p 22' == rsync.rsh(words)


def test_escapes_of_names_are_undone() -> None:
    assert [b"a\nb", b"\\#012", b"\xff"] == [
        rsync.unescape(n) for n in (b"a\\#012b", b"\\#134#012", b"\\#377")
    ]


def test_the_way_rsync_ended_says_what_happened() -> None:
    rsync.check(RsyncExit(0, ()), "h", "sync", 60)
    rsync.check(RsyncExit(24, ("file has vanished",)), "h", "sync", 60)
    for code in (10, 12, 30, 35, 255):
        with pytest.raises(Stalled):
            rsync.check(RsyncExit(code, ("lost",)), "h", "sync", 60)
    with pytest.raises(ConfigError, match="rsync rejects its options: --zz: unknown option") as error:
        rsync.check(RsyncExit(1, ("--zz: unknown option",)), "h", "fetch", 60)
    assert "fetch" == error.value.stage
    with pytest.raises(TransferError, match=r"h: rsync: write failed: No space left on device \(28\)"):
        rsync.check(RsyncExit(11, ("rsync: write failed: No space left on device (28)",)), "h", "sync", 60)
