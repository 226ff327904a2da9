"""Loops, programs, printing, and the sizes of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from autotune.nki import machine as limits
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.operands import raw
from autotune.nki.interpreter.registers import VirtualRegister
from autotune.nki.interpreter.session import current, running
from autotune.nki.interpreter.tensor import DynamicSlice, NkiTensor


def _range(start: int, stop: int | None, step: int) -> range:
    return range(start) if stop is None else range(start, stop, step)


def affine_range(start: int, stop: int | None = None, step: int = 1) -> range:
    """Return `range`; the name is deprecated."""
    return _range(start, stop, step)


def sequential_range(start: int, stop: int | None = None, step: int = 1) -> range:
    """Return `range`; the name is deprecated."""
    return _range(start, stop, step)


def static_range(start: int, stop: int | None = None, step: int = 1) -> range:
    """Return `range`."""
    return _range(start, stop, step)


def dynamic_range(start: Any, stop: Any = None, step: int = 1) -> Iterator[VirtualRegister]:
    """Loop on the device, between bounds that may be registers; deprecated in favour of fori_loop."""
    if isinstance(step, VirtualRegister) or step < 1:
        raise NkiError(f"dynamic_range: the step has to be a positive integer, not {step!r}")
    first, last = (0, start) if stop is None else (start, stop)
    for number in range(_known(first), _known(last), step):
        yield VirtualRegister(number, True)


def _known(bound: Any) -> int:
    return int(bound.known()) if isinstance(bound, VirtualRegister) else int(bound)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[VirtualRegister], None], step: int = 1) -> None:
    """Call a function for each number from lower to upper, which may be registers."""
    for number in dynamic_range(lower, upper, step):
        if body_fun(number) is not None:  # type: ignore[func-returns-value]
            raise NkiError("fori_loop: the body cannot return a value; carry state in SBUF or HBM")


def while_loop(init: VirtualRegister, body_fun: Callable[[VirtualRegister], VirtualRegister]) -> None:
    """Call a function while its register is not 0; it returns the next register."""
    register = init
    while register.known():
        given = VirtualRegister(register.value)
        register = body_fun(given)
        if not isinstance(register, VirtualRegister):
            raise NkiError(f"while_loop: the body has to return a register, not {register!r}")


def no_reorder() -> AbstractContextManager[None]:
    """Keep the order of what is inside; the interpreter always does."""
    return nullcontext()


def ds(start: Any, size: int) -> DynamicSlice:
    """Return the slice of `size` elements from `start` on."""
    return DynamicSlice(start, size)


def _place(axis: int) -> tuple[int, int]:
    program = current()
    grid = program.grid
    if not grid:
        return 0, 1
    if not 0 <= axis < len(grid):
        raise NkiError(f"the launch grid has {len(grid)} axes, and none is {axis}")
    return int(np.unravel_index(program.index, grid)[axis]), grid[axis]


def program_id(axis: int = 0) -> int:
    """Return which core this is, 0 or 1."""
    return _place(axis)[0]


def num_programs(axes: int | tuple[int, ...] | None = 0) -> int:
    """Return how many cores the kernel runs on."""
    grid = current().grid
    if axes is None:
        return int(np.prod(grid, dtype=np.int64)) if grid else 1
    total = 1
    for axis in (axes,) if isinstance(axes, int) else axes:
        total *= _place(axis)[1]
    return total


def program_ndim() -> int:
    """Return the number of axes of the launch grid; 0 without one."""
    return len(current().grid)


def device_print(print_prefix: str, tensor: NkiTensor) -> None:
    """Print a tensor's values, at once."""
    program = current()
    core = f" (core {program.index})" if program.shared.turns else ""
    if program.computes:
        print(f"{print_prefix}{core}\n{raw(tensor)}")


class _TileSize(NKIObject):
    """Hold the sizes that the target allows."""

    pmax = limits.PARTITIONS
    psum_fmax = limits.PSUM_BANK_BYTES // 4
    psum_bank_fmax = limits.PSUM_BANK_BYTES // 4
    psum_bank_fmax_bytes = limits.PSUM_BANK_BYTES
    psum_num_banks = limits.PSUM_BANKS
    gemm_stationary_fmax = limits.STATIONARY_FREE
    gemm_moving_fmax = limits.PSUM_BANK_BYTES // 4
    bn_stats_fmax = limits.BN_STATS_ELEMENTS
    psum_min_align = 4
    sbuf_min_align = 1

    @property
    def sbuf_fmax_bytes(self) -> int:
        """Return the bytes of a partition of SBUF."""
        program = running()
        return (program.machine if program else limits.machine()).sbuf_bytes

    @property
    def sbuf_size_bytes(self) -> int:
        """Return the bytes of SBUF."""
        return self.sbuf_fmax_bytes * limits.PARTITIONS

    @property
    def sbuf_fmax(self) -> int:
        """Return the float32 elements of a partition of SBUF."""
        return self.sbuf_fmax_bytes // 4

    @property
    def total_available_sbuf_size(self) -> int:
        """Return the bytes of a partition of SBUF; the name is deprecated."""
        return self.sbuf_fmax_bytes


tile_size = _TileSize()
