"""The enumerations of `nki.isa`, which kernels also import as `nki.isa.constants`."""

from __future__ import annotations

from enum import Enum, IntEnum


class engine(Enum):
    """Name the engines of a core."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    tensor = 1
    vector = 5
    scalar = 2
    gpsimd = 3
    dma = 4
    sync = 6
    unknown = 0


class reduce_cmd(Enum):
    """Say what an instruction does with an engine's reduction registers."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    idle = 0
    reset = 1
    reduce = 2
    reset_reduce = 3
    load_reduce = 4


class dge_mode(Enum):
    """Say who makes the descriptors of a DMA."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    unknown = 0
    swdge = 1
    hwdge = 2
    none = 3


class oob_mode(Enum):
    """Say what an index out of bounds does: raise, or skip the access."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    error = 0
    skip = 1


class matmul_perf_mode(Enum):
    """Name the performance modes of a matmul."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    none = "none"
    double_row = "double_row"


class nc_version(IntEnum):
    """Name the generations of the NeuronCore, which compare by age: trn1, trn2, trn3."""

    gen2 = 2
    gen3 = 3
    gen4 = 4


class dma_engine(Enum):
    """Name what moves the data of `sendrecv`."""

    __hash__ = object.__hash__  # members are single; the default hashes the name each time

    dma = 1
    gpsimd_dma = 2


tensor_engine = engine.tensor
vector_engine = engine.vector
scalar_engine = engine.scalar
gpsimd_engine = engine.gpsimd
unknown_engine = engine.unknown
