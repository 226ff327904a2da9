"""Start the host program over ssh, and bring it there where it is missing.

The remote command is a Python one-liner that reads its real beginning from standard input. The program itself
(the files of `host/`) is sent only where the host does not have it under its digest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from remote_tools.host.frames import MAGIC

_BEGINNING = """\
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
            refuse("io", "our program has no place there: " + str(error), "make room in ~/.cache there")
os.write(1, MAGIC)
early = []
if sys.version_info < (3, 8):
    refuse("unavailable", "Python " + sys.version.split()[0] + " is too old",
           "install Python 3.8 or newer there, as python3")
folder = os.path.expanduser("FOLDER")
if not os.path.isdir(folder):
    install(folder)
sys.path.insert(0, folder)
from host import supervisor
supervisor.serve(early)
"""


def host_program() -> dict[str, str]:
    """Return the sources that run on the host, by file name; `messages` holds types for mypy alone."""
    paths = sorted((Path(__file__).parents[1] / "host").glob("*.py"))
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.stem != "messages"}


def packed_program() -> bytes:
    """Return what the host is sent to have the program."""
    return json.dumps(host_program()).encode()


def program_folder(packed: bytes) -> str:
    """Name the folder, below the account's home there, that keeps a program as its package `host`."""
    return f"~/.cache/remote-tools/program-{hashlib.sha256(packed).hexdigest()[:16]}"


def beginning_of(packed: bytes) -> bytes:
    """Return the Python that the host begins with: it asks for a program that is missing, and starts it."""
    return _BEGINNING.replace("MAGIC", repr(MAGIC)).replace("FOLDER", program_folder(packed)).encode()


def loader(size: int) -> str:
    """Return Python that reads its beginning, so many bytes, from standard input, and carries it out.

    It holds no newline, !, $ or single quote, and so reads the same to sh, bash, zsh, fish and csh.
    """
    read = f"while len(b)<{size}: b+=os.read(0,{size}-len(b)) or sys.exit(75)"
    return f'import os,sys;b=b"";exec("{read}");exec(b)'
