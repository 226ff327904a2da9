"""How every instruction goes: resolve its operands, check them, record it, compute it.

What checks find out depends on the forms of the operands alone, not on their places or values. It is kept as
a plan for each distinct combination, so that an instruction in a loop is checked once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from autotune.nki.constants import engine as Engine
from autotune.nki.errors import NkiError, NkiWarning, kernel_line
from autotune.nki.interpreter.dtypes import DType
from autotune.nki.interpreter.layout import Layout
from autotune.nki.interpreter.memory import NEVER
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.session import Program, current
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.operators import BITVEC, Operator, operator_of
from autotune.nki.machine import FREE_DIMENSIONS, PARTITIONS
from autotune.nki.trace import Operand, Work

Operands = tuple[Any, ...]


class NkiInstruction(NKIObject):
    """Stand for an instruction that was issued; the interpreter runs them in program order."""

    def __init__(self, handle: Any = None) -> None:
        """Keep the official object's only argument."""
        self.handle = handle

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:  # noqa: ARG002  it is kept anyway
        """Return this instruction: here everything issued before it is done."""
        return self


_DONE = NkiInstruction()


@dataclass(frozen=True, eq=False)
class Kind:
    """Describe an instruction.

    Args:
        name: its name in `nki.isa`.
        writes, reads: names of its operands, in the order in which `issue` gets them.
        check: looks at the operands, raises what the machine does not allow, and returns how to run it.
        compute: does it, with data.
        moves: it is a copy by DMA, which a compiler moves to where its data is needed.
        by_lane: it computes each partition from the same partition of its operands.
    """

    name: str
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    check: Callable[[Call], None]
    compute: Callable[[Program, Operands, Operands, Any], None]
    moves: bool = False
    by_lane: bool = False


class Call:
    """Hold the operands of an instruction while it is checked, and what its record will say.

    Attributes:
        options: what is neither read nor written, in the kind's own order.
        engine: name of the engine for the record, "" if the compiler chooses.
        op, flags: see `trace.Work`.
    """

    def __init__(self, program: Program, kind: Kind, writes: Operands, reads: Operands, options: Any) -> None:
        """Give the operands their names."""
        self.program = program
        self.machine = program.machine
        self.kind = kind
        self.operands = dict(zip((*kind.writes, *kind.reads), (*writes, *reads), strict=True))
        self.options = options
        self.engine = ""
        self.op = ""
        self.flags: tuple[str, ...] = ()

    def fail(
        self, reason: str, operand: str = "", number: int | None = None, limit: int | None = None
    ) -> NoReturn:
        """Raise what is wrong, naming the operand's tensor and memory."""
        given = self.operands.get(operand)
        tensor = given if isinstance(given, NkiTensor) else None
        text = f"{self.kind.name}: {operand}{f' ({tensor.name})' if tensor is not None else ''}"
        raise NkiError(
            f"{text.rstrip()} {reason}" if operand else f"{self.kind.name}: {reason}",
            tensor=tensor.name if tensor is not None else "",
            memory=tensor.layout.memory if tensor is not None else "",
            number=number,
            limit=limit,
        )

    def warn(self, reason: str, operand: str) -> None:
        """Warn of what the documentation forbids, but AWS's own kernels do."""
        file, line = kernel_line()
        text = f"{file}:{line}: {self.kind.name}: {operand} ({self.operands[operand].name}) {reason}"
        warnings.warn(NkiWarning(text), stacklevel=2)

    def tensor(self, name: str) -> Layout:
        """Return the layout of an operand that has to be a tensor."""
        given = self.operands[name]
        if not isinstance(given, NkiTensor):
            self.fail(f"has to be a tensor, not {type(given).__name__}", name)
        return given.layout

    def has(self, name: str) -> bool:
        """Tell whether an optional operand is a tensor."""
        return isinstance(self.operands[name], NkiTensor)

    def memory(self, name: str, *allowed: str) -> Layout:
        """Check which memories an operand may be in."""
        layout = self.tensor(name)
        if layout.memory not in allowed:
            where = " or ".join(each.upper() for each in allowed)
            self.fail(f"is in {layout.memory.upper()}; it has to be in {where}", name)
        return layout

    def tiles(self, *names: str) -> None:
        """Check operands of an engine: on chip, at most 128 partitions, from one that it can start at."""
        for name in names:
            layout = self.memory(name, "sbuf", "psum")
            if layout.partitions > PARTITIONS:
                self.fail(
                    f"spans {layout.partitions} partitions; an engine has {PARTITIONS}",
                    name,
                    layout.partitions,
                    PARTITIONS,
                )
            if not layout.aligned():
                self.misplaced(name, layout)
            strides = layout.free_dimensions()
            if strides > FREE_DIMENSIONS:
                self.fail(
                    f"takes {strides} strides to walk a partition; an engine has {FREE_DIMENSIONS}",
                    name,
                    strides,
                    FREE_DIMENSIONS,
                )

    def misplaced(self, name: str, layout: Layout) -> NoReturn:
        """Raise that an operand starts at a partition where an engine cannot."""
        start = layout.start_partition()
        self.fail(
            f"starts at partition {start} and spans {layout.partitions}: up to 32 partitions start at a "
            "multiple of 32, up to 64 at 0 or 64, more at 0",
            name,
            start,
            0 if layout.partitions > 64 else start // 32 * 32,
        )

    def same_partitions(self, first: str, *others: str) -> None:
        """Check that operands span as many partitions as the first."""
        expected = self.tensor(first).partitions
        for name in others:
            found = self.tensor(name).partitions
            if found != expected:
                self.fail(f"spans {found} partitions, {first} {expected}", name, found, expected)

    def same_elements(self, first: str, *others: str) -> None:
        """Check that operands have as many elements in a partition as the first."""
        expected = self.tensor(first).elements
        for name in others:
            found = self.tensor(name).elements
            if found != expected:
                self.fail(f"has {found} elements in a partition, {first} {expected}", name, found, expected)

    def alike(self, first: str, *others: str) -> None:
        """Check that operands span the same partitions and elements as the first."""
        self.same_partitions(first, *others)
        self.same_elements(first, *others)

    def same_dtype(self, first: str, *others: str) -> None:
        """Check that operands have the dtype of the first."""
        expected = self.tensor(first).dtype
        for name in others:
            if self.tensor(name).dtype != expected:
                self.fail(f"is {self.tensor(name).dtype}; it has to be {expected}, as {first} is", name)

    def dtype(self, name: str, *allowed: DType) -> None:
        """Check which dtypes an operand may have."""
        found = self.tensor(name).dtype
        if found not in allowed:
            self.fail(f"is {found}; it has to be {' or '.join(allowed)}", name)

    def per_partition(self, name: str, like: str, *dtypes: DType) -> None:
        """Check an operand that is a number, or a tensor of one element in each partition of another."""
        if not self.has(name):
            if not isinstance(self.operands[name], (int, float, np.generic)):
                self.fail(f"has to be a number or a tensor, not {self.operands[name]!r}", name)
            return
        self.tiles(name)
        layout, whole = self.tensor(name), self.tensor(like)
        if layout.elements != 1:
            self.fail(
                f"has {layout.elements} elements in a partition; it has to have 1", name, layout.elements, 1
            )
        if layout.partitions != whole.partitions:
            self.same_partitions(like, name)
        if dtypes:
            self.dtype(name, *dtypes)

    def not_both_psum(self, first: str, second: str) -> None:
        """Check that two inputs are not both in PSUM: the engine has one port to read it."""
        if self.tensor(first).memory == self.tensor(second).memory == "psum":
            self.fail(f"and {first} are both in PSUM; one of them has to be in SBUF", second)

    def since(self, generation: int) -> None:
        """Check that the target has the instruction."""
        if self.machine.generation < generation:
            self.fail(
                f"{self.machine.target} does not have it; it came with NeuronCore-v{generation}",
                number=self.machine.generation,
                limit=generation,
            )

    def runs_on(self, asked: Any, *allowed: str) -> str:
        """Check the engine that the kernel asked for; note and return it, "" if it left that open."""
        if not isinstance(asked, Engine):
            self.fail(f"engine={asked!r} is no member of nki.isa.engine")
        if asked is Engine.unknown:
            return ""
        if asked.name not in allowed:
            self.fail(f"the {asked.name} engine does not have it; it runs on {', '.join(allowed)}")
        self.engine = str(asked.name)
        if self.engine == "gpsimd":
            self.reached_by_gpsimd()
        return self.engine

    def reached_by_gpsimd(self) -> None:
        """Check that nothing is in PSUM, which the GpSimd engine cannot reach."""
        for name, given in self.operands.items():
            if isinstance(given, NkiTensor) and given.layout.memory == "psum":
                self.fail("is in PSUM, which the GpSimd engine cannot reach", name)

    def operators(self, **given: Any) -> tuple[Operator, ...]:
        """Return the operators among the options and note their names; None is left out."""
        found = tuple(operator_of(op, role) for role, op in given.items() if op is not None)
        for each in found:
            if each.generation > self.machine.generation and each.kind != "unary":
                self.fail(f"{self.machine.target} does not have {each.name}")
        self.op = " ".join(each.name for each in found)
        return found

    def one_class(self, operators: tuple[Operator, ...], *tensors: str) -> bool:
        """Check that operators are all of bit patterns, then on integers only, or all arithmetic."""
        kinds = {each.kind == BITVEC for each in operators}
        if len(kinds) > 1:
            self.fail(f"{self.op}: one operator works on bit patterns, the other is arithmetic")
        if True in kinds:
            for name in tensors:
                if self.tensor(name).dtype.kind not in ("int", "bool"):
                    self.fail(f"is {self.tensor(name).dtype}; {self.op} works on integers", name)
            return True
        return False


@dataclass(frozen=True)
class Plan:
    """Hold what was found out about an instruction with operands of certain forms.

    Args:
        work: its number in the trace, -1 if nobody records.
        indirect: an operand is placed by an index that another tensor holds.
    """

    work: int
    indirect: bool


def issue(kind: Kind, writes: Operands, reads: Operands, options: Any = None) -> NkiInstruction:
    """Run one instruction, or record it, after its operands have been checked."""
    program = current()
    count = program.count
    program.count = count + 1
    parts: list[Any] = [kind, options]
    moves = kind.moves
    for each in writes:
        if type(each) is NkiTensor:
            parts.append(each.layout.form)
            life = each.storage.life
            if moves:
                if life.moved < 0:
                    life.loaded = count
                life.moved = count
            else:
                life.computed = True
                if life.first < 0:
                    life.first = count
                life.last = count
        else:
            parts.append(type(each))
    for each in reads:
        if type(each) is NkiTensor:
            parts.append(each.layout.form)
            life = each.storage.life
            if moves:
                if life.moved < 0:
                    life.loaded = count
                life.moved = count
            else:
                if life.first < 0:
                    life.first = count
                life.last = count
        else:
            parts.append(type(each))
    key = tuple(parts)
    try:
        plan = program.plans.get(key)
    except TypeError as error:
        raise NkiError(f"{kind.name}: {error}") from None
    if plan is None:
        plan = program.plans[key] = _planned(program, kind, writes, reads, options)
    if program.recorder is not None:
        _record(program, plan, writes, reads)
    if program.computes:
        program.by_lane, program.lanes = kind.by_lane, None
        kind.compute(program, writes, reads, options)
    return _DONE


def _planned(program: Program, kind: Kind, writes: Operands, reads: Operands, options: Any) -> Plan:
    """Check an instruction, and enter its work into the trace if there is one."""
    call = Call(program, kind, writes, reads, options)
    kind.check(call)
    kinds = {each.layout.indirect for each in (*writes, *reads) if isinstance(each, NkiTensor)} - {None}
    indirect = bool(kinds)
    if any(each and each[0] == "free" for each in kinds):
        call.since(4)
    if program.recorder is None:
        return Plan(NEVER, indirect)
    outs = [each.layout.operand() for each in writes if isinstance(each, NkiTensor)]
    ins = [each.layout.operand() for each in reads if isinstance(each, NkiTensor)]
    dst: Operand | None = outs[0] if outs else None
    flags = (*call.flags, "indirect") if indirect else call.flags
    work = program.recorder.work(Work(kind.name, call.engine, dst, tuple(ins), call.op, flags))
    return Plan(work, indirect)


def _record(program: Program, plan: Plan, writes: Operands, reads: Operands) -> None:
    recorder = program.recorder
    assert recorder is not None
    frame = sys._getframe(3)
    line = program.lines.get((frame.f_code, frame.f_lineno))
    if line is None:
        line = program.line(frame)
    sources = []
    for each in reads:
        if type(each) is NkiTensor:
            found = each.storage.regions.get(each.layout)
            sources.append(_region(program, each) if found is None else found)
    targets = []
    for each in writes:
        if type(each) is NkiTensor:
            found = each.storage.regions.get(each.layout)
            targets.append(_region(program, each) if found is None else found)
    if plan.indirect:
        indices = [each.index for each in (*writes, *reads) if type(each) is NkiTensor]
        sources += [_region(program, index) for index in indices if type(index) is NkiTensor]
    recorder.record((plan.work, tuple(sources), tuple(targets), line))


def _region(program: Program, tensor: NkiTensor) -> int:
    storage, layout = tensor.storage, tensor.layout
    found = storage.regions.get(layout)
    if found is None:
        assert program.recorder is not None
        found = storage.regions[layout] = program.recorder.region(storage.region(layout))
    return found
