"""Run ssh for rsync, and drop what the host's shell printed before the mark: rsync takes it for its protocol.

A script of its own, for rsync's --rsh: `python after_noise.py MARK ssh ...`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

READ_BYTES = 256 * 1024


def main(mark: bytes, command: Sequence[str]) -> int:
    """Run the command, and copy what it prints after the mark; ssh itself reads our standard input."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        fd, before = process.stdout.fileno(), b""
        while mark not in before:
            data = os.read(fd, READ_BYTES)
            if not data:
                sys.stderr.write(before.decode(errors="replace"))  # the reason why rsync was not started
                return process.wait()
            before += data
        data = before.partition(mark)[2]
        while True:
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
            data = os.read(fd, READ_BYTES)
            if not data:
                return process.wait()


if __name__ == "__main__":
    try:
        code = main(os.fsencode(sys.argv[1]) + b"\n", sys.argv[2:])
    except BrokenPipeError:  # rsync has ended
        code = 255
    os._exit(code)
