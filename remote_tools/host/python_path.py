"""Put the code path on every Python's path, behind the standard library.

On PYTHONPATH it would come before the standard library: a project's `profile.py` or `queue.py` would replace
Python's own there and not here. So PYTHONPATH names a folder with a `sitecustomize` (see Python's `site`),
which puts the code path before what is installed, since what was pushed comes before an older copy of it.
"""

from __future__ import annotations

import os

HOOK = """\
import os, sys
here = os.path.dirname(os.path.abspath(__file__))
root = ROOT
paths = [path for path in sys.path if os.path.abspath(path) != here]
if root not in paths:
    kinds = [os.path.basename(path) for path in paths]
    installed = [kinds.index(kind) for kind in ("site-packages", "dist-packages") if kind in kinds]
    paths.insert(min(installed) if installed else len(paths), root)
sys.path[:] = paths
ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # the one that this file hides
except ImportError as error:
    if getattr(error, "name", "sitecustomize") != "sitecustomize":
        raise
    sys.modules["sitecustomize"] = ours
"""


def python_path(state: str, code_path: str) -> str:
    """Return the PYTHONPATH of a run; the hook is written if it is missing."""
    folder = os.path.join(state, "python-path")
    text = HOOK.replace("ROOT", ascii(code_path))
    try:
        write_once(os.path.join(folder, "sitecustomize.py"), text)
    except OSError:  # a full disk: better first than not at all
        folder = code_path
    return os.pathsep.join(path for path in (folder, os.environ.get("PYTHONPATH", "")) if path)


def write_once(path: str, text: str) -> None:
    """Write a text file whole, unless it holds that text already."""
    try:
        with open(path, encoding="ascii") as file:
            if file.read() == text:
                return
    except (OSError, ValueError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    part = f"{path}.{os.getpid()}"
    with open(part, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(part, path)
