"""What two cores of one kernel do together: meet, and exchange tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.nki.constants import dma_engine as DmaEngine
from autotune.nki.constants import engine as Engine
from autotune.nki.errors import NkiError
from autotune.nki.interpreter.operands import moved, put
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.interpreter.turns import Turns
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue

_GPSIMD_BYTES = {1: 256, 2: 512, 4: 1024}  # bytes a partition that the GpSimd engine's own DMA takes


def _turns(program: Program, what: str) -> Turns:
    turns = program.shared.turns
    if turns is None:
        raise NkiError(f"{what} needs two cores: call kernel[2](...)")
    return turns


def _check_barrier(call: Call) -> None:
    call.since(3)
    call.tensor("data")
    if call.options[0] != (0, 1):
        call.fail(f"cores={call.options[0]}; it takes (0, 1)")
    call.engine = call.options[1].name if isinstance(call.options[1], Engine) else ""


def _barrier(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    _turns(program, "core_barrier").meet(program.index, "core_barrier", None, "core_barrier")


_BARRIER = Kind("core_barrier", (), ("data",), _check_barrier, _barrier)


def core_barrier(
    data: NkiTensor,
    cores: Sequence[int],
    engine: Engine = Engine.gpsimd,
    name: str | None = None,
) -> NkiInstruction:
    """Wait until both cores have come here."""
    return issue(_BARRIER, (), (data,), (tuple(cores), engine))


def _check_exchange(call: Call) -> None:
    send, receive, _, way = call.options
    call.since(3)
    call.memory("src", "sbuf")
    call.memory("dst", "sbuf")
    call.same_dtype("src", "dst")
    call.alike("src", "dst")
    for rank in (send, receive):
        if rank not in (0, 1):
            call.fail(f"rank {rank}; there are 0 and 1", "", rank, 1)
    if way is DmaEngine.gpsimd_dma:
        src = call.tensor("src")
        size, limit = src.elements * src.dtype.itemsize, _GPSIMD_BYTES[src.dtype.itemsize]
        if size > limit:
            call.fail(
                f"takes {size} bytes a partition; dma_engine.gpsimd_dma moves {limit}", "src", size, limit
            )
    call.engine = "dma"


def _exchange(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    _, receive, pipe, _ = options
    turns = _turns(program, "sendrecv")
    found, written = moved(reads[0])
    gift = (found.copy(), written)
    gifts = turns.meet(program.index, ("sendrecv", pipe), gift, f"sendrecv of pipe {pipe}")
    put(writes[0], *gifts[receive])


_EXCHANGE = Kind("sendrecv", ("dst",), ("src",), _check_exchange, _exchange)


def sendrecv(
    src: NkiTensor,
    dst: NkiTensor,
    send_to_rank: int,
    recv_from_rank: int,
    pipe_id: int,
    dma_engine: DmaEngine = DmaEngine.dma,
    name: str | None = None,
) -> NkiInstruction:
    """Send a tile of SBUF to a core, and receive one from a core."""
    options = (int(send_to_rank), int(recv_from_rank), int(pipe_id), dma_engine)
    return issue(_EXCHANGE, (dst,), (src,), options)
