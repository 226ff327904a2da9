"""The rsync of a hostile host: sends a file list of its own making, in protocol 29 (rsync 2.6.9).

Called as `rsync.py FILE --server --sender ...`. Each line of FILE is a mode, octal, and a name, as Python.
The format is that of rsync's flist.c (send_file_entry), io.c (multiplexing) and compat.c.
"""

import ast
import os
import struct
import sys
import time
from pathlib import Path

XMIT_LONG_NAME = 0x40
MPLEX_BASE = 7
"""What rsync adds to the kind of a multiplexed message; 0 is data."""


def send(data):
    """Send data as a multiplexed message."""
    os.write(1, struct.pack("<I", MPLEX_BASE << 24 | len(data)) + data)


def entry(mode, name):
    """Return an entry of the file list: flags, length of the name, name, size, time, mode."""
    head = struct.pack("<BI", XMIT_LONG_NAME, len(name)) + name
    return head + struct.pack("<iii", 5, int(time.time()), mode)


with Path(sys.argv[1]).open() as file:
    entries = [(int(line.split()[0], 8), ast.literal_eval(line.split(" ", 1)[1])) for line in file]
os.write(1, struct.pack("<ii", 29, 1))  # the version of the protocol, and the seed of the checksums
send(b"".join(entry(*each) for each in entries) + b"\0" + struct.pack("<i", 0))
while os.read(0, 65536):  # it asks for the files, and gets none
    time.sleep(0.01)
