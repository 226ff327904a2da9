"""Start the host program over ssh, and send it if the host does not have it.

The remote command is a Python one-liner that reads a bootstrap script from standard input. The program itself
(the files of `host/`) is sent only if the host does not have it under its digest.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from remote_tools.host.frames import MAGIC, MOST_BYTES
from remote_tools.ssh.master import quote

NOT_FOUND = 127
"""How a shell ends that cannot find the command (POSIX, 2.8.2), and we if its Python is too old."""
PLACES = (
    *("python3", "python", *(f"python3.{minor}" for minor in range(14, 7, -1))),
    *("~/.local/bin/python3", "/usr/local/bin/python3", "/opt/conda/bin/python3", "~/miniconda3/bin/python3"),
    *("~/anaconda3/bin/python3", "~/miniforge3/bin/python3", "~/.nix-profile/bin/python3"),
    "/run/current-system/sw/bin/python3",
)
"""Where else a Python may be, if there is no python3 on the PATH of a shell without a terminal."""

# The login shell's own start-up files may set a PATH that a shell without a terminal does not have.
_FIND = """\
login=$("$SHELL" -lc "printenv PATH" </dev/null 2>/dev/null | tail -n 1); PATH=$PATH:$login; \
for p in "$@"; do case $p in "~/"*) p=$HOME/${p#"~/"};; esac; \
p=$(command -v "$p") && \
"$p" -I -S -c "import sys; sys.exit(sys.version_info < (3, 8))" </dev/null 2>/dev/null && \
exec "$p" -I -S -X utf8 -c "$0"; done; exit 127"""

_SCRIPT = """\
import errno, json, os, stat, struct, sys, zlib
umask = os.umask(0o077)
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit(75)
    return data
def refuse(kind, message, hint):
    reply = json.dumps({"error": kind, "message": message, "hint": hint}).encode()
    os.write(1, struct.pack(">cI", b"R", len(reply)) + reply)
    sys.exit(0)
def state_home():
    own = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "remote-tools")
    temporary = [os.environ.get("TMPDIR") or "/var/tmp", "/tmp"]
    places = [os.path.expanduser(STATE) if STATE else own]
    places += [] if STATE else ["%s/remote-tools-%d" % (tmp, os.getuid()) for tmp in temporary]
    failure = None
    for place in places:
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            info = os.stat(place) if place == places[0] else os.lstat(place)
            if place == own and info.st_uid == os.getuid() and info.st_mode & 0o077:
                os.chmod(place, 0o700)  # an earlier version left it to the umask; state_path is the user's
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(13, "it cannot be written", place)
            if place in places[1:] and (info.st_uid != os.getuid() or info.st_mode & 0o170077 != 0o40000):
                raise PermissionError(13, "it is not a private folder", place)
            above = open_above(place)
            if above and place == places[0]:
                refuse("permission", "others can write to " + above + " and could replace our program there",
                       "chmod go-w " + above + "; or name another folder with state_path")
            if above:
                raise PermissionError(13, "others can write to it", above)
            return place
        except OSError as error:
            failure = failure or error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                break
    no_place(failure)
def open_above(place):
    home, trusted = os.path.expanduser("~"), (os.getuid(), 0, os.lstat("/").st_uid)
    # Links: both who can change the link and who can change what it leads to.
    for folder in dict.fromkeys((os.path.realpath(place), os.path.abspath(place))):
        sticky = 0  # above: in a folder like /tmp nobody else can rename what is ours
        while True:
            info = os.stat(folder)
            if info.st_uid not in trusted or (not info.st_mode & sticky and open_to_others(info)):
                return folder
            if folder in (home, os.path.realpath(home), "/"):
                break
            folder, sticky = os.path.dirname(folder), stat.S_ISVTX
def open_to_others(info):
    return info.st_mode & 0o022 and not (info.st_mode & 0o022 == 0o020 and is_own_group(info.st_gid))
def is_own_group(gid):
    import grp, pwd
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}
def no_place(error):
    refuse("io", "our program has no place there: " + str(error),
           "make room on that file system, over plain ssh: df -h; or name another folder with state_path")
def install(folder):
    os.write(1, struct.pack(">cI", b"N", 0))
    kind, size = struct.unpack(">cI", read(5))
    while kind != b"S" and size <= MOST:
        early.append((kind, read(size)))
        kind, size = struct.unpack(">cI", read(5))
    packed = read(size) if size == SIZE else b""
    if zlib.crc32(packed) != CHECKSUM:
        refuse("protocol", "what arrived is not our program", "")
    sources = json.loads(packed)
    part = folder + "." + os.urandom(8).hex()  # nodes that share a home have the same pids
    try:
        os.makedirs(os.path.join(part, "host"), 0o700)
        for name, text in sources.items():
            with open(os.path.join(part, "host", name), "w", encoding="utf-8") as file:
                file.write(text)
        try:
            os.rename(folder, part + ".old")
        except FileNotFoundError:
            pass
        os.rename(part, folder)
    except OSError as error:
        if not is_whole(folder):
            remove(part)
            no_place(error)
    remove(part)
    remove(part + ".old")
def remove(path):
    import shutil
    shutil.rmtree(path, ignore_errors=True)
def is_whole(folder):
    try:
        found = {}
        for above, folders, files in os.walk(folder):
            for path in [above] + [os.path.join(above, name) for name in folders + files]:
                info = os.lstat(path)
                if info.st_uid != os.getuid() or stat.S_ISLNK(info.st_mode) or open_to_others(info):
                    return False
        for name in sorted(os.listdir(os.path.join(folder, "host"))):
            if name.endswith(".py"):
                with open(os.path.join(folder, "host", name), encoding="utf-8") as file:
                    found[name] = file.read()
    except (OSError, ValueError):
        return False
    packed = json.dumps(found).encode()
    return len(packed) == SIZE and zlib.crc32(packed) == CHECKSUM
if sys.version_info < (3, 8):
    os.write(2, ("Python " + sys.version.split()[0] + " is too old\\n").encode())
    sys.exit(NOT_FOUND)
os.write(1, MAGIC)
early = []
home = state_home()
folder = os.path.join(home, PROGRAM)
if not is_whole(folder):
    install(folder)
sys.path.insert(0, folder)
from host import run_folder, supervisor
run_folder.settle(home, umask)
supervisor.serve(early)
"""


def host_program() -> dict[str, str]:
    """Return the host program's sources by file name, without `messages`, which only mypy needs."""
    paths = sorted((Path(__file__).parents[1] / "host").glob("*.py"))
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.stem != "messages"}


def packed_program() -> bytes:
    """Return the program as the payload of a `sources` frame."""
    return json.dumps(host_program()).encode()


def program_name(packed: bytes) -> str:
    """Return the name of the folder, below the state's, that holds a program as its package `host`."""
    return f"program-{hashlib.sha256(packed).hexdigest()[:16]}"


def script_of(packed: bytes, state_path: str | None) -> bytes:
    """Return the bootstrap script: it requests the program if the host does not have it, and starts it.

    Args:
        packed: the program.
        state_path: the folder for our state; None for $XDG_CACHE_HOME or ~/.cache, or a folder below /var/tmp
            if that cannot be written.
    """
    text = _SCRIPT.replace("MAGIC", repr(MAGIC)).replace("NOT_FOUND", str(NOT_FOUND))
    text = (
        text.replace("MOST", str(MOST_BYTES))
        .replace("SIZE", str(len(packed)))
        .replace("CHECKSUM", str(zlib.crc32(packed)))
    )
    text = text.replace("PROGRAM", repr(program_name(packed))).replace("STATE", repr(state_path))
    return text.encode("utf-8", "surrogateescape")


def start_command(size: int, search: Sequence[str] | None) -> str:
    """Return the command that starts a Python on the host, which reads a script of `size` bytes.

    Args:
        size: of the script.
        search: interpreters to try before those of `PLACES`; None for python3.
    """
    if search is None:
        # Paths and arguments are UTF-8 on the wire, whatever the host's locale is.
        return f"exec python3 -I -S -X utf8 -c '{loader(size)}'"
    return "exec " + " ".join(map(quote, ["sh", "-c", _FIND, loader(size), *search, *PLACES]))


def loader(size: int) -> str:
    """Return Python that reads a script of `size` bytes from standard input and executes it.

    It has no newline, !, $ or single quote, so that sh, bash, zsh, fish and csh read it alike.
    """
    read = f"while len(b)<{size}: b+=os.read(0,{size}-len(b)) or sys.exit(75)"
    return f'import os,sys;b=b"";exec("{read}");exec(b)'
