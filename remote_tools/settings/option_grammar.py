"""Reject the rsync and ssh options that would break what we send or read; pass the others on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grammar:
    """The options of one program, to split them as its own parser does.

    Args:
        short_with_value: letters whose value is the rest of the word, or the next word.
        long_with_value: long options whose value may be the next word.
        refused: the rejected options by reason.
        passes_on: options whose value is an option for the host.
        not_short_for: accepted options that are the beginning of a rejected one.
    """

    short_with_value: str
    long_with_value: frozenset[str]
    refused: Mapping[str, Sequence[str]]
    passes_on: frozenset[str] = frozenset()
    not_short_for: frozenset[str] = frozenset()

    def why_refused(self, option: str) -> str | None:
        """Return why an option is rejected, also if it is abbreviated; None if it is accepted."""
        for reason, options in self.refused.items():
            if option in options:
                return reason
        if len(option) <= len("--") or option in self.not_short_for or option in self.long_with_value:
            return None
        for reason, options in self.refused.items():
            if option.startswith("--") and any(each.startswith(option) for each in options):
                return reason
        return None


_RSYNC_LONG_WITH_VALUE = """
    address backup-dir block-size bwlimit cc checksum-choice checksum-seed chmod chown compare-dest
    compress-choice compress-level compress-threads confine-root contimeout copy-as copy-dest debug
    early-input exclude exclude-from filter groupmap iconv include include-from link-dest log-file
    max-alloc max-delete max-size min-size modify-window partial-dir password-file port protocol
    remote-option rsync-path skip-compress sockopts stop-after stop-at suffix temp-dir time-limit
    timeout usermap write-batch zc zl zt
"""
_RSYNC_REFUSED = {
    "nothing would be transferred; for a plan type: inv sync --dry-run": "-n --dry-run --list-only",
    "it would write a file beside the transfer": "--log-file --write-batch --only-write-batch",
    "we parse its output to count files and bytes": "-q --quiet -i --itemize-changes --out-format "
    "--log-format --log-file-format --info --progress -P -h --human-readable --stderr --msgs2stderr --outbuf",
    "we compose the list of files": "--files-from -0 --from0 --no-relative --no-R --read-batch "
    "--ignore-missing-args",
    "we delete only files that were pushed earlier, which rsync does not know": "--del --delete "
    "--delete-before --delete-during --delete-delay --delete-after --delete-excluded --delete-missing-args "
    "--force",
    "it would delete the files here": "--remove-source-files --remove-sent-files",
    "interrupted transfers resume from our --partial-dir": "--partial-dir --inplace --append --append-verify",
    "overwritten files go to our --backup-dir": "-b --backup --backup-dir --suffix",
    "ssh has its own setting, ssh_options": "-e --rsh",
    "names with spaces would be split on the host": "--old-args",
    "we start rsync on the host over ssh": "--server --sender --daemon",
    "it prints something and exits": "--help --version -V",
}
_SSH_REFUSED = {
    "no command would run": "-N -W -s -oSessionType -oRemoteCommand",
    "our protocol uses the session's stdin": "-f -n -oStdinNull -oForkAfterAuthentication",
    "a terminal would alter the bytes of our protocol; for a terminal type: inv dev --pty": "-t -oRequestTTY",
    "we start and control the shared connection": "-M -O",
    "it prints something and exits": "-G -Q -V",
}

# rsync(1) of 3.5: popt, which parses its options, takes no abbreviations; openrsync's getopt_long does.
RSYNC = Grammar(
    short_with_value="BMTef@",
    long_with_value=frozenset(f"--{name}" for name in _RSYNC_LONG_WITH_VALUE.split()),
    refused={reason: options.split() for reason, options in _RSYNC_REFUSED.items()},
    passes_on=frozenset(("-M", "--remote-option")),
    not_short_for=frozenset(("--partial", "--no-r")),
)
# ssh(1) of 9.2 and, for -P, 9.5: getopt, short options only.
SSH = Grammar(
    short_with_value="BDEFIJLOPQRSWbceilmopw",
    long_with_value=frozenset(),
    refused={reason: options.split() for reason, options in _SSH_REFUSED.items()},
)


def refusal(words: Sequence[str], grammar: Grammar) -> str | None:
    """Return the first rejected option and the reason, such as `-e: ssh has its own setting`, or None."""
    for option, value in options(words, grammar):
        if option in ("-", "--") or not option.startswith("-"):
            return f"{option!r} is not an option; the host and the paths have their own settings"
        if reason := grammar.why_refused(option):
            return f"{option}: {reason}"
        if option in grammar.passes_on and (reason := refusal([value], grammar)):
            return f"{option}: {reason}"
    return None


def names(words: Sequence[str], grammar: Grammar) -> Iterator[str]:
    """Yield every option without its value; a word that is not an option is yielded unchanged."""
    return (name for name, _value in options(words, grammar))


def options(words: Sequence[str], grammar: Grammar) -> Iterator[tuple[str, str]]:
    """Yield every option and its value, which may be empty; a word that is no option is yielded unchanged."""
    rest = iter(words)
    for word in rest:
        if word in ("-", "--") or not word.startswith("-"):
            yield word, ""
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            yield name, next(rest, "") if not equals and name in grammar.long_with_value else value
        else:
            yield from _short_options(word[1:], rest, grammar)


def _short_options(letters: str, rest: Iterator[str], grammar: Grammar) -> Iterator[tuple[str, str]]:
    for i, letter in enumerate(letters):
        if letter in grammar.short_with_value:
            # popt takes -M=VALUE too, getopt does not.
            value = letters[i + 1 :] or next(rest, "")
            yield _keyword(value, grammar) if letter == "o" else f"-{letter}", value.removeprefix("=")
            return
        yield f"-{letter}", ""


def _keyword(setting: str, grammar: Grammar) -> str:
    """Return `-o` with its keyword, which ignores case and ends at `=` or a space (ssh_config(5))."""
    key = "".join(setting.replace("=", " ").split()[:1]).lower()
    refused = [option for options in grammar.refused.values() for option in options]
    return next((option for option in refused if option.lower() == f"-o{key}"), "-o")
