"""The limits of a NeuronCore, by target: what an instruction may touch, and how much memory there is.

Sources, all in aws-neuron-sdk (Neuron 2.32, NKI 0.6.0): the architecture guides of trn1, trn2 and trn3, the
page of `nki.language.tile_size`, and the "Tile size" paragraph of each instruction of `nki.isa`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from autotune.model.errors import UsageError

PARTITIONS = 128
QUADRANT = 32  # partitions that one group of lanes reaches; an operand starts at a multiple of it
PSUM_BANKS = 8
PSUM_BANK_BYTES = 2048
STATIONARY_FREE = 128  # columns of the systolic array
BN_STATS_ELEMENTS = 512
FREE_DIMENSIONS = 4  # of one operand, with a stride each


@dataclass(frozen=True)
class Machine:
    """Hold the limits of one target.

    Args:
        target: "trn1", "trn2" or "trn3".
        generation: 2, 3 or 4, as `nki.isa.nc_version` counts.
        sbuf_bytes: bytes of SBUF in a partition.
        moving_bytes: bytes of a matmul's output in a partition of PSUM: one bank, on trn3 all eight.
        logical_cores: physical cores that one kernel may span.
    """

    target: str
    generation: int
    sbuf_bytes: int
    moving_bytes: int
    logical_cores: int

    @property
    def psum_bytes(self) -> int:
        """Return the bytes of PSUM in a partition."""
        return PSUM_BANKS * PSUM_BANK_BYTES

    def bytes_of(self, memory: str) -> int:
        """Return the bytes that a partition of "sbuf" or "psum" holds."""
        return self.sbuf_bytes if memory == "sbuf" else self.psum_bytes


MACHINES = {
    "trn1": Machine("trn1", 2, 192 * 1024, PSUM_BANK_BYTES, 1),
    "trn2": Machine("trn2", 3, 224 * 1024, PSUM_BANK_BYTES, 2),
    "trn3": Machine("trn3", 4, 256 * 1024, PSUM_BANKS * PSUM_BANK_BYTES, 2),
}
_ALIASES = {"inf2": "trn1", "gen2": "trn1", "gen3": "trn2", "gen4": "trn3"}


def machine(target: str | None = None) -> Machine:
    """Return the limits of a target; without one, of NEURON_PLATFORM_TARGET_OVERRIDE, else of trn2.

    Raises:
        UsageError: there is no such target.
    """
    name = target or os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or "trn2"
    found = MACHINES.get(_ALIASES.get(name, name))
    if found is None:
        known = ", ".join([*MACHINES, *_ALIASES])
        raise UsageError(f"there is no NKI target {name!r}; known: {known}")
    return found
