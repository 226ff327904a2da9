"""Where the elements of a view lie in the storage of its tensor: shape, strides, offset; no data.

Layouts are interned for each run of a kernel: equal views of equally made tensors share one layout. What is
worked out for it once (checks, the record of the model of time) then holds for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import DType
from autotune.nki.machine import PSUM_BANK_BYTES, QUADRANT
from autotune.nki.trace import Operand

Shape = tuple[int, ...]
_HBM = "hbm"


def row_major(shape: Shape) -> Shape:
    """Return the strides, in elements, of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


class Layout:
    """Hold the shape, the strides and the offset of a view, in elements of its dtype.

    Attributes:
        root: the layout of the whole tensor.
        base: byte in a partition at which the kernel placed the tensor; 0 if it left that to the compiler.
        memory: "hbm", "sbuf" or "psum".
        indirect: how an offset known at run time takes part: None, or (kind, dimension's stride in elements,
            size of the dimension), kind being "scalar" or "vector".
        size: elements in all; `partitions` and `elements` in each of them (of HBM: rows and elements a row).
        children: views of this layout by the key that asked for them.
        form: number of all that checks look at; layouts of one form differ only in where they lie.
    """

    __slots__ = (
        "base",
        "children",
        "dtype",
        "elements",
        "form",
        "forms",
        "indirect",
        "known",
        "memory",
        "offset",
        "operand_",
        "partitions",
        "place_",
        "root",
        "shape",
        "size",
        "strides",
    )

    def __init__(
        self,
        root: Layout | None,
        memory: str,
        dtype: DType,
        shape: Shape,
        strides: Shape,
        offset: int,
        indirect: tuple[str, int, int] | None = None,
        base: int = 0,
        forms: dict[object, int] | None = None,
    ) -> None:
        """Make a layout; only `Program.root` and `derive` do, so that equal ones stay one object."""
        self.root = root or self
        self.base: int = root.base if root else base
        self.memory = memory
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
        self.offset = offset
        self.indirect = indirect
        self.size = math.prod(shape)
        self.partitions = shape[0]
        self.elements = self.size // shape[0]
        self.children: dict[object, Layout] = {}
        self.known: dict[object, Layout] = {} if root is None else self.root.known
        self.operand_: Operand | None = None
        self.place_: tuple[int, int, int, int] | None = None
        self.forms: dict[object, int] = forms if forms is not None else self.root.forms
        key = (memory, dtype, shape, strides, indirect, self.aligned(), self.in_one_bank())
        self.form = self.forms.setdefault(key, len(self.forms))

    def derive(
        self,
        shape: Shape,
        strides: Shape,
        offset: int,
        dtype: DType | None = None,
        indirect: tuple[str, int, int] | None = None,
    ) -> Layout:
        """Return the layout of another view of the same tensor."""
        kind = dtype or self.dtype
        key = (kind, shape, strides, offset, indirect)
        found = self.known.get(key)
        if found is None:
            found = Layout(self.root, self.memory, kind, shape, strides, offset, indirect)
            self.known[key] = found
        return found

    @property
    def on_chip(self) -> bool:
        """Tell whether the first dimension is the partitions of SBUF or PSUM."""
        return self.memory != _HBM

    @property
    def pitch(self) -> int:
        """Return the bytes from one partition of the tensor, or one row of HBM, to the next."""
        root = self.root
        size = root.size // root.shape[0] if self.on_chip else root.shape[-1]
        return size * root.dtype.itemsize

    @property
    def dense(self) -> bool:
        """Tell whether the view is its storage, whole and in order."""
        return self.offset == 0 and self.contiguous and self.bytes == self.root.bytes and not self.indirect

    @property
    def bytes(self) -> int:
        """Return the bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Tell whether the elements lie in row-major order without gaps, in each partition if on chip."""
        step = 1
        for size, stride in zip(reversed(self.shape[1:]), reversed(self.strides[1:]), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return self.on_chip or self.shape[0] == 1 or self.strides[0] == step

    def place(self) -> tuple[int, int, int, int]:
        """Return (begin, end, low, high): partitions and bytes within each, or rows and bytes of HBM."""
        if self.place_ is None:
            self.place_ = self._placed()
        return self.place_

    def _placed(self) -> tuple[int, int, int, int]:
        pitch, itemsize = self.pitch, self.dtype.itemsize
        begin, low = divmod(self.offset * itemsize, pitch)
        if self.on_chip:
            inner = sum((n - 1) * s for n, s in zip(self.shape[1:], self.strides[1:], strict=True))
            end = begin + (self.shape[0] if self.strides[0] else 1)
            return begin, end, low, low + (inner + 1) * itemsize
        reach = [(n - 1) * s * itemsize for n, s in zip(self.shape, self.strides, strict=True)]
        inner = sum(each for each, s in zip(reach, self.strides, strict=True) if s * itemsize < pitch)
        high = low + inner + itemsize
        if high > pitch:
            low, high = 0, pitch
        return begin, (self.offset * itemsize + sum(reach)) // pitch + 1, low, high

    def operand(self) -> Operand:
        """Return what the model of time wants to know of the view."""
        if self.operand_ is None:
            run, step = 1, 1
            sizes, strides = (
                (self.shape[1:], self.strides[1:]) if self.on_chip else (self.shape, self.strides)
            )
            for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
                if size != 1 and stride != step:
                    break
                run *= size
                step *= size
            self.operand_ = Operand(
                self.memory, str(self.dtype), self.dtype.itemsize, self.partitions, self.elements, run
            )
        return self.operand_

    def free_dimensions(self) -> int:
        """Return how many strides it takes to walk the elements of a partition."""
        count, expected = 0, None
        for size, stride in zip(self.shape[:0:-1], self.strides[:0:-1], strict=True):
            if size != 1:
                count += stride != expected
                expected = size * stride
        return count

    def start_partition(self) -> int:
        """Return the partition, counted from the tensor's first, at which the view starts."""
        return self.offset * self.dtype.itemsize // self.pitch

    def in_one_bank(self) -> bool:
        """Tell whether the view lies within one bank of PSUM; True of other memories."""
        if self.memory != "psum":
            return True
        _, _, low, high = self.place()
        return (self.base + low) // PSUM_BANK_BYTES == (self.base + high - 1) // PSUM_BANK_BYTES

    def aligned(self) -> bool:
        """Tell whether an engine can reach the partitions: start 0; 0 or 64 for 64; any quadrant for 32."""
        start = self.offset * self.dtype.itemsize // self.pitch if self.offset and self.on_chip else 0
        if start == 0:
            return True
        span = QUADRANT if self.partitions <= QUADRANT else 2 * QUADRANT
        return self.partitions <= 2 * QUADRANT and start % span == 0


def reshaped(layout: Layout, shape: Sequence[int]) -> Layout:
    """Return the layout with another shape over the same elements, or raise if none exists."""
    wanted = _without_blank(layout.size, tuple(int(size) for size in shape))
    if math.prod(wanted) != layout.size:
        raise NkiError(
            f"reshape of {layout.shape} to {wanted}: {layout.size} elements cannot become {math.prod(wanted)}"
        )
    if layout.on_chip and wanted[0] != layout.shape[0]:
        raise NkiError(
            f"reshape of {layout.shape} to {wanted}: the first dimension of a tensor in "
            f"{layout.memory.upper()} is its partitions and stays {layout.shape[0]}"
        )
    strides = _restrided(layout.shape, layout.strides, wanted)
    if strides is None:
        raise NkiError(f"reshape of {layout.shape} to {wanted}: the view has gaps; copy it first")
    if layout.on_chip:
        strides = (layout.strides[0], *strides[1:])
    return layout.derive(wanted, strides, layout.offset)


def _without_blank(size: int, shape: Shape) -> Shape:
    """Fill in the one size that is given as -1."""
    if -1 not in shape:
        return shape
    rest = -math.prod(shape)
    return tuple(size // rest if each == -1 and rest else each for each in shape)


def _restrided(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Return strides of the new shape over the old elements, or None if there are none."""
    runs: list[tuple[int, int]] = []  # (size, stride) of the old dimensions, merged as far as they touch
    for size, stride in zip(shape, strides, strict=True):
        if size != 1 and runs and runs[-1][1] == size * stride:
            runs[-1] = (runs[-1][0] * size, stride)
        elif size != 1:
            runs.append((size, stride))
    left, step = runs.pop() if runs else (1, 1)
    found: list[int] = []
    for size in reversed(wanted):
        if size != 1 and left == 1:
            if not runs:
                return None
            left, step = runs.pop()
        if left % size:
            return None
        found.append(step)
        left //= size
        step *= size
    return tuple(reversed(found))
