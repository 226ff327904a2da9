"""Stands in for neuronx-cc: writes a NEFF, counts its calls, and fails as the real one says that it fails."""

import os
import sys
from pathlib import Path

text = sys.stdin.read()
calls = Path(os.environ["NEURONX_STATE"]) / "compiled"
with calls.open("a") as file:
    file.write(".")
count = calls.stat().st_size
if "sbuf" in text:
    sys.exit(
        print("2026-11-27 ERROR 1 [neuronx-cc]: Out of memory in sbuf: 229,376 bytes", file=sys.stderr) or 70
    )
if "ncc" in text:
    sys.exit(print("ERROR: [NCC_EVRF001] Operator iota is not supported", file=sys.stderr) or 70)
if "internal" in text or ("flaky" in text and count % 2):
    sys.exit(print("An Internal Compiler Error has occurred", file=sys.stderr) or 70)
if "broken" in text:
    os.abort()
Path(sys.argv[1]).write_text(text)
