"""Stands in for the Neuron SDK at its edge: two interpreters, each with one half of it, and two tools.

What the tests hold with it is our side: processes, cores, time limits, error numbers, files. Nothing here
says how the real SDK behaves beyond what its documentation says.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = {
    "compiles": {"nki": "0.6.0", "neuronx-cc": "2.27.1"},
    "runs": {"nrtpy": "2.32.0"},
    "spikes": {"spike": "0.2.0"},
}


def install(folder: Path) -> dict[str, str]:
    """Make the virtual environments in a folder; return half -> its interpreter."""
    return {half: _environment(folder / half, half) for half in PACKAGES}


def _environment(folder: Path, half: str) -> str:
    """Make a virtual environment with one half of the SDK, and with NumPy."""
    python = Path(sys.executable).resolve()
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    site.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(python)
    for tool in (HERE / "bin").glob("*.py"):
        program = folder / "bin" / tool.stem.replace("_", "-")
        program.write_text(f"#!{python} -IS\n{tool.read_text()}")
        program.chmod(0o755)
    (site / "stands.pth").write_text(f"{HERE / half}\n{sysconfig.get_path('purelib')}\n")
    for name, version in PACKAGES[half].items():
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(folder / "bin/python")
