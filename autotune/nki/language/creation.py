"""Making tensors, moving them between memories, and writing into views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.nki import isa
from autotune.nki.errors import NkiError, kernel_line
from autotune.nki.interpreter import tensor
from autotune.nki.interpreter.dtypes import DType, dtype_of, float32, uint8
from autotune.nki.interpreter.memory import Life, Storage
from autotune.nki.interpreter.operands import put
from autotune.nki.interpreter.regions import MemoryRegion
from autotune.nki.interpreter.session import Program, current
from autotune.nki.interpreter.tensor import NkiTensor, view
from autotune.nki.isa.issue import Call, Kind, Operands, issue
from autotune.nki.isa.random import draw

sbuf, psum = MemoryRegion.sbuf, MemoryRegion.psum
private_hbm, shared_hbm = MemoryRegion.private_hbm, MemoryRegion.shared_hbm


def is_hbm(buffer: MemoryRegion) -> bool:
    """Tell whether a buffer is in HBM."""
    return buffer in (private_hbm, shared_hbm)


def is_on_chip(buffer: MemoryRegion) -> bool:
    """Tell whether a buffer is SBUF or PSUM."""
    return buffer in (sbuf, psum)


def is_psum(buffer: MemoryRegion) -> bool:
    """Tell whether a buffer is PSUM."""
    return buffer is psum


def is_sbuf(buffer: MemoryRegion) -> bool:
    """Tell whether a buffer is SBUF."""
    return buffer is sbuf


def ndarray(
    shape: Sequence[int],
    dtype: Any,
    buffer: MemoryRegion = sbuf,
    name: str = "",
    address: tuple[int, int] | None = None,
) -> NkiTensor:
    """Make a tensor that nobody has written yet.

    Args:
        shape: sizes; in SBUF and PSUM the first is the partitions, at most 128.
        dtype: an NKI dtype.
        buffer: nl.sbuf, nl.psum, nl.private_hbm or nl.shared_hbm.
        name: for messages; without it, the variable that the line assigns.
        address: (partition, byte within a partition) at which to place it; otherwise anywhere.

    Raises:
        NkiError: it does not fit the memory, or the address is none.
    """
    if not isinstance(buffer, MemoryRegion):
        raise NkiError(f"buffer={buffer!r}: it is nl.sbuf, nl.psum, nl.private_hbm or nl.shared_hbm")
    sizes = tuple(int(size) for size in ((shape,) if isinstance(shape, int) else shape))
    if not sizes or any(size < 1 for size in sizes):
        raise NkiError(f"shape {sizes}: every size has to be at least 1")
    program = current()
    partition, start = _place(address, buffer)
    storage = program.allocate(
        sizes, dtype_of(dtype), buffer.memory, name, start, buffer is shared_hbm, partition
    )
    return view(storage, program.root(buffer.memory, sizes, storage.root.dtype, start or 0))


def _place(address: tuple[int, int] | None, buffer: MemoryRegion) -> tuple[int, int | None]:
    """Return the partition and the byte at which to place a tensor; no byte if that is left open."""
    if address is None or address[1] is None:
        return 0, None
    start = int(address[1])
    if buffer is psum and start % 2048:
        raise NkiError(
            f"address={tuple(address)}: a tensor in PSUM starts at a bank, a multiple of 2,048 bytes",
            memory="psum",
            number=start,
            limit=start // 2048 * 2048,
        )
    return int(address[0] or 0), start


def filled(shape: Sequence[int], value: float, dtype: Any, buffer: MemoryRegion, name: str) -> NkiTensor:
    """Make a tensor that holds one number everywhere."""
    made = ndarray(shape, dtype, buffer, name)
    kind = made.dtype.kind
    exact = int(value) if kind in ("int", "packed", "bool") else value
    if not is_on_chip(buffer):
        issue(_FILL, (made,), (exact,))
    else:
        isa.memset(made, exact)
    return made


def _check_fill(call: Call) -> None:
    call.tensor("dst")
    call.engine = "dma"


def _fill(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    put(writes[0], np.asarray(reads[0]))


_FILL = Kind("dma_copy", ("dst",), ("value",), _check_fill, _fill)


def zeros(shape: Sequence[int], dtype: Any, buffer: MemoryRegion = sbuf, name: str = "") -> NkiTensor:
    """Make a tensor of zeros."""
    return filled(shape, 0, dtype, buffer, name)


def ones(shape: Sequence[int], dtype: Any, buffer: MemoryRegion = sbuf, name: str = "") -> NkiTensor:
    """Make a tensor of ones."""
    return filled(shape, 1, dtype, buffer, name)


def full(
    shape: Sequence[int], fill_value: float, dtype: Any, buffer: MemoryRegion = sbuf, name: str = ""
) -> NkiTensor:
    """Make a tensor of one number."""
    return filled(shape, fill_value, dtype, buffer, name)


def zeros_like(
    x: NkiTensor, dtype: Any = None, buffer: MemoryRegion | None = None, name: str = ""
) -> NkiTensor:
    """Make a tensor of zeros of the same shape."""
    return zeros(x.shape, dtype or x.dtype, buffer or x.buffer, name)


def empty_like(
    x: NkiTensor, dtype: Any = None, buffer: MemoryRegion | None = None, name: str = ""
) -> NkiTensor:
    """Make a tensor of the same shape that nobody has written yet."""
    return ndarray(x.shape, dtype or x.dtype, buffer or x.buffer, name)


def _check_rand(call: Call) -> None:
    call.tensor("dst")
    call.engine = "vector"


def _rand(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    put(writes[0], draw(program).random(writes[0].shape, dtype=np.float32))


_RAND = Kind("rng", ("dst",), (), _check_rand, _rand)


def rand(shape: Sequence[int], dtype: Any, buffer: MemoryRegion = sbuf, name: str = "") -> NkiTensor:
    """Make a tensor of random numbers from 0 to 1, the same ones for the same seed."""
    made = ndarray(shape, dtype, buffer, name)
    issue(_RAND, (made,), ())
    return made


def random_seed(seed: NkiTensor) -> None:
    """Seed the random numbers by a 1x1 tensor."""
    isa.set_rng_seed(seed)


def shared_constant(constant: Any) -> NkiTensor:
    """Make a tensor in shared HBM of an array, or of a .npy file."""
    program = current()
    array = np.load(constant) if isinstance(constant, (str, Path)) else np.asarray(constant)
    dtype = dtype_of(array.dtype)
    at = kernel_line()
    shape = array.shape or (1,)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy() if program.computes else None
    root = program.root("hbm", shape, dtype)
    storage = Storage(root, Life("constant", "hbm", 0, None, at), data, True, True)
    program.number(storage, 0)
    return view(storage, root)


def shared_identity_matrix(n: int, dtype: Any = uint8, dst: NkiTensor | None = None) -> NkiTensor:
    """Make an identity matrix in SBUF, or write one into a tile."""
    kind = dtype_of(dtype)
    made = ndarray((n, n), kind, sbuf) if dst is None else dst
    whole = shared_constant(np.eye(n, dtype=np.float32).astype(kind.numpy))
    isa.dma_copy(dst=made, src=whole)
    return made


def load(src: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Copy a tensor of HBM into a new tile of SBUF."""
    made = ndarray(src.shape, dtype or src.dtype, sbuf)
    isa.dma_copy(dst=made, src=src)
    return made


def store(dst: NkiTensor, value: NkiTensor) -> None:
    """Copy a tile of SBUF into a tensor of HBM."""
    isa.dma_copy(dst=dst, src=value)


def load_transpose2d(src: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Copy a matrix of HBM, transposed, into a new tile of SBUF."""
    rows, columns = src.shape
    made = ndarray((columns, rows), src.dtype, sbuf)
    isa.dma_transpose(dst=made, src=src)
    return made if dtype is None else copy(made, dtype)


def copy(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Copy a tile of SBUF or PSUM into a new tile of SBUF."""
    made = ndarray(x.shape, dtype or x.dtype, sbuf)
    isa.tensor_copy(dst=made, src=x)
    return made


def assign(target: NkiTensor, value: Any) -> None:
    """Copy a tensor, or write a number, into a view."""
    if not isinstance(value, NkiTensor):
        exact = int(value) if target.dtype.kind == "int" else value
        if target.layout.on_chip:
            isa.memset(target, exact)
        else:
            issue(_FILL, (target,), (exact,))
    elif value.storage is target.storage and value.layout is target.layout:
        return
    elif target.layout.on_chip and value.layout.on_chip:
        isa.tensor_copy(dst=target, src=value)
    else:
        isa.dma_copy(dst=target, src=value)


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """Return a view with a new dimension of size 1."""
    return x.expand_dim(axis)


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: Any = None) -> NkiTensor:
    """Return a tile of another shape, in which dimensions of size 1 repeat."""
    wanted = tuple(int(size) for size in shape)
    if wanted == x.shape:
        return x if dtype is None or dtype_of(dtype) == x.dtype else copy(x, dtype)
    if len(wanted) != len(x.shape) or any(
        have not in (1, want) for have, want in zip(x.shape, wanted, strict=True)
    ):
        raise NkiError(f"broadcast_to: {x.name} of the shape {x.shape} does not broadcast to {wanted}")
    made = ndarray(wanted, dtype or x.dtype, sbuf)
    spread = x
    for dim in range(1, len(wanted)):
        if spread.shape[dim] != wanted[dim]:
            spread = spread.broadcast(dim, wanted[dim])
    if x.shape[0] == wanted[0]:
        isa.tensor_copy(dst=made, src=spread)
        return made
    source = x if x.layout.memory == "sbuf" else copy(x)
    for dim in range(1, len(wanted)):
        if source.shape[dim] != wanted[dim]:
            source = source.broadcast(dim, wanted[dim])
    layout = source.layout
    repeated = layout.derive(wanted, (0, *layout.strides[1:]), layout.offset)
    isa.dma_copy(
        dst=made, src=view(source.storage, repeated)
    )  # a DMA reads one partition as often as it likes
    return made


def temporary(shape: Sequence[int], dtype: DType = float32) -> NkiTensor:
    """Make a tile of SBUF for a value in between."""
    return ndarray(shape, dtype, sbuf)


tensor.assign[0] = assign
