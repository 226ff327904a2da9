"""Views of tensors: each against the same view in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.nki import NkiError, isa, simulate
from autotune.nki import language as nl

A = np.arange(16 * 6 * 8, dtype=np.float32).reshape(16, 6, 8)
strided = np.lib.stride_tricks.as_strided

VIEWS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "slices": (lambda t: t[2:10, 1:5, ::2], lambda a: a[2:10, 1:5, ::2]),
    "fewer indices than dimensions": (lambda t: t[3:5], lambda a: a[3:5]),
    "ellipsis": (lambda t: t[..., 3:4], lambda a: a[..., 3:4]),
    "negative": (lambda t: t[-4:, :, -1:], lambda a: a[-4:, :, -1:]),
    "integer in the middle": (lambda t: t[:, 2, :], lambda a: a[:, 2, :]),
    "dynamic slice": (lambda t: t[nl.ds(4, 8), :, nl.ds(1, 3)], lambda a: a[4:12, :, 1:4]),
    "range": (lambda t: t[nl.affine_range(2, 10), range(0, 6, 2)], lambda a: a[2:10, 0:6:2]),
    "view of a view": (lambda t: t[4:12][2:6, 1:3], lambda a: a[4:12][2:6, 1:3]),
    "slice": (lambda t: t.slice(1, 1, 6, 2), lambda a: a[:, 1:6:2]),
    "select": (lambda t: t.select(2, 3), lambda a: a[:, :, 3]),
    "permute": (lambda t: t.permute((0, 2, 1)), lambda a: a.transpose(0, 2, 1)),
    "permute then slice": (lambda t: t.permute((0, 2, 1))[:, 1:3], lambda a: a.transpose(0, 2, 1)[:, 1:3]),
    "reshape": (lambda t: t.reshape((16, 48)), lambda a: a.reshape(16, 48)),
    "reshape of a part": (lambda t: t[:, 1:3].reshape((16, 4, 4)), lambda a: a[:, 1:3].reshape(16, 4, 4)),
    "reshape_dim": (lambda t: t.reshape_dim(2, (2, -1)), lambda a: a.reshape(16, 6, 2, 4)),
    "flatten_dims": (lambda t: t.flatten_dims(1, 2), lambda a: a.reshape(16, 48)),
    "expand and broadcast": (
        lambda t: t.expand_dim(1).broadcast(1, 3),
        lambda a: np.broadcast_to(a[:, None], (16, 3, 6, 8)),
    ),
    "squeeze": (lambda t: t[:, 1:2].squeeze_dim(1), lambda a: a[:, 1]),
    "rearrange": (
        lambda t: t.rearrange(("p", ("a", "b"), "c"), ("p", "c", "b", "a"), {"a": 2}),
        lambda a: a.reshape(16, 2, 3, 8).transpose(0, 3, 2, 1),
    ),
    "access pattern": (
        lambda t: t.ap([[48, 8], [8, 3], [2, 4]], offset=49),
        lambda a: strided(a.reshape(-1)[49:], (8, 3, 4), (192, 32, 8)),
    ),
    "access pattern of another dtype": (
        lambda t: t.ap([[96, 16], [1, 96]], dtype=nl.uint16),
        lambda a: a.reshape(16, 48).view(np.uint16),
    ),
    "view as bytes": (lambda t: t.view(nl.uint8), lambda a: a.view(np.uint8)),
}


@pytest.mark.parametrize("memory", ["sbuf", "hbm"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_reads_what_numpys_reads(name: str, memory: str) -> None:
    ours, numpys = VIEWS[name]

    def kernel(x: Any) -> Any:
        source = ours(nl.load(x) if memory == "sbuf" else x)
        out = nl.ndarray(source.shape, source.dtype, buffer=nl.shared_hbm)
        isa.dma_copy(dst=out, src=source)
        return out

    expected = numpys(A.copy())
    result = simulate(kernel)(A.copy())
    assert expected.shape == result.shape
    np.testing.assert_array_equal(expected, result)


@pytest.mark.parametrize("name", [name for name in VIEWS if "broadcast" not in name])
def test_a_view_writes_what_numpys_writes(name: str) -> None:
    ours, numpys = VIEWS[name]

    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        part = ours(tile)
        isa.dma_copy(dst=part, src=nl.zeros(part.shape, part.dtype))
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    expected = A[:].copy()
    numpys(expected)[...] = 0
    np.testing.assert_array_equal(expected, simulate(kernel)(A.copy()))


@pytest.mark.parametrize(
    ("index", "shape"),
    [((0, 0, 0), (1, 1)), ((slice(None), 0, 0), (16, 1)), ((0,), (1, 6, 8)), ((slice(None), 1), (16, 8))],
)
def test_on_chip_the_partitions_stay_and_two_dimensions_remain(index: Any, shape: tuple[int, ...]) -> None:
    seen: list[Any] = []

    def kernel(x: Any) -> Any:
        seen.append(nl.load(x)[index].shape)
        seen.append(x[index].shape)
        return x

    simulate(kernel)(A.copy())
    assert [shape, A[index].shape or (1,)] == seen


def test_a_view_tells_its_pattern_and_offset() -> None:
    seen: list[Any] = []

    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        part = tile[:, 1:3]
        seen.extend([part.get_pattern(), part.offset, part.is_contiguous(), tile[:, :, ::2].is_contiguous()])
        seen.extend([part.ap(part.get_pattern()).offset, part.buffer, part.dtype, part.ndim, part.size])
        return x

    simulate(kernel)(A.copy())
    assert [[[48, 16], [8, 2], [1, 8]], 8, True, False, 8, nl.sbuf, "float32", 3, 256] == seen


@pytest.mark.parametrize(
    ("view", "number", "limit"),
    [
        (lambda t: t[0:17], 17, 16),
        (lambda t: t[:, 6], 6, 6),
        (lambda t: t[:, nl.ds(4, 3)], 7, 6),
        (lambda t: t[:, :, 5:5], 5, 8),
        (lambda t: t[0, 0, 0, 0], 4, 3),
        (lambda t: t.ap([[24, 8], [1, 8]]), 24, 48),
    ],
)
def test_a_view_beyond_the_tensor_is_refused(view: Callable[[Any], Any], number: int, limit: int) -> None:
    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        return view(tile)

    with pytest.raises(NkiError) as caught:
        simulate(kernel)(A.copy())
    error = caught.value
    assert ("tile", "sbuf", number, limit) == (error.tensor, error.memory, error.number, error.limit)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (lambda t: t.permute((1, 0, 2)), "partitions"),
        (lambda t: t.reshape((8, 96)), "partitions"),
        (lambda t: t.reshape((16, 47)), "elements"),
        (lambda t: t.permute((0, 2, 1)).reshape((16, 48)), "gaps"),
        (lambda t: t.broadcast(1, 3), "more than one element"),
        (lambda t: t[::2].flatten_dims(0, 1), "partitions"),
    ],
)
def test_a_view_that_does_not_exist_is_refused(view: Callable[[Any], Any], message: str) -> None:
    def kernel(x: Any) -> Any:
        return view(nl.load(x))

    with pytest.raises(NkiError, match=message):
        simulate(kernel)(A.copy())


def gathers(**how: Any) -> Any:
    """Return a kernel that gathers rows of its first operand by its second."""

    def kernel(data: Any, indices: Any) -> Any:
        index = nl.load(indices)
        out = nl.ndarray((index.shape[0], data.shape[1]), data.dtype, buffer=nl.shared_hbm)
        tile = nl.zeros(out.shape, data.dtype)
        source = data.ap([[data.shape[1], index.shape[0]], [1, data.shape[1]]], vector_offset=index)
        isa.dma_copy(dst=tile, src=source, **how)
        nl.store(out, tile)
        return out

    return kernel


DATA = np.arange(40, dtype=np.float32).reshape(10, 4)


def test_rows_are_gathered_by_a_vector_of_indices() -> None:
    rows = np.array([[3], [0], [9], [3]], dtype=np.int32)
    np.testing.assert_array_equal(DATA[rows[:, 0]], simulate(gathers())(DATA.copy(), rows))


def test_an_index_out_of_bounds_is_an_error_or_skipped() -> None:
    rows = np.array([[3], [10]], dtype=np.int32)
    with pytest.raises(NkiError, match="index 10 is outside of data") as caught:
        simulate(gathers())(DATA.copy(), rows)
    assert (10, 10) == (caught.value.number, caught.value.limit)
    kept = simulate(gathers(oob_mode=isa.oob_mode.skip))(DATA.copy(), rows)
    np.testing.assert_array_equal(np.stack([DATA[3], np.zeros(4)]), kept)


def test_rows_are_scattered_by_a_vector_of_indices() -> None:
    def kernel(data: Any, indices: Any) -> Any:
        out = nl.zeros((10, 4), data.dtype, buffer=nl.shared_hbm)
        target = out.vector_select(0, nl.load(indices))
        isa.dma_copy(dst=target, src=nl.load(data))
        return out

    rows = np.array([[7], [2]], dtype=np.int32)
    expected = np.zeros((10, 4), dtype=np.float32)
    expected[[7, 2]] = DATA[:2]
    np.testing.assert_array_equal(expected, simulate(kernel)(DATA[:2].copy(), rows))


@pytest.mark.parametrize("way", ["select", "ap", "ds", "register"])
def test_a_scalar_known_at_run_time_chooses_the_place(way: str) -> None:
    data = np.arange(4 * 8 * 4, dtype=np.float32).reshape(4, 8, 4)

    def kernel(x: Any, where: Any) -> Any:
        index = nl.load(where)
        register = isa.register_alloc()
        isa.register_load(register, index)
        source = {
            "select": lambda: x.select(0, index),
            "ap": lambda: x.ap([[4, 8], [1, 4]], scalar_offset=index, indirect_dim=0),
            "ds": lambda: x[nl.ds(index, 1)].squeeze_dim(0),
            "register": lambda: x[register],
        }[way]()
        out = nl.ndarray((8, 4), x.dtype, buffer=nl.shared_hbm)
        isa.dma_copy(dst=out, src=source)
        return out

    np.testing.assert_array_equal(data[2], simulate(kernel)(data, np.array([[2]], dtype=np.int32)))


def test_a_class_of_nki_gets_its_initializer() -> None:
    class Sizes(nl.NKIObject):
        rows: int
        columns = 4

        def __post_init__(self) -> None:
            self.all = self.rows * self.columns

    made = Sizes(3), Sizes(rows=3, columns=5)
    assert [12, 15] == [each.all for each in made]
