"""NKI's tensor: a view of a storage. Views are light: they hold no data and copy none."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autotune.nki.errors import NkiError
from autotune.nki.interpreter.dtypes import DType, dtype_of
from autotune.nki.interpreter.layout import Layout, Shape, reshaped
from autotune.nki.interpreter.memory import Storage
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.regions import MemoryRegion
from autotune.nki.interpreter.registers import VirtualRegister


class DynamicSlice:
    """Stand for `size` elements from `start` on, as `nl.ds(start, size)` says."""

    __slots__ = ("size", "start")

    def __init__(self, start: Any, size: int) -> None:
        """Note where the slice starts and how long it is."""
        self.start = start
        self.size = size


_new = object.__new__


def _cannot_assign(target: NkiTensor, value: Any) -> None:
    raise NkiError(f"{target.name}[...] = {value!r}: import nki.language first")


assign: list[Callable[[NkiTensor, Any], None]] = [_cannot_assign]
"""What `tensor[key] = value` does: the language, which is made of instructions on tensors, puts it here."""


def view(storage: Storage, layout: Layout, index: Any = None) -> NkiTensor:
    """Return a tensor that looks at a storage through a layout."""
    made: NkiTensor = _new(NkiTensor)
    made.storage = storage
    made.layout = layout
    made.shape = layout.shape
    made.dtype = layout.dtype
    if index is not None:
        made.index = index
    return made


class NkiTensor(NKIObject):
    """Look at a tensor in SBUF, PSUM or HBM: shape, strides and offset over shared storage.

    Attributes:
        shape, strides, offset: sizes, steps and start, in elements.
        dtype: an NKI dtype.
        buffer: where it is: nl.sbuf, nl.psum, nl.private_hbm or nl.shared_hbm.
    """

    storage: Storage
    layout: Layout
    shape: Shape
    dtype: DType
    index: Any = None  # the tensor or register that an indirect view takes its offset from
    truth: bool = False  # made by a comparison: bool() tells whether all elements are true

    def __init__(
        self,
        shape: Shape,
        dtype: Any,
        storage: Any,
        buffer: MemoryRegion = MemoryRegion.sbuf,
        name: str = "",  # noqa: ARG002  the storage has its name
    ) -> None:
        """Look at a storage that another tensor made; `nl.ndarray` makes new ones."""
        if not isinstance(storage, Storage):
            raise NkiError("NkiTensor(...) needs the storage of another tensor; nl.ndarray makes a new one")
        if buffer.memory != storage.root.memory:
            raise NkiError(f"the storage is in {storage.root.memory.upper()}, not in {buffer.value}")
        whole = view(storage, reshaped(storage.root, shape)).view(dtype_of(dtype))
        self.storage, self.layout = storage, whole.layout
        self.shape, self.dtype = whole.shape, whole.dtype

    @property
    def strides(self) -> Shape:
        """Return the step of each dimension, in elements."""
        return self.layout.strides

    @property
    def offset(self) -> int:
        """Return the first element's place in the storage, in elements."""
        return self.layout.offset

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return self.layout.size

    @property
    def name(self) -> str:
        """Return the tensor's name: the one given, else the variable's."""
        return self.storage.life.name

    @property
    def buffer(self) -> MemoryRegion:
        """Return the memory that it is in."""
        memory = self.layout.memory
        if memory == "hbm":
            return MemoryRegion.shared_hbm if self.storage.shared else MemoryRegion.private_hbm
        return MemoryRegion.sbuf if memory == "sbuf" else MemoryRegion.psum

    def __repr__(self) -> str:
        """Show what it is, and its values if there are any."""
        text = f"{self.name}: {self.dtype}{list(self.shape)} in {self.layout.memory.upper()}"
        if self.storage.data is None or self.layout.indirect:
            return f"<{text}>"
        values = self.storage.array(self.layout)
        if not self.storage.holds(self.layout):
            values = values.copy()
            values[~self.storage.flags(self.layout)] = np.nan if self.dtype.kind == "float" else 0
            text += ", partly unwritten"
        return f"<{text}\n{values}>"

    def __bool__(self) -> bool:
        """Be true as any object is; a comparison's result is true if all of its elements are."""
        if self.truth and self.storage.data is not None:
            return bool(self.storage.array(self.layout).all())
        return True

    def is_contiguous(self) -> bool:
        """Tell whether the view covers its storage row-major without gaps (on chip: in each partition)."""
        return self.layout.contiguous

    def get_pattern(self) -> list[list[int]]:
        """Return the access pattern, [[stride, count], ...], as `ap` takes it."""
        return [[stride, size] for stride, size in zip(self.layout.strides, self.shape, strict=True)]

    def is_indirect(self) -> bool:
        """Tell whether an offset known only at run time takes part."""
        return self.layout.indirect is not None

    def __getitem__(self, key: Any) -> NkiTensor:
        """Return a view by integers, slices, `...` and `nl.ds`.

        On chip an integer on the partitions keeps them at size 1, and two dimensions always remain; in HBM an
        integer removes its dimension.

        Raises:
            NkiError: the view reaches beyond the tensor, or is empty.
        """
        if type(key) is tuple:
            short: Any = tuple([(k.start, k.stop, k.step) if type(k) is slice else k for k in key])
        else:  # slices are not hashable before Python 3.12
            short = (key.start, key.stop, key.step, None) if type(key) is slice else key
        try:
            found = self.layout.children.get(short)
        except TypeError:
            short, found = None, None
        if found is None:
            made = self._indexed(key if type(key) is tuple else (key,))
            if made.index is not self.index or short is None or not _fixed(key):
                return made
            found = self.layout.children[short] = made.layout
        return view(self.storage, found, self.index)

    def _indexed(self, key: tuple[Any, ...]) -> NkiTensor:
        parts = self._spread(key)
        dynamic = [(dim, part) for dim, part in enumerate(parts) if _unknown(part)]
        if dynamic:
            return self._dynamic(parts, dynamic)
        layout = self.layout
        sizes: list[int] = []
        steps: list[int] = []
        offset = layout.offset
        for dim, part in enumerate(parts):
            size, step = self.shape[dim], layout.strides[dim]
            start, count, stride = self._range(part, dim, size)
            offset += start * step
            if count is not None or (dim == 0 and layout.on_chip):
                sizes.append(1 if count is None else count)
                steps.append(step * stride)
        if layout.on_chip and len(sizes) < 2 and len(self.shape) > 1:
            sizes, steps = [*sizes, 1], [*steps, 1]
        if not sizes:
            sizes, steps = [1], [1]
        self._guard_indirect(parts)
        made = layout.derive(tuple(sizes), tuple(steps), offset, None, layout.indirect)
        return view(self.storage, made, self.index)

    def _guard_indirect(self, parts: Sequence[Any]) -> None:
        indirect = self.layout.indirect
        if indirect and indirect[0] == "vector" and parts[0] != slice(None):
            raise NkiError(f"{self.name}: the dimension that a vector of indices selects cannot be sliced")

    def _spread(self, key: tuple[Any, ...]) -> list[Any]:
        """Give every dimension its part of an index expression."""
        places = [place for place, part in enumerate(key) if part is Ellipsis]
        if len(places) > 1:
            raise NkiError(f"{self.name}[...]: an index has at most one `...`")
        missing = len(self.shape) - len(key) + len(places)
        if missing < 0:
            raise NkiError(
                f"{self.name} has {len(self.shape)} dimensions, {self.shape}; the index has {len(key)}",
                tensor=self.name,
                memory=self.layout.memory,
                number=len(key),
                limit=len(self.shape),
            )
        place = places[0] if places else len(key)
        return [*key[:place], *[slice(None)] * missing, *key[place + len(places) :]]

    def _range(self, part: Any, dim: int, size: int) -> tuple[int, int | None, int]:
        """Return (start, count, step) of one dimension's index; the count of an integer is None."""
        if isinstance(part, range):  # what nl.affine_range returns
            part = slice(part.start, part.stop, part.step)
        if isinstance(part, slice):
            step = 1 if part.step is None else operator.index(part.step)
            start = 0 if part.start is None else operator.index(part.start)
            stop = size if part.stop is None else operator.index(part.stop)
            start, stop = start + size * (start < 0), stop + size * (stop < 0)
            if step < 1 or not 0 <= start < stop <= size:
                self._outside(dim, f"{start}:{stop}" + (f":{step}" if step != 1 else ""), size, stop)
            return start, (stop - start + step - 1) // step, step
        if isinstance(part, DynamicSlice):
            start, count = operator.index(part.start), operator.index(part.size)
            if start < 0 or count < 1 or start + count > size:
                self._outside(dim, f"ds({start}, {count})", size, start + count)
            return start, count, 1
        try:
            place = operator.index(part)
        except TypeError:
            raise NkiError(
                f"{self.name}[...]: {part!r} is no index: give integers, slices or nl.ds"
            ) from None
        place += size * (place < 0)
        if not 0 <= place < size:
            self._outside(dim, str(part), size, place)
        return place, None, 1

    def _outside(self, dim: int, text: str, size: int, number: int) -> None:
        raise NkiError(
            f"{self.name}: {text} is outside of dimension {dim}, which has {size} elements "
            f"(shape {self.shape})",
            tensor=self.name,
            memory=self.layout.memory,
            number=number,
            limit=size,
        )

    def _dynamic(self, parts: Sequence[Any], dynamic: Sequence[tuple[int, Any]]) -> NkiTensor:
        """Return a view whose offset along one dimension is known at run time only."""
        if len(dynamic) > 1:
            raise NkiError(f"{self.name}: one index of a view may be known at run time only, not two")
        dim, part = dynamic[0]
        count = operator.index(part.size) if isinstance(part, DynamicSlice) else None
        still = [slice(0, count or 1) if place == dim else each for place, each in enumerate(parts)]
        whole = self._indexed(tuple(still))
        index = part.start if isinstance(part, DynamicSlice) else part
        moved = self._aimed(whole.layout, "scalar", dim, index)
        if count is None and not (dim == 0 and self.layout.on_chip):
            before = sum(not _integer(each) for each in parts[:dim])
            return moved.squeeze_dim(before) if len(moved.shape) > 1 + self.layout.on_chip else moved
        return moved

    def _aimed(self, layout: Layout, kind: str, dim: int, index: Any) -> NkiTensor:
        """Return a view of a layout that starts further along a dimension of this one, by an index."""
        if self.layout.indirect:
            raise NkiError(f"{self.name}: a view takes one index that is known at run time only, not two")
        if self.layout.on_chip and (dim == 0 or kind == "vector"):
            raise NkiError(
                f"{self.name}: the partitions of {self.layout.memory.upper()} cannot be indexed so"
            )
        scale = self.layout.dtype.itemsize
        stride = self.layout.strides[dim] * scale // layout.dtype.itemsize
        aimed = layout.derive(
            layout.shape, layout.strides, layout.offset, layout.dtype, (kind, stride, self.shape[dim])
        )
        return view(self.storage, aimed, index)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Copy a tensor, or write a number, into a view."""
        assign[0](self[key], value)

    def permute(self, dims: Sequence[int]) -> NkiTensor:
        """Return a view with its dimensions in another order; partitions stay first."""
        order = tuple(dims)
        if sorted(order) != list(range(len(self.shape))):
            raise NkiError(f"{self.name}.permute({order}): not an order of {len(self.shape)} dimensions")
        self._keep_first("permute", order[0] != 0)
        shape = tuple(self.shape[dim] for dim in order)
        strides = tuple(self.layout.strides[dim] for dim in order)
        return self._derived(shape, strides)

    def broadcast(self, dim: int, size: int) -> NkiTensor:
        """Return a view that repeats the one element of a dimension `size` times."""
        dim = self._dim(dim)
        if self.shape[dim] != 1:
            raise NkiError(
                f"{self.name}.broadcast: dimension {dim} of {self.shape} has more than one element"
            )
        self._keep_first("broadcast", dim == 0)
        shape = (*self.shape[:dim], size, *self.shape[dim + 1 :])
        return self._derived(shape, (*self.layout.strides[:dim], 0, *self.layout.strides[dim + 1 :]))

    def expand_dim(self, dim: int) -> NkiTensor:
        """Return a view with a new dimension of size 1 at `dim`."""
        dim += (len(self.shape) + 1) * (dim < 0)
        self._keep_first("expand_dim", dim == 0)
        strides = self.layout.strides
        step = strides[dim] * self.shape[dim] if dim < len(strides) else 1
        return self._derived(
            (*self.shape[:dim], 1, *self.shape[dim:]), (*strides[:dim], step, *strides[dim:])
        )

    def squeeze_dim(self, dim: int) -> NkiTensor:
        """Return a view without a dimension of size 1."""
        dim = self._dim(dim)
        if self.shape[dim] != 1:
            raise NkiError(
                f"{self.name}.squeeze_dim: dimension {dim} of {self.shape} has more than one element"
            )
        self._keep_first("squeeze_dim", dim == 0)
        strides = self.layout.strides
        return self._derived(self.shape[:dim] + self.shape[dim + 1 :], strides[:dim] + strides[dim + 1 :])

    def reshape_dim(self, dim: int, shape: Sequence[int]) -> NkiTensor:
        """Return a view with one dimension split into several; one size may be -1."""
        dim = self._dim(dim)
        sizes = [operator.index(size) for size in shape]
        known = 1
        for size in sizes:
            known *= size if size != -1 else 1
        sizes = [self.shape[dim] // known if size == -1 else size for size in sizes]
        whole = 1
        for size in sizes:
            whole *= size
        if whole != self.shape[dim]:
            raise NkiError(
                f"{self.name}.reshape_dim({dim}, {tuple(shape)}): it has {self.shape[dim]} elements"
            )
        self._keep_first("reshape_dim", dim == 0 and len(sizes) > 1)
        steps, step = [], self.layout.strides[dim]
        for size in reversed(sizes):
            steps.append(step)
            step *= size
        strides = self.layout.strides
        return self._derived(
            (*self.shape[:dim], *sizes, *self.shape[dim + 1 :]),
            (*strides[:dim], *reversed(steps), *strides[dim + 1 :]),
        )

    def flatten_dims(self, start_dim: int, end_dim: int) -> NkiTensor:
        """Return a view with the dimensions from start to end, both included, merged into one."""
        start, end = self._dim(start_dim), self._dim(end_dim)
        self._keep_first("flatten_dims", start == 0 and end > 0)
        sizes, strides = self.shape[start : end + 1], self.layout.strides[start : end + 1]
        runs = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size != 1]
        for (_, outer), (size, inner) in itertools.pairwise(runs):
            if outer != size * inner:
                raise NkiError(f"{self.name}.flatten_dims({start}, {end}): the view has gaps between them")
        whole = 1
        for size in sizes:
            whole *= size
        step = runs[-1][1] if runs else strides[-1]
        return self._derived(
            (*self.shape[:start], whole, *self.shape[end + 1 :]),
            (*self.layout.strides[:start], step, *self.layout.strides[end + 1 :]),
        )

    def reshape(self, shape: Sequence[int]) -> NkiTensor:
        """Return a view of another shape over the same elements, if one exists without a copy."""
        if self.layout.indirect:
            raise NkiError(f"{self.name}.reshape: an indirect view keeps its shape")
        return view(self.storage, reshaped(self.layout, shape))

    def rearrange(
        self,
        src_pattern: Sequence[Any],
        dst_pattern: Sequence[Any],
        fixed_sizes: Mapping[str, int] | None = None,
    ) -> NkiTensor:
        """Return a view with dimensions split, reordered and merged, named as einops names them."""
        if len(src_pattern) != len(self.shape):
            raise NkiError(
                f"{self.name}.rearrange: {src_pattern} does not name the dimensions of {self.shape}"
            )
        fixed = fixed_sizes or {}
        split = self
        names: list[str] = []
        for part in src_pattern:
            group = [part] if isinstance(part, str) else list(part)
            if len(group) != 1:
                split = split.reshape_dim(len(names), [fixed.get(name, -1) for name in group])
            names += group
        flat = [name for part in dst_pattern for name in ([part] if isinstance(part, str) else part)]
        if sorted(flat) != sorted(names):
            raise NkiError(f"{self.name}.rearrange: {dst_pattern} has other names than {src_pattern}")
        made = split.permute([names.index(name) for name in flat])
        for place, part in enumerate(dst_pattern):
            if not isinstance(part, str) and len(part) > 1:
                made = made.flatten_dims(place, place + len(part) - 1)
        return made

    def slice(self, dim: int, start: int, end: int, step: int = 1) -> NkiTensor:
        """Return a view of `start` to `end`, not included, along one dimension."""
        dim = self._dim(dim)
        parts = [slice(None)] * len(self.shape)
        parts[dim] = slice(start, end, step)
        return self[tuple(parts)]

    def select(self, dim: int, index: Any) -> NkiTensor:
        """Return a view of one element along a dimension, without the dimension.

        The index is an integer, or a 1x1 tensor or register that is read at run time.
        """
        dim = self._dim(dim)
        if _unknown(index):
            self._keep_first("select", dim == 0)
            whole = self.slice(dim, 0, 1)
            return self._aimed(whole.layout, "scalar", dim, index).squeeze_dim(dim)
        start, _, _ = self._range(index, dim, self.shape[dim])
        one = self.slice(dim, start, start + 1)
        return one if dim == 0 and self.layout.on_chip else one._dropped(dim)

    def _dropped(self, dim: int) -> NkiTensor:
        if len(self.shape) == 1:
            return self
        strides = self.layout.strides
        return self._derived(self.shape[:dim] + self.shape[dim + 1 :], strides[:dim] + strides[dim + 1 :])

    def vector_select(self, dim: int, vector_offset: NkiTensor) -> NkiTensor:
        """Return a view of an HBM tensor whose rows are chosen at run time, one for each partition."""
        if dim != 0:
            raise NkiError(f"{self.name}.vector_select: the dimension is 0, not {dim}")
        shape = (vector_offset.shape[0], *self.shape[1:])
        layout = self.layout.derive(shape, self.layout.strides, self.layout.offset)
        return self._aimed(layout, "vector", 0, vector_offset)

    def ap(
        self,
        pattern: Sequence[Sequence[int]],
        offset: int | None = None,
        scalar_offset: NkiTensor | VirtualRegister | None = None,
        vector_offset: NkiTensor | None = None,
        indirect_dim: int = 0,
        dtype: Any = None,
    ) -> NkiTensor:
        """Return a view by its access pattern over the storage: [[stride, count], ...], in elements.

        `offset` counts from where this view starts. `scalar_offset` and `vector_offset` are read at run time
        and count elements of dimension `indirect_dim` of this view.
        """
        kind = self.dtype if dtype is None else dtype_of(dtype)
        pairs = tuple((operator.index(stride), operator.index(count)) for stride, count in pattern)
        start = self.layout.offset * self.dtype.itemsize // kind.itemsize + operator.index(offset or 0)
        shape, strides = tuple(count for _, count in pairs), tuple(stride for stride, _ in pairs)
        if not shape or min(shape) < 1:
            raise NkiError(f"{self.name}.ap: {list(pattern)} holds no element")
        layout = self.layout.derive(shape, strides, start, kind)
        if layout.on_chip and shape[0] > 1 and strides[0] * kind.itemsize != layout.pitch:
            raise NkiError(
                f"{self.name}.ap: the partitions' stride is {strides[0]}; on chip it is the elements of a "
                f"partition, {layout.pitch // kind.itemsize}",
                tensor=self.name,
                memory=layout.memory,
                number=strides[0],
                limit=layout.pitch // kind.itemsize,
            )
        if scalar_offset is not None and vector_offset is not None:
            raise NkiError(f"{self.name}.ap: give scalar_offset or vector_offset, not both")
        if scalar_offset is not None:
            return self._aimed(layout, "scalar", indirect_dim, scalar_offset)
        if vector_offset is not None:
            return self._aimed(layout, "vector", indirect_dim, vector_offset)
        return view(self.storage, layout)

    def view(self, dtype: Any) -> NkiTensor:
        """Return a view of the same bytes as another dtype; the last dimension grows or shrinks."""
        kind = dtype_of(dtype)
        old, new = self.dtype.itemsize, kind.itemsize
        layout = self.layout
        if layout.indirect:
            raise NkiError(f"{self.name}.view: an indirect view keeps its dtype")
        if old == new:
            return view(self.storage, layout.derive(layout.shape, layout.strides, layout.offset, kind))
        width = self.shape[-1] * old
        if (layout.strides[-1] != 1 and self.shape[-1] != 1) or width % new or layout.offset * old % new:
            raise NkiError(
                f"{self.name}.view({kind}): {self.shape[-1]} elements of {old} bytes do not divide so"
            )
        steps = [stride * old for stride in layout.strides[:-1]]
        if any(step % new for step in steps):
            raise NkiError(f"{self.name}.view({kind}): the rows do not start at a multiple of {new} bytes")
        shape = (*self.shape[:-1], width // new)
        strides = (*(step // new for step in steps), 1)
        return view(self.storage, layout.derive(shape, strides, layout.offset * old // new, kind))

    reinterpret_cast = view

    def indirect(self, index: NkiTensor, num_elem: int | None = None) -> NkiTensor:
        """Return a view that gathers or scatters free elements by an index tensor (trn3)."""
        count = index.size if num_elem is None else operator.index(num_elem)
        layout = self.layout.derive(
            (self.shape[0], count),
            (self.layout.strides[0], 1),
            self.layout.offset,
            None,
            ("free", 1, self.layout.elements),
        )
        return view(self.storage, layout, index)

    def _derived(self, shape: Shape, strides: Shape) -> NkiTensor:
        made = self.layout.derive(shape, strides, self.layout.offset, None, self.layout.indirect)
        return view(self.storage, made, self.index)

    def _dim(self, dim: int) -> int:
        place = dim + len(self.shape) * (dim < 0)
        if not 0 <= place < len(self.shape):
            raise NkiError(f"{self.name} has no dimension {dim}: its shape is {self.shape}")
        return place

    def _keep_first(self, what: str, moves: bool) -> None:
        vector = self.layout.indirect is not None and self.layout.indirect[0] == "vector"
        if moves and (self.layout.on_chip or vector):
            raise NkiError(
                f"{self.name}.{what}: the first dimension is the partitions and stays the first, whole",
                tensor=self.name,
                memory=self.layout.memory,
            )


def _integer(part: Any) -> bool:
    return not isinstance(part, (slice, range, DynamicSlice))


def _unknown(part: Any) -> bool:
    """Tell whether an index is known at run time only."""
    if isinstance(part, DynamicSlice):
        part = part.start
    return isinstance(part, NkiTensor) or getattr(part, "at_run_time", False) is True


def _fixed(key: Any) -> bool:
    """Tell whether an index expression means the same whenever it is used."""
    parts = key if type(key) is tuple else (key,)
    return all(type(part) in (int, slice, type(Ellipsis)) for part in parts)
