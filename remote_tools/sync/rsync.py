"""Detect the rsync of both sides, build its command line, and turn its exit code into an error.

rsync(1) and its NEWS list the version that added each option. openrsync (macOS, OpenBSD) speaks protocol 27
or 29 and reports to be compatible with 2.6.9, so it gets the options of that version only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_tools.errors import (
    ConfigError,
    PermissionDenied,
    RemoteError,
    TransferError,
    UnavailableError,
    not_asked,
)
from remote_tools.host.listing import join
from remote_tools.host.messages import RsyncHere
from remote_tools.host.software import install_on, system_here
from remote_tools.host.tree import DISPLACED, PARTIAL_DIR
from remote_tools.settings import option_grammar
from remote_tools.ssh.login_shell import MARK
from remote_tools.ssh.master import quote
from remote_tools.sync import after_noise
from remote_tools.sync.rsync_output import OUT_FORMAT
from remote_tools.sync.rsync_processes import TIMED_OUT, RsyncExit, run_rsync

# fmt: off
FILTERS = frozenset((
    "--exclude", "--exclude-from", "--include", "--include-from", "--filter", "-f", "-F", "-C",
    "--cvs-exclude", "--max-size", "--min-size",
))
# fmt: on
"""Options that make rsync leave out files of the list."""

# fmt: off
ALTERING = frozenset((
    "--chmod", "--no-perms", "--no-p", "--no-times", "--no-t", "-E", "--executability", "--no-links",
    "--no-l", "-L", "--copy-links", "-k", "--copy-dirlinks", "--copy-unsafe-links", "--safe-links",
    "--munge-links", "--fake-super", "--iconv", "-u", "--update", "--existing", "--ignore-existing",
    "--ignore-non-existing", "-x",
))
# fmt: on
"""Options that make the files on the host differ from the local ones, or be missing."""

CHECKSUM = frozenset(("-c", "--checksum"))
"""Options that compare contents; records of files hold only size, mode and time."""

# fmt: off
FETCHING = frozenset((
    "-z", "--compress", "--zc", "--zl", "--bwlimit", "-4", "-6", "--ipv4", "--ipv6", "--rsync-path",
    "--contimeout", "-T", "--temp-dir",
))
# fmt: on
"""Options that apply to fetching results too; all others apply to pushing only."""

STALLED = frozenset((10, 12, 30, 35, 255))
"""rsync's exit codes for a lost connection: socket, protocol, timeouts, and ssh's own 255."""

_FOREIGN = re.compile(r"rejecting (unrequested|excluded)|unsafe|refusing|[Ii]nvalid .* from|overflow")
"""What rsync says of a file list, or of a message, that breaks its rules (flist.c, io.c, receiver.c)."""

PROTOCOL = 2
VANISHED = 24
PARTIAL = 23


@dataclass(frozen=True)
class Version:
    """An rsync program; `number` is the version that it reports to be compatible with."""

    openrsync: bool
    number: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """The local rsync and the one on the host."""

    here: Version
    there: Version

    def has(self, *number: int) -> bool:
        """Return whether both are rsync, not openrsync, of this version or newer."""
        return self.local_has(*number) and not self.there.openrsync and self.there.number >= number

    def local_has(self, *number: int) -> bool:
        """Return whether the local one is rsync, not openrsync, of this version or newer."""
        return not self.here.openrsync and self.here.number >= number


class Stalled(Exception):
    """The connection was lost; the files that arrived stay, and the transfer can be retried.

    Attributes:
        early: rsync on the host had sent nothing: it may be dead, and the network well.
    """

    def __init__(self, message: str, early: bool = False) -> None:
        """Keep the message."""
        super().__init__(message)
        self.early = early


def parse_version(text: str) -> Version:
    """Parse the output of `rsync --version`; assume the oldest version if it cannot be parsed."""
    found = re.search(r"rsync\s+version\s+v?(\d{1,4}(?:\.\d{1,4}){0,3})", text)
    number = tuple(map(int, found[1].split("."))) if found else (2, 6, 9)
    return Version("openrsync" in text, number)


@functools.lru_cache
def local_version() -> Version:
    """Return the version of the local rsync.

    Raises:
        FileNotFoundError: rsync is not installed.
    """
    done = subprocess.run(["rsync", "--version"], capture_output=True, check=False)
    return parse_version((done.stdout + done.stderr).decode(errors="replace"))


def pair_with(alias: str, there: RsyncHere, stage: str) -> Pair:
    """Return the versions of rsync on both sides.

    Args:
        alias: the host.
        there: the rsync that was found on it.
        stage: `sync` or `fetch`, for the message.

    Raises:
        UnavailableError: rsync is missing on one side; the hint says how to install it.
    """
    if there["path"] is None:
        raise UnavailableError(
            stage, f"no rsync on {alias}", f"on {alias}: {install_on(there['system'], 'rsync')}"
        )
    try:
        here = local_version()
    except FileNotFoundError as error:
        hint = install_on(system_here(), "rsync")
        raise UnavailableError(stage, "no rsync on this machine", hint) from error
    return Pair(here, parse_version(there["says"]))


# Its command line -------------------------------------------------------------------------------------------


def names_of(words: Sequence[str]) -> set[str]:
    """Return the options among the words, without their values."""
    return set(option_grammar.names(words, option_grammar.RSYNC))


def push_words(
    pair: Pair, words: Sequence[str], timeout_s: float, listing: Path, large: bool, aside: str
) -> list[str]:
    """Return the options of a push: defaults, then the user's options, then those that must not change.

    Args:
        pair: the rsync of both sides.
        words: RSYNC_OPTIONS.
        timeout_s: how long the connection may be silent.
        listing: file with the paths to send, separated by NUL.
        large: whether a file is larger than `LARGE_BYTES`.
        aside: name of the folder in `DISPLACED` for overwritten files.
    """
    own = ["-l", "-I", f"--files-from={listing}", "--from0", f"--out-format={OUT_FORMAT}"]
    own += ["--backup", f"--backup-dir={os.fsdecode(DISPLACED)}/{aside}"]
    if not pair.here.openrsync:
        own += ["--no-recursive", "--no-implied-dirs"]
    return [*_common(pair, timeout_s, large), *_closed(pair), *words, *own]


def _closed(pair: Pair) -> list[str]:
    """Return the option that keeps others from writing to what arrives; --chmod in RSYNC_OPTIONS adds to it.

    The host does so itself at the end of a push if an rsync has no --chmod.
    """
    return ["--chmod=ug-s,o-t,go-w"] if pair.local_has(2, 6, 7) else []


def pull_words(pair: Pair, words: Sequence[str], timeout_s: float, listing: Path, large: bool) -> list[str]:
    """Return the options of a fetch: regular files with their times, without owner and mode."""
    own = ["-vt", f"--files-from={listing}", "--from0", f"--out-format={OUT_FORMAT}"]
    if not pair.here.openrsync:
        own += ["--no-recursive", "--no-implied-dirs", "--no-links", "--no-devices", "--no-specials"]
    if pair.has(3, 1, 0):
        own += ["--ignore-missing-args"]
    return [*_common(pair, timeout_s, large), *_fetching(words), *own]


def _fetching(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of RSYNC_OPTIONS that apply to fetching too."""
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        valued = not equals and (name in option_grammar.RSYNC.long_with_value or name == "-T")
        value = [next(rest)] if valued else []
        if name in FETCHING:
            yield from (word, *value)


def _common(pair: Pair, timeout_s: float, large: bool) -> list[str]:
    """Return the options of push and fetch; only if `large`, as --partial-dir costs a look-up per file."""
    words = [f"--timeout={max(1, round(timeout_s))}"]
    words += [f"--partial-dir={os.fsdecode(PARTIAL_DIR)}"] if large else []
    words += ["-s"] if pair.has(3, 0, 0) else []
    if pair.local_has(3, 1, 0):
        words += ["--no-human-readable", "--outbuf=L", "--ignore-missing-args"]
        words += ["--info=progress2"] if large else []
    return words


def patience_s(pair: Pair, timeout_s: float) -> float | None:
    """Return how long to wait for rsync's first output; None for openrsync, which may print nothing."""
    return None if pair.here.openrsync else timeout_s


def remote_path(pair: Pair, path: str) -> str:
    """Return a path on the host, quoted for the host's shell if rsync cannot use -s.

    Since 3.2.4 the local rsync quotes it, except for wildcards. Its --old-args would end that, and with it
    the check that a host sends nothing but what was asked for (NEWS of 3.2.5).
    """
    if pair.has(3, 0, 0):
        return path
    return re.sub(r"([*?\[\]])", r"\\\1", path) if pair.local_has(3, 2, 4) else quote(path)


def rsh(words: Sequence[str]) -> str:
    """Quote ssh's words for rsync's --rsh: it splits at spaces outside quotes; a doubled quote is a quote."""
    plain = re.compile(r"[\w@%+=:,./-]+", re.ASCII).fullmatch
    return " ".join(word if plain(word) else '"' + word.replace('"', '""') + '"' for word in words)


def past_noise(ssh_words: Sequence[str], noise: bytes, options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return more options for rsync, and the words of its remote shell.

    Args:
        ssh_words: the ssh command that reaches the host.
        noise: what the host's shell prints as it starts; rsync must not read it.
        options: RSYNC_OPTIONS.
    """
    if not noise:
        return [], list(ssh_words)
    paths = [word.partition("=")[2] for word in options if word.startswith("--rsync-path=")]
    path = paths[-1] if paths else "rsync"
    script = str(Path(after_noise.__file__))
    return [f"--rsync-path=echo {MARK}; {path}"], [sys.executable, "-I", "-S", script, MARK, *ssh_words]


@contextlib.contextmanager
def listed(paths: Iterable[bytes]) -> Iterator[Path]:
    """Write a temporary file for --files-from and --from0.

    Names that begin with # or ; get a prefix: rsync reads them as comments (exclude.c, RL_DUMP_COMMENTS).
    """
    with tempfile.NamedTemporaryFile(prefix="remote-listing-") as file:
        file.write(join(b"./" + path if path[:1] in b"#;" else path for path in paths))
        file.flush()
        yield Path(file.name)


def left_out(root: Path, paths: Sequence[bytes], words: Sequence[str]) -> set[bytes]:
    """Return the files that RSYNC_OPTIONS leave out, by a dry run of the local rsync.

    The dry run covers parent folders too: the files below an excluded folder are left out as well.
    """
    if not paths or not names_of(words) & FILTERS:
        return set()
    above = {path: {path[:i] for i, byte in enumerate(path) if byte == 47} for path in paths}
    with tempfile.TemporaryDirectory() as nowhere, listed([*paths, *set().union(*above.values())]) as listing:
        own = ["--dry-run", "-l", "-I", "-d", f"--files-from={listing}", "--from0", "--out-format=::%n"]
        command = ["rsync", *words, *own, "--no-recursive", "--no-implied-dirs", f"{root}/", nowhere]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, PARTIAL, VANISHED):
        raise options_error(done.stderr.decode(errors="replace").splitlines(), "sync")
    lines = (line[2:] for line in done.stdout.splitlines() if line.startswith(b"::"))
    sent = {unescape(line).rstrip(b"/") for line in lines}
    return {path for path in paths if path not in sent or not above[path] <= sent}


def differing(
    alias: str,
    transport: tuple[Sequence[str], Sequence[str]],
    pair: Pair,
    top: tuple[Path, str],
    paths: Sequence[bytes],
    words: Sequence[str],
    timeout_s: float,
) -> list[bytes]:
    """Return the files that differ only in their contents, by a dry run of rsync.

    Args:
        alias: the host.
        transport: as `past_noise` returns it.
        pair: the rsync of both sides.
        top: the local folder, and the one on the host.
        paths: the files to compare, below `top`.
        words: RSYNC_OPTIONS, with --checksum.
        timeout_s: how long the connection may be silent.

    Raises:
        Stalled: the connection was lost.
        RemoteError: rsync failed for another reason.
    """
    output, most = bytearray(), sum(4 * len(path) + 64 for path in paths)

    def take(data: bytes) -> None:  # the host's rsync prints to the same output, without end if it likes
        output.extend(data[: max(0, most - len(output))])

    with listed(paths) as listing:
        own = ["--dry-run", "-t", f"--files-from={listing}", "--from0", "--out-format=::%i %n"]
        own += [] if pair.here.openrsync else ["--no-recursive", "--no-implied-dirs"]
        command = [
            "rsync",
            *_common(pair, timeout_s, False),
            *words,
            *own,
            *transport[0],
            f"--rsh={rsh(transport[1])}",
        ]
        command += [f"{top[0]}/", address(alias, remote_path(pair, f"{top[1]}/"))]
        check(run_rsync(command, take, None), alias, "sync", timeout_s)
    sent = (line.partition(b" ")[2] for line in output.splitlines() if line.startswith(b"::<f"))
    found = {unescape(bytes(name)) for name in sent}
    return [path for path in paths if path in found]


def address(alias: str, path: str) -> str:
    """Return a path on the host as an argument of rsync, with brackets around an IPv6 address."""
    user, at, host = alias.rpartition("@")
    return f"{user}{at}[{host}]:{path}" if ":" in host else f"{alias}:{path}"


def unescape(name: bytes) -> bytes:
    """Decode rsync's escapes of unprintable bytes: `\\#012` (rsync(1), --8-bit-output)."""
    return re.sub(rb"\\#(\d{3})", lambda found: bytes([int(found[1], 8) & 255]), name)


# How it ended ---------------------------------------------------------------------------------------------


def check(outcome: RsyncExit, alias: str, stage: str, timeout_s: float) -> None:
    """Raise the error that rsync's exit code stands for; files deleted during the transfer are no error.

    Raises:
        Stalled: the connection was lost.
        RemoteError: rsync failed for another reason.
    """
    if outcome.code in (0, VANISHED):
        return
    lines = [line for line in outcome.stderr if line.strip() and not line.startswith("rsync error:")]
    first = lines[0].strip() if lines else f"rsync ended with code {outcome.code}"
    if outcome.code == TIMED_OUT:
        raise Stalled(f"{alias}: no data for {timeout_s:g} s")
    if (outcome.code in STALLED and not any(map(_FOREIGN.search, lines))) or outcome.code < 0:
        early = any("(0 bytes received so far)" in line for line in lines)
        raise Stalled(f"{alias}: {first}", early)
    if outcome.code in (126, 127):  # the host's shell could not start it
        raise dead(alias, stage, first)
    if outcome.code == PROTOCOL and "is your shell clean" in first:
        raise UnavailableError(
            stage,
            f"a start-up file of the shell on {alias} prints something at times, and rsync stumbles over it",
            f"`ssh {alias} true` must print nothing: see ~/.bashrc there",
        )
    if any(map(_FOREIGN.search, lines)):
        raise not_asked(stage, alias, first)
    if outcome.code in (1, PROTOCOL, 4):
        raise options_error(outcome.stderr, stage)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    kind: type[RemoteError] = PermissionDenied if "Permission denied" in first else TransferError
    raise kind(
        stage,
        f"{alias}: {first}{more}",
        f"see if the disk is full: ssh {alias} df -h; or mend the file that the message names",
    )


def dead(alias: str, stage: str, said: str) -> UnavailableError:
    """Return the error for an rsync on the host that ends before it begins."""
    return UnavailableError(stage, f"rsync on {alias} does not start: {said}", f"ssh {alias} rsync --version")


def options_error(stderr: Sequence[str], stage: str) -> ConfigError:
    """Return the error for options that rsync rejects."""
    reason = next((line.strip() for line in stderr if line.strip()), "no reason given")
    return ConfigError(
        stage, f"rsync rejects its options: {reason}", "correct RSYNC_OPTIONS; inv config shows them"
    )
