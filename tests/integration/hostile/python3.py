"""The python3 of a hostile host: speaks our protocol, and replies as a scenario says.

A scenario is a file of Python with a function `answer(op, params)`, which returns a reply, or None for none.
It may define `early()`, which is called before the greeting, and use everything that is defined here.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from remote_tools.host.frames import FILE, HEADER, MAGIC, frame, json_frame, write_all
from remote_tools.host.listing import pack, unpack  # noqa: F401  # for scenarios

SCENARIO = Path(sys.argv[1])
RSYNC = {"path": "/usr/bin/rsync", "says": "rsync  version 3.2.7  protocol version 31", "system": "debian"}
ESCAPE = "\x1b]52;c;Y3VybCBldmlsfHNo\x07\x1b]0;owned\x1b\\\x9b31m\u202e"
"""Writes to the clipboard, sets the title, turns the line round."""


def read(size):
    """Read so many bytes; end with the connection."""
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def raw(data):
    """Send bytes."""
    write_all(1, data)


def reply(message):
    """Send a reply."""
    raw(json_frame(b"R", message))


def file(path, data, mtime_ns=10**18):
    """Send a small result."""
    raw(frame(b"F", FILE.pack(mtime_ns, len(path)) + path + data))


def flood(fd, total):
    """Write so many bytes."""
    block = b"y\n" * 32768
    for _ in range(total // len(block)):
        write_all(fd, block)


def note(text):
    """Tell the test."""
    with SCENARIO.with_suffix(".log").open("a") as log:
        log.write(text + "\n")


def plan(**more):
    """Return a plan with nothing to do."""
    empty = {name: pack([]) for name in ("new", "changed", "blocked", "delete")}
    own = {"conflict": [], "kept": [], "pushed": 0, "root": "/root/code", "rsync": RSYNC, "holder": None}
    return {**empty, **own, **more}


def ended(**more):
    """Return the result of a push."""
    return {"removed": pack([]), "kept": [], "beside": [], "differs": [], **more}


def record(run_id, **more):
    """Return the record of a run that went well."""
    names = dict.fromkeys(("user", "cwd", "cache_dir", "python"), "x")
    own = {"id": run_id, "state": "ended", "exit": 0, "host": "h", "argv": ["x"], "env": {}, "shell": None}
    times = {"started": time.time(), "ended": time.time(), "pty": False}
    return {**names, **own, **times, **more}


def ran(params, files=(), **more):
    """Start a run, send its files, and return its end."""
    reply({"started": params["id"], "pushed": None if params["ending"] is None else ended(), "changed": []})
    for path, data in files:
        file(path, data)
    outputs = [[os.fsdecode(path), len(data), 1] for path, data in files]
    return {"run": record(params["id"], **more), "outputs": outputs, "rsync": None}


def early():
    """Do nothing before the greeting, unless the scenario does."""


def serve():
    """Answer requests."""
    early()
    read(int(re.search(r"len\(b\)<(\d+)", sys.argv[-1]).group(1)))
    raw(MAGIC)
    while True:
        kind, size = HEADER.unpack(read(HEADER.size))
        payload = read(size)
        if kind == b"P":
            raw(frame(b"P", b""))
        elif kind == b"Q":
            asked = json.loads(payload)
            found = answer(asked["op"], asked["params"])  # noqa: F821
            if found is not None:
                reply(found)


exec(compile(SCENARIO.read_text(), str(SCENARIO), "exec"))
serve()
