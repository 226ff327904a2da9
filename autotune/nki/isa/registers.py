"""Registers: set, move, load from memory, store to memory; and what the target is."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.constants import nc_version as NcVersion
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.operands import put, raw
from autotune.nki.interpreter.registers import VirtualRegister
from autotune.nki.interpreter.session import Program, current
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, Operands, issue


def get_nc_version() -> NcVersion:
    """Return the generation of the target's core."""
    return NcVersion(current().machine.generation)


def get_nc_sub_version() -> int:
    """Return the revision of the target's silicon: the first."""
    return 0


def register_alloc(x: Any = None) -> VirtualRegister:
    """Return a new register, empty or holding an integer."""
    made = VirtualRegister()
    if isinstance(x, NkiTensor):
        register_load(made, x)
    elif x is not None:
        register_move(made, x)
    return made


def register_move(dst: VirtualRegister, src: int | VirtualRegister) -> None:
    """Set a register to an integer, or to another register's value."""
    dst.set(src.value if isinstance(src, VirtualRegister) else src)


def _check_load(call: Call) -> None:
    layout = call.memory("src", "hbm", "sbuf")
    if layout.size != 1:
        call.fail(f"has {layout.size} elements; a register takes one", "src", layout.size, 1)


def _load(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    value = raw(reads[0]).reshape(-1)[0]
    options.set(int(value) if reads[0].dtype.kind in ("int", "bool") else float(value))


def _check_store(call: Call) -> None:
    layout = call.memory("dst", "hbm", "sbuf")
    if layout.size != 1:
        call.fail(f"has {layout.size} elements; a register holds one", "dst", layout.size, 1)


def _store(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    put(writes[0], np.asarray(options.known(), dtype=np.float64))


_LOAD = Kind("register_load", (), ("src",), _check_load, _load)
_STORE = Kind("register_store", ("dst",), (), _check_store, _store)


def register_load(dst: VirtualRegister, src: NkiTensor) -> None:
    """Read one element of HBM or SBUF into a register."""
    if not isinstance(dst, VirtualRegister):
        raise NkiError(f"register_load: dst has to be a register, not {type(dst).__name__}")
    dst.set(None)
    issue(_LOAD, (), (src,), dst)


def register_store(dst: NkiTensor, src: VirtualRegister) -> None:
    """Write a register to one element of HBM or SBUF."""
    issue(_STORE, (dst,), (), src)
