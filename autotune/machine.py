"""What machine this is, and what it can do at best."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


@functools.lru_cache
def cpu_name() -> str:
    """Return the CPU's model as the kernel names it, with what else tells two apart (family, stepping)."""
    wanted = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return " ".join([platform.machine(), *(facts[key] for key in wanted if key in facts)])
