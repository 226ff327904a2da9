"""Hand variables to a command on a host, so that their values stand in no command line, here or there.

All users can read a command line (ps). sshd takes variables of few names, if any (sshd_config(5), AcceptEnv),
and the command's own input is not ours. So a second session writes them to a private file there, which the
command's shell reads and removes. That session goes on until its input ends, and then removes what is left:
after Ctrl-C and after a lost connection too.
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from remote_tools.errors import TransferError, UsageError
from remote_tools.ssh.login_shell import MARK, read_past_mark
from remote_tools.ssh.master import Master, quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATIENCE_S = 10.0

# Both are a line without ', !, \ and newline, which every login shell takes alike. Arguments: a name, a size.
_HOLD = (
    'trap "" HUP PIPE; umask 077; '
    'for d in ${XDG_RUNTIME_DIR:+"$XDG_RUNTIME_DIR"} ${TMPDIR:+"$TMPDIR"} /tmp "$HOME"; '
    "do d=$d/remote-tools-env-$0; "
    'mkdir "$d" 2>/dev/null && break; done; '
    f'head -c "$1" > "$d/it" && echo {MARK} && echo "$d" && cat > /dev/null; '
    # The command may be on its way while this process, or all of the laptop, is gone.
    'for i in 1 2 3 4 5; do [ -e "$d/it" ] && sleep 1; done; rm -rf "$d"'
)
# Arguments: the command, the folder. No name of a variable of ours could be one of the user's.
_TAKE = (
    'set -- "$(cat "$1/it")" "$1" "$SHELL"; rm -rf "$2"; [ -n "$1" ] || exit 255; '
    'eval "$1"; exec "$3" -c "$0"'
)


class Variables:
    """The variables of one command, on their way.

    Args:
        master: the connection, which is open.
        given: the values by name.

    Raises:
        UsageError: a name is none, or a value holds a NUL.
        TransferError: the host did not take them.
    """

    def __init__(self, master: Master, given: Mapping[str, object]) -> None:
        """Send them."""
        lines = b"".join(map(_line, given, given.values()))
        alias = master.destination.alias
        hold = " ".join(map(quote, ["exec", "sh", "-c", _HOLD, secrets.token_hex(16), str(len(lines))]))
        words = [*master.words(), "-T", "--", alias, hold]
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        self._holder = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=null, bufsize=0)
        try:
            self._folder = self._send(lines, alias)
        except BaseException:
            self._holder.kill()  # the host notices, and removes what it has
            self.close()
            raise

    def _send(self, lines: bytes, alias: str) -> str:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        view = memoryview(lines)
        with suppress(BrokenPipeError):
            while view:
                view = view[self._holder.stdin.write(view) :]
        said = read_past_mark(self._holder.stdout) or b""
        while b"\n" not in said and len(said) < 4096 and (data := self._holder.stdout.read(4096)):
            said += data
        folder = said.partition(b"\n")[0].decode(errors="surrogateescape")
        if not folder.startswith("/") or not folder.isprintable():
            hint = f"ssh {alias} 'mkdir /tmp/x' must work"
            raise TransferError("env", f"{alias} has no place for the command's variables", hint)
        return folder

    def before(self, command: str) -> str:
        """Return the command that takes the variables and then runs a command in the login shell."""
        return "exec " + " ".join(map(quote, ["sh", "-c", _TAKE, command, self._folder]))

    def close(self) -> None:
        """End the second session, which removes what is left on the host."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder.stdout.close()


def _line(name: str, value: object) -> bytes:
    """Return a line of sh that exports a variable.

    Raises:
        UsageError: the name is none, or the value holds a NUL.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("env", f"{name!r} is not a name of a variable", "letters, digits and _ make one")
    text = str(value)
    if "\0" in text:
        raise UsageError("env", f"the value of {name} holds a NUL, which no variable can")
    return f"export {name}={shlex.quote(text)}\n".encode(errors="surrogateescape")
