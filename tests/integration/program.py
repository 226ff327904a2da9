"""Our program as a session on the host has it, without ssh: a process of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote_tools.host.frames import HEADER, MAGIC, REPLY, REQUEST, frame
from remote_tools.ssh.bootstrap import loader, packed_program, script_of


class Program:
    """Our program, as a session on the host has it.

    Args:
        home: the account's home folder.
        state_path: the folder for our state; None for the default.
        more: other variables.
    """

    def __init__(self, home: Path, state_path: Path | None = None, **more: str) -> None:
        packed = packed_program()
        script = script_of(packed, state_path and str(state_path))
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", loader(len(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"HOME": str(home), "PATH": os.environ["PATH"], **more},
            bufsize=0,
        )
        self.put(script)
        assert MAGIC == self._exactly(len(MAGIC))
        self.packed = packed

    def put(self, data: bytes) -> None:
        """Send bytes."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the next read finds out
            self.process.stdin.write(data)

    def _exactly(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = b""
        while len(data) < size:
            more = self.process.stdout.read(size - len(data))
            if not more:
                raise EOFError(self.end())
            data += more
        return data

    def ask(self, payload: bytes) -> Any:
        """Send a request and return its reply."""
        self.put(frame(REQUEST, payload))
        while True:
            kind, size = HEADER.unpack(self._exactly(HEADER.size))
            data = self._exactly(size)
            if kind == b"N":
                self.put(frame(b"S", self.packed))
            elif kind == REPLY and "started" not in json.loads(data):
                return json.loads(data)

    def end(self) -> tuple[int, str]:
        """Hang up; return the exit code and what was printed to standard error."""
        _, said = self.process.communicate()
        return self.process.returncode, said.decode(errors="replace")
