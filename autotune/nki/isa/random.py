"""Random numbers, always the same for the same seed. The bits are NumPy's, not those of the hardware."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.nki.constants import engine as Engine
from autotune.nki.interpreter.dtypes import float32, uint32
from autotune.nki.interpreter.operands import put, raw, values
from autotune.nki.interpreter.session import Program
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.issue import Call, Kind, NkiInstruction, Operands, issue

_STATE = {"gpsimd": 6, "vector": 24}  # words of a lane's state


def draw(program: Program) -> np.random.Generator:
    """Return a generator for one instruction, and move the engine's state on."""
    words = program.random_state
    program.random_state = [*words[:-1], (words[-1] + 1) % 2**32]
    return np.random.default_rng(words)


def _check_rng(call: Call) -> None:
    call.tiles("dst")
    allowed = ("vector",) if call.machine.generation < 3 else ("vector", "gpsimd")
    call.runs_on(call.options, *allowed)
    if call.tensor("dst").dtype.kind != "int":
        call.fail(f"is {call.tensor('dst').dtype}; it has to hold integers", "dst")


def _rng(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,) = writes
    words = draw(program).integers(0, 2**32, size=dst.shape, dtype=np.uint32)
    put(dst, words.astype(dst.dtype.numpy))  # the low bits of each word


_RNG = Kind("rng", ("dst",), (), _check_rng, _rng)


def rng(dst: NkiTensor, engine: Engine = Engine.vector, name: str | None = None) -> NkiInstruction:
    """Fill a tile of integers with random bits."""
    return issue(_RNG, (dst,), (), engine)


def _check_rand2(call: Call) -> None:
    call.since(4)
    call.tiles("dst")
    for name in ("min", "max"):
        call.per_partition(name, "dst", float32)
    call.engine = "vector"


def _rand2(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (low, high) = writes, reads
    first, last = values(low, dst), values(high, dst)
    put(dst, first + (last - first) * draw(program).random(dst.shape, dtype=np.float32))


_RAND2 = Kind("rand2", ("dst",), ("min", "max"), _check_rand2, _rand2)


def rand2(
    dst: NkiTensor,
    min: float | NkiTensor,
    max: float | NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Fill a tile with numbers spread evenly between two bounds (trn3)."""
    return issue(_RAND2, (dst,), (min, max))


def _check_dropout(call: Call) -> None:
    call.tiles("dst", "data")
    call.alike("data", "dst")
    call.same_dtype("data", "dst")
    call.per_partition("prob", "data")
    if call.has("prob"):
        prob, data = call.tensor("prob").dtype, call.tensor("data").dtype
        if (data.kind == "int" and prob != float32) or prob.kind != "float":
            call.fail(
                f"is {prob}; for {data} it has to be {'float32' if data.kind == 'int' else 'a float'}", "prob"
            )
    call.engine = "vector"


def _dropout(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,), (data, prob) = writes, reads
    source = raw(data)
    kept = draw(program).random(data.shape, dtype=np.float32) >= values(prob, data)
    put(dst, np.where(kept, source, source.dtype.type(0)))


_DROPOUT = Kind("dropout", ("dst",), ("data", "prob"), _check_dropout, _dropout, by_lane=True)


def dropout(
    dst: NkiTensor,
    data: NkiTensor,
    prob: float | NkiTensor,
    name: str | None = None,
) -> NkiInstruction:
    """Replace elements by 0 with a probability."""
    return issue(_DROPOUT, (dst,), (data, prob))


def _check_seed(call: Call) -> None:
    call.tiles("src_seeds")
    layout = call.tensor("src_seeds")
    if layout.size != 1 or layout.dtype.itemsize != 4:
        call.fail(
            f"is {layout.dtype}{list(layout.shape)}; it has to be one 32-bit value",
            "src_seeds",
            layout.size,
            1,
        )
    call.engine = "vector"


def _seed(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    word = int(np.ascontiguousarray(raw(reads[0])).view(np.uint32).reshape(-1)[0])
    program.random_state = [word, 0]


_SEED = Kind("set_rng_seed", (), ("src_seeds",), _check_seed, _seed)


def set_rng_seed(src_seeds: NkiTensor, name: str | None = None) -> NkiInstruction:
    """Seed the vector engine's random numbers by one 32-bit value."""
    return issue(_SEED, (), (src_seeds,))


def _check_state(call: Call) -> None:
    name = call.kind.reads[0] if call.kind.reads else call.kind.writes[0]
    call.since(3)
    allowed = ("gpsimd",) if call.machine.generation < 4 else ("gpsimd", "vector")
    engine = call.runs_on(call.options, *allowed)
    call.tiles(name)
    call.dtype(name, uint32)
    words = _STATE.get(engine, 6)
    if call.tensor(name).elements != words:
        found = call.tensor(name).elements
        call.fail(f"has {found} elements in a partition; the state has {words}", name, found, words)


def _set_state(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    program.random_state = [int(word) for word in raw(reads[0]).reshape(reads[0].shape[0], -1)[0]]


def _get_state(program: Program, writes: Operands, reads: Operands, options: Any) -> None:
    (dst,) = writes
    row = np.zeros(dst.layout.elements, np.int64)
    held = program.random_state[-len(row) :]
    row[len(row) - len(held) :] = held
    put(dst, np.broadcast_to(row, (dst.shape[0], len(row))))


_SET_STATE = Kind("rand_set_state", (), ("src_seeds",), _check_state, _set_state)
_GET_STATE = Kind("rand_get_state", ("dst",), (), _check_state, _get_state)


def rand_set_state(
    src_seeds: NkiTensor,
    engine: Engine = Engine.gpsimd,
    name: str | None = None,
) -> NkiInstruction:
    """Set the state of an engine's random numbers."""
    return issue(_SET_STATE, (), (src_seeds,), engine)


def rand_get_state(
    dst: NkiTensor,
    engine: Engine = Engine.gpsimd,
    name: str | None = None,
) -> NkiInstruction:
    """Write the state of an engine's random numbers."""
    return issue(_GET_STATE, (dst,), (), engine)
