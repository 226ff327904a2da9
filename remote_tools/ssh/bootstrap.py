"""Start the host program over ssh, and send it if the host does not have it.

The remote command is a Python one-liner that reads a bootstrap script from standard input. The program itself
(the files of `host/`) is sent only if the host does not have it under its digest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from remote_tools.host.frames import MAGIC

_SCRIPT = """\
import json, os, struct, sys
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit(75)
    return data
def refuse(kind, message, hint):
    reply = json.dumps({"error": kind, "message": message, "hint": hint}).encode()
    os.write(1, struct.pack(">cI", b"R", len(reply)) + reply)
    sys.exit(0)
def install(folder):
    os.write(1, struct.pack(">cI", b"N", 0))
    kind, size = struct.unpack(">cI", read(5))
    while kind != b"S":
        early.append((kind, read(size)))
        kind, size = struct.unpack(">cI", read(5))
    sources = json.loads(read(size))
    part = folder + "." + str(os.getpid())
    try:
        os.makedirs(os.path.join(part, "host"), 0o700)
        for name, text in sources.items():
            with open(os.path.join(part, "host", name), "w", encoding="utf-8") as file:
                file.write(text)
        os.rename(part, folder)
    except OSError as error:
        import shutil
        shutil.rmtree(part, ignore_errors=True)
        if not os.path.isdir(folder):
            refuse("io", "cannot write the host program: " + str(error), "free space in ~/.cache on the host")
os.write(1, MAGIC)
early = []
if sys.version_info < (3, 8):
    refuse("unavailable", "Python " + sys.version.split()[0] + " is too old",
           "install Python 3.8 or newer on the host, as python3")
folder = os.path.expanduser("FOLDER")
if not os.path.isdir(folder):
    install(folder)
sys.path.insert(0, folder)
from host import supervisor
supervisor.serve(early)
"""


def host_program() -> dict[str, str]:
    """Return the host program's sources by file name, without `messages`, which only mypy needs."""
    paths = sorted((Path(__file__).parents[1] / "host").glob("*.py"))
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.stem != "messages"}


def packed_program() -> bytes:
    """Return the program as the payload of a `sources` frame."""
    return json.dumps(host_program()).encode()


def program_folder(packed: bytes) -> str:
    """Return the folder on the host, below ~, that holds a program as its package `host`."""
    return f"~/.cache/remote-tools/program-{hashlib.sha256(packed).hexdigest()[:16]}"


def script_of(packed: bytes) -> bytes:
    """Return the bootstrap script: it requests the program if the host does not have it, and starts it."""
    return _SCRIPT.replace("MAGIC", repr(MAGIC)).replace("FOLDER", program_folder(packed)).encode()


def loader(size: int) -> str:
    """Return Python that reads a script of `size` bytes from standard input and executes it.

    It has no newline, !, $ or single quote, so that sh, bash, zsh, fish and csh read it alike.
    """
    read = f"while len(b)<{size}: b+=os.read(0,{size}-len(b)) or sys.exit(75)"
    return f'import os,sys;b=b"";exec("{read}");exec(b)'
