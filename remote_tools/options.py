"""Refuse the rsync and ssh options that would break what we send or read; the others are the user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_OUTPUT = "its output is read to count files and bytes"
_NOT_SENT = "nothing would be transferred; to see a plan type: inv sync --dry-run"
_LIST = "the list of files is made by the scan"
_DELETES = "only files pushed earlier are ever deleted, which rsync cannot know"
_RESUME = "cut transfers resume from a --partial-dir, which rsync cannot combine with it"
_SSH_OWNER = "the connection is set by ssh_options"
_ENDS = "it prints and ends"
_HOSTS_OWN = "it would delete files that the host made"
_NO_COMMAND = "no command could run"
_STDIN = "the session's input carries the supervisor's protocol"
_TERMINAL = "a terminal would alter the bytes of the protocol; for one of your own type: inv dev --pty"


@dataclass(frozen=True)
class Grammar:
    """What is needed to split one program's options as its own parser does.

    Args:
        short_with_value: letters whose value is the rest of the word, or the next word.
        long_with_value: long options whose value may be the next word.
        refused: why each option that we cannot live with is refused.
    """

    short_with_value: str
    long_with_value: frozenset[str]
    refused: dict[str, str]


_RSYNC_LONG_WITH_VALUE = """
    address backup-dir block-size bwlimit cc checksum-choice checksum-seed chmod chown compare-dest
    compress-choice compress-level compress-threads confine-root contimeout copy-as copy-dest debug early-
    input exclude exclude-from filter groupmap iconv include include-from link-dest log-file max-alloc max-
    delete max-size min-size modify-window partial-dir password-file port protocol remote-option rsync-path
    skip-compress sockopts stop-after stop-at suffix temp-dir time-limit timeout usermap zc zl zt
"""

# rsync(1), "OPTION SUMMARY", of 3.4; popt, which parses it, takes no abbreviated long options.
RSYNC = Grammar(
    short_with_value="BMTef@",
    long_with_value=frozenset(f"--{name}" for name in _RSYNC_LONG_WITH_VALUE.split()),
    refused={
        **dict.fromkeys(("-n", "--dry-run", "--list-only", "--only-write-batch"), _NOT_SENT),
        **dict.fromkeys(
            ("-q", "--quiet", "--out-format", "--log-format", "-i", "--itemize-changes"), _OUTPUT
        ),
        **dict.fromkeys(("--info", "--progress", "-P", "-h", "--human-readable", "--msgs2stderr"), _OUTPUT),
        **dict.fromkeys(("--stderr", "--outbuf", "--log-file-format"), _OUTPUT),
        **dict.fromkeys(("--files-from", "-0", "--from0", "--no-relative", "--no-R", "--read-batch"), _LIST),
        **dict.fromkeys(
            ("--del", "--delete", "--delete-before", "--delete-during", "--delete-delay"), _DELETES
        ),
        **dict.fromkeys(("--delete-after", "--delete-excluded", "--delete-missing-args"), _DELETES),
        **dict.fromkeys(("--ignore-missing-args",), _LIST),
        **dict.fromkeys(("--inplace", "--append", "--append-verify"), _RESUME),
        **dict.fromkeys(("-e", "--rsh"), _SSH_OWNER),
        **dict.fromkeys(("--help", "--version", "-V"), _ENDS),
        "--force": _HOSTS_OWN,
        "--remove-source-files": "it would delete the files here",
        "--remove-sent-files": "it would delete the files here",
        "--old-args": "the host's shell would split names that have spaces",
        "--server": "the host's side is started by rsync itself",
        "--sender": "the host's side is started by rsync itself",
        "--daemon": "the host is reached over ssh",
    },
)

# ssh(1): getopt, short options only; `-o Key=Value` is checked by its key, in lower case as ssh compares it.
SSH = Grammar(
    short_with_value="BDEFIJLOPQRSWbceilmopw",
    long_with_value=frozenset(),
    refused={
        **dict.fromkeys(("-N", "-W", "-s", "-o sessiontype", "-o remotecommand"), _NO_COMMAND),
        **dict.fromkeys(("-f", "-n", "-o stdinnull", "-o forkafterauthentication"), _STDIN),
        **dict.fromkeys(("-t", "-o requesttty"), _TERMINAL),
        **dict.fromkeys(("-G", "-Q", "-V", "-O"), _ENDS),
        "-M": "the shared master is started and watched by us",
    },
)


def refusal(words: Sequence[str], grammar: Grammar) -> str | None:
    """Find the first word that cannot be used.

    Returns:
        `--dry-run: nothing would be transferred`, or None where every word is fine.
    """
    for option in names(words, grammar):
        if not option.startswith("-") or option in ("-", "--"):
            return f"{option!r} is not an option; the host and the paths have settings of their own"
        if option in grammar.refused:
            return f"{option}: {grammar.refused[option]}"
    return None


def names(words: Sequence[str], grammar: Grammar) -> Iterator[str]:
    """Name every option among the words, without the values that belong to one."""
    rest = iter(words)
    for word in rest:
        if word in ("-", "--") or not word.startswith("-"):
            yield word
        elif word.startswith("--"):
            name, equals, _ = word.partition("=")
            yield name
            if not equals and name in grammar.long_with_value:
                next(rest, None)
        else:
            yield from _short_options(word[1:], rest, grammar)


def _short_options(letters: str, rest: Iterator[str], grammar: Grammar) -> Iterator[str]:
    for i, letter in enumerate(letters):
        if letter not in grammar.short_with_value:
            yield f"-{letter}"
            continue
        value = letters[i + 1 :] or next(rest, "")
        if grammar is SSH and letter == "o":
            yield f"-o {value.replace('=', ' ').split()[0].lower()}" if value.strip("= ") else "-o"
        else:
            yield f"-{letter}"
        return
