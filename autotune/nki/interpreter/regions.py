"""The memories of a NeuronCore as `nki.language` names them."""

from __future__ import annotations

from enum import Enum


class MemoryRegion(Enum):
    """Name a memory: SBUF, PSUM, or HBM that one core or all cores of a kernel see."""

    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"

    @property
    def memory(self) -> str:
        """Return "sbuf", "psum" or "hbm"."""
        return "hbm" if self.value.endswith("hbm") else str(self.value)
