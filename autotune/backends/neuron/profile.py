"""What the Neuron profiler measured in one traced run of a kernel: MFU, MBU, and the engines."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotune.model.errors import DataError, UnavailableError

_TIMEOUT_S = 600
_TOOLS = "/opt/aws/neuron/bin"
_ENGINES = ("tensor", "vector", "scalar", "gpsimd")


@dataclass(frozen=True)
class Profile:
    """One traced run, as the profiler summarizes it. Fractions are of 1; None if it does not say.

    `active` is the profiler's word: the time in which an engine had an instruction, waiting included. It is
    not how busy its arithmetic was: `mfu` is, for the tensor engine.

    Args:
        total_us: microseconds on the core.
        mfu: FLOPs of the model's products, of the tensor engine's peak.
        hfu: FLOPs of all instructions of the tensor engine, transposes included, of its peak.
        mbu: bytes moved, of the peak of HBM.
        active: engine -> fraction of the time.
    """

    total_us: float
    mfu: float | None
    hfu: float | None
    mbu: float | None
    active: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it in one line for people."""
        parts = {"MFU": self.mfu, "MBU": self.mbu, **{f"{name} active": x for name, x in self.active.items()}}
        known = [f"{name} {value:.1%}" for name, value in parts.items() if value is not None]
        return ", ".join([f"{self.total_us:.1f} us", *known])


def parse(text: str) -> Profile:
    """Return what `neuron-profile view --output-format summary-json` printed.

    It is an object with one summary for each NeuronCore; the slowest core's is returned. The fields that the
    profiler calls `percent` are fractions.

    Raises:
        DataError: it is something else.
    """
    try:
        found = json.loads(text)
        summaries = [each for each in found.values() if isinstance(each, dict)] or [found]
        slowest = max(summaries, key=lambda each: float(each["total_time"]))
        return Profile(
            total_us=float(slowest["total_time"]) * 1e6,
            mfu=_fraction(slowest, "mfu_estimated_percent"),
            hfu=_fraction(slowest, "hfu_estimated_percent"),
            mbu=_fraction(slowest, "mbu_estimated_percent"),
            active={
                engine: value
                for engine in _ENGINES
                if (value := _fraction(slowest, f"{engine}_engine_active_time_percent")) is not None
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the profiler's summary is not as documented: {type(error).__name__}: {error}"
        ) from error


def _fraction(summary: Mapping[str, Any], name: str) -> float | None:
    value = summary.get(name)
    return None if value is None or float(value) < 0 else float(value)  # -1: it could not be estimated


def view(neff: Path, ntff: Path) -> Profile:
    """Have `neuron-profile` summarize a trace.

    Raises:
        UnavailableError: neuron-profile is missing or fails.
        DataError: its summary is not as documented.
    """
    command = ["neuron-profile", "view", "--output-format", "summary-json", "-n", str(neff), "-s", str(ntff)]
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_TOOLS}"}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"neuron-profile: {error}; the trace is in {ntff}") from None
    if done.returncode:
        raise UnavailableError(
            f"neuron-profile failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}; "
            f"the trace is in {ntff}"
        )
    return parse(done.stdout)
