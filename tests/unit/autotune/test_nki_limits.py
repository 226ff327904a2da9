"""What the machine does not do is refused, with the kernel's line, the tensor, the memory and the number."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_tiles import on_tiles

from autotune.model.errors import UsageError
from autotune.nki import NkiError, NkiUnavailableError, NkiWarning, isa, simulate
from autotune.nki import language as nl
from autotune.nki.launch import record

F32 = np.zeros((128, 512), np.float32)
BF16 = F32.astype(ml_dtypes.bfloat16)


def tile(*shape: int, dtype: Any = nl.float32, buffer: Any = nl.sbuf, **how: Any) -> Any:
    """Make a tile of zeros."""
    made = nl.ndarray(shape, dtype, buffer, **how)
    isa.memset(made, 0)
    return made


def psum(*shape: int, dtype: Any = nl.float32) -> Any:
    """Make a tile of PSUM that nobody has written."""
    return nl.ndarray(shape, dtype, buffer=nl.psum, name="sums")


def product(k: int, m: int, n: int, dtype: Any = nl.float32, out: Any = nl.float32) -> Callable[[], Any]:
    """Return a body that multiplies (k, m) with (k, n)."""
    return lambda: isa.nc_matmul(psum(m, n, dtype=out), tile(k, m, dtype=dtype), tile(k, n, dtype=dtype))


REFUSED: dict[str, tuple[Callable[[], Any], str, tuple[Any, ...]]] = {
    # what is called, what the message says, (tensor, memory, number, limit)
    "partitions": (
        lambda: nl.ndarray((129, 4), nl.float32, name="x"),
        "129 partitions",
        ("x", "sbuf", 129, 128),
    ),
    "a partition of SBUF": (
        lambda: nl.ndarray((1, 57345), nl.float32, name="x"),
        "229,380 bytes",
        ("x", "sbuf", 229380, 229376),
    ),
    "a partition of PSUM": (
        lambda: nl.ndarray((1, 4097), nl.float32, nl.psum, name="x"),
        "16,388 bytes",
        ("x", "psum", 16388, 16384),
    ),
    "an address beyond SBUF": (
        lambda: nl.ndarray((1, 8), nl.uint8, name="x", address=(0, 229370)),
        "from byte 229,370 on",
        ("x", "sbuf", 229378, 229376),
    ),
    "an address within a bank": (
        lambda: nl.ndarray((1, 8), nl.float32, nl.psum, address=(0, 1024)),
        "starts at a bank",
        ("", "psum", 1024, 0),
    ),
    "stationary free size": (
        lambda: isa.nc_matmul(psum(128, 8), tile(128, 129), tile(128, 8)),
        "129 free elements; a matmul takes 128",
        ("made", "sbuf", 129, 128),
    ),
    "moving free size": (product(128, 64, 513), "513 free elements", ("made", "sbuf", 513, 512)),
    "contraction": (
        lambda: isa.nc_matmul(psum(8, 8), tile(64, 8), tile(32, 8)),
        "moving .* spans 32 partitions, stationary 64",
        ("made", "sbuf", 32, 64),
    ),
    "a matmul writes to PSUM": (
        lambda: isa.nc_matmul(tile(8, 8, name="out"), tile(8, 8), tile(8, 8)),
        "is in SBUF; it has to be in PSUM",
        ("out", "sbuf", None, None),
    ),
    "a matmul reads from SBUF": (
        lambda: isa.nc_matmul(psum(8, 8), tile(8, 8, buffer=nl.psum, name="left"), tile(8, 8)),
        "is in PSUM; it has to be in SBUF",
        ("left", "psum", None, None),
    ),
    "a matmul writes within a bank": (
        lambda: isa.nc_matmul(psum(8, 1024)[:, 256:768], tile(8, 8), tile(8, 512)),
        "more than one bank",
        ("sums", "psum", 2048, 2048),
    ),
    "float32 with bfloat16": (
        lambda: isa.nc_matmul(psum(8, 8), tile(8, 8), tile(8, 8, dtype=nl.bfloat16)),
        "both have to be float32, or neither",
        ("made", "sbuf", None, None),
    ),
    "a matmul of integers": (product(8, 8, 8, nl.int8), "is int8", ("made", "sbuf", None, None)),
    "a matmul into bfloat16": (product(8, 8, 8, nl.bfloat16, nl.bfloat16), "it has to be float32", ()),
    "adding where nothing is": (
        lambda: isa.nc_matmul(psum(8, 8), tile(8, 8), tile(8, 8), accumulate=True),
        "no matmul has written yet",
        ("sums", "psum", None, None),
    ),
    "a transpose keeps the dtype": (
        lambda: isa.nc_transpose(psum(8, 8), tile(8, 8, dtype=nl.bfloat16)),
        "it has to be bfloat16, as data is",
        ("sums", "psum", None, None),
    ),
    "a transpose's size": (lambda: isa.nc_transpose(psum(128, 8), tile(8, 129)), "129 free elements", ()),
    "the start of partitions": (
        lambda: isa.tensor_copy(tile(16, 4), tile(64, 4, name="x")[16:32]),
        "starts at partition 16",
        ("x", "sbuf", 16, 0),
    ),
    "strides of an operand": (
        lambda: isa.tensor_copy(tile(2, 32), tile(2, 4, 4, 4, 4, 4, name="x")[:, ::2, ::2, ::2, ::2, ::2]),
        "takes 5 strides to walk a partition; an engine has 4",
        ("x", "sbuf", 5, 4),
    ),
    "two inputs in PSUM": (
        lambda: isa.tensor_tensor(
            tile(8, 8), tile(8, 8, buffer=nl.psum), tile(8, 8, buffer=nl.psum, name="b"), nl.add
        ),
        "both in PSUM",
        ("b", "psum", None, None),
    ),
    "GpSimd and PSUM": (
        lambda: isa.tensor_copy(tile(8, 8), tile(8, 8, buffer=nl.psum, name="a"), engine=isa.engine.gpsimd),
        "GpSimd engine cannot reach",
        ("a", "psum", None, None),
    ),
    "an engine that does not have it": (
        lambda: isa.tensor_tensor(tile(8, 8), tile(8, 8), tile(8, 8), nl.add, engine=isa.engine.scalar),
        "the scalar engine does not have it",
        (),
    ),
    "a DMA from PSUM": (
        lambda: isa.dma_copy(tile(8, 8), tile(8, 8, buffer=nl.psum, name="a")),
        "is in PSUM; it has to be in HBM or SBUF",
        ("a", "psum", None, None),
    ),
    "elements of a copy": (lambda: isa.tensor_copy(tile(8, 8), tile(8, 9)), "8 elements", ()),
    "elements of a DMA": (lambda: isa.dma_copy(tile(8, 8), tile(8, 9)), "has 64 elements", ()),
    "bits of floats": (
        lambda: isa.tensor_scalar(tile(8, 8), tile(8, 8), nl.bitwise_and, 1),
        "works on integers",
        (),
    ),
    "two kinds of operators": (
        lambda: isa.tensor_scalar(tile(8, 8), tile(8, 8), nl.add, 1, op1=nl.bitwise_and, operand1=1),
        "one operator works on bit patterns",
        (),
    ),
    "a scale's dtype": (
        lambda: isa.activation(tile(8, 8), nl.exp, tile(8, 8), scale=tile(8, 1, dtype=nl.bfloat16, name="v")),
        "is bfloat16; it has to be float32",
        ("v", "sbuf", None, None),
    ),
    "a vector operand of integers": (
        lambda: isa.tensor_scalar(tile(8, 8), tile(8, 8), nl.add, tile(8, 1, dtype=nl.int32, name="v")),
        "is int32; it has to be float32",
        ("v", "sbuf", None, None),
    ),
    "a vector operand's size": (
        lambda: isa.activation(tile(8, 8), nl.exp, tile(8, 8), scale=tile(8, 2, name="v")),
        "it has to have 1",
        ("v", "sbuf", 2, 1),
    ),
    "an operator as activation": (
        lambda: isa.activation(tile(8, 8), nl.add, tile(8, 8)),
        "no activation function",
        (),
    ),
    "an activation as operator": (
        lambda: isa.tensor_scalar(tile(8, 8), tile(8, 8), nl.exp, 0.0),
        "is an activation function",
        (),
    ),
    "the partitions reduced": (
        lambda: isa.tensor_reduce(tile(8, 1), nl.add, tile(8, 8), axis=0),
        "axis 0 is the partitions",
        (),
    ),
    "an axis in the middle": (
        lambda: isa.tensor_reduce(tile(8, 8), nl.add, tile(8, 8, 8), axis=1),
        "the last of the 3 dimensions",
        (),
    ),
    "bn_stats of more than 512": (lambda: isa.bn_stats(tile(8, 6), tile(8, 513)), "it takes 512", ()),
    "a float into integers": (
        lambda: isa.memset(tile(8, 8, dtype=nl.int32), 1.5),
        "has to be an integer",
        (),
    ),
    "a dtype that NKI lacks": (lambda: nl.ndarray((8, 8), "float64"), "no dtype 'float64'", ()),
    "a buffer by its name": (lambda: nl.ndarray((8, 8), nl.float32, "sbuf"), "buffer='sbuf'", ()),
    "an instruction of trn3": (
        lambda: isa.exponential(tile(8, 8), tile(8, 8)),
        "trn2 does not have it; it came with NeuronCore-v4",
        ("", "", 3, 4),
    ),
    "a barrier without a second core": (
        lambda: isa.core_barrier(nl.zeros((8, 8), nl.float32, nl.shared_hbm), (0, 1)),
        r"call kernel\[2\]",
        (),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_limit_is_checked(name: str) -> None:
    call, message, facts = REFUSED[name]

    def kernel() -> None:
        call()

    with pytest.raises(NkiError, match=message) as caught:
        simulate(kernel)()
    error = caught.value
    assert error.file == __file__
    if facts:
        assert facts == (error.tensor, error.memory, error.number, error.limit)


@pytest.mark.parametrize("name", [name for name in REFUSED if "adding" not in name and "barrier" not in name])
def test_a_limit_is_checked_without_data_too(name: str) -> None:
    call, message, _ = REFUSED[name]

    def kernel() -> None:
        call()

    with pytest.raises(NkiError, match=message):
        record(kernel, ())


def test_what_only_the_documentation_forbids_is_warned_of() -> None:
    def kernel() -> None:
        half = tile(8, 1, dtype=nl.bfloat16)
        isa.tensor_scalar(tile(8, 8), tile(8, 8), nl.add, half)

    with pytest.warns(NkiWarning, match=r"tensor_scalar: operand0 .* is bfloat16"):
        simulate(kernel)()


def test_adding_to_values_that_no_matmul_wrote_is_warned_of() -> None:
    def kernel(value: float) -> None:
        sums = psum(8, 8)
        isa.memset(sums, value)
        isa.nc_matmul(sums, tile(8, 8), tile(8, 8))

    simulate(kernel)(0.0)
    with pytest.warns(NkiWarning, match="sums.* is undefined on the machine"):
        simulate(kernel)(1.0)


def test_the_error_names_the_line_that_did_it() -> None:
    def kernel() -> None:
        nl.ndarray((8, 8), nl.float32)
        wide = nl.ndarray((200, 8), nl.float32)
        isa.memset(wide, 0)

    with pytest.raises(NkiError, match="wide has 200 partitions") as caught:
        simulate(kernel)()
    assert kernel.__code__.co_firstlineno + 2 == caught.value.line
    assert "wide" == caught.value.tensor


@pytest.mark.parametrize(
    ("target", "elements"), [("trn1", 192 * 1024), ("trn2", 224 * 1024), ("trn3", 256 * 1024)]
)
def test_each_target_has_its_sbuf(target: str, elements: int) -> None:
    def kernel(size: int) -> None:
        assert elements == nl.tile_size.sbuf_fmax_bytes
        nl.ndarray((128, size), nl.uint8)

    simulate(kernel, target=target)(elements)
    with pytest.raises(NkiError, match=f"SBUF of {target}"):
        simulate(kernel, target=target)(elements + 1)


def test_trn3_has_longer_matmuls_and_writes_bfloat16() -> None:
    def kernel() -> None:
        sums = nl.ndarray((64, 8192), nl.bfloat16, buffer=nl.psum)
        isa.nc_matmul(sums, tile(128, 64, dtype=nl.bfloat16), tile(128, 8192, dtype=nl.bfloat16))

    record(kernel, (), target="trn3")
    with pytest.raises(NkiError, match="8192 free elements; a matmul takes 512"):
        record(kernel, (), target="trn2")


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(UsageError, match="no NKI target 'trn9'"):
        simulate(lambda: None, target="trn9")


def test_a_kernel_returns_shared_hbm() -> None:
    def kernel() -> Any:
        return nl.zeros((8, 8), nl.float32)

    with pytest.raises(NkiError, match="made with buffer=nl"):
        simulate(kernel)()


def test_private_hbm_is_returned_with_a_warning() -> None:
    def kernel() -> Any:
        return nl.zeros((8, 8), nl.float32, buffer=nl.hbm)

    with pytest.warns(NkiWarning, match="or it does not compile"):
        assert (8, 8) == simulate(kernel)().shape


def test_the_language_works_inside_a_kernel_only() -> None:
    with pytest.raises(NkiError, match="inside a kernel only"):
        nl.ndarray((8, 8), nl.float32)


def test_what_is_not_there_names_its_page() -> None:
    from autotune.nki.activate import _modules

    with pytest.raises(NkiUnavailableError, match=r"nki\.collectives\.all_gather.*https://awsdocs"):
        _modules()["nki.collectives"].all_gather()


# What is alive at once


def chain(count: int, together: bool, memory: Any = nl.psum) -> Callable[[], Any]:
    """Return a kernel with tiles of 2 KiB a partition, all needed at the end, or each only for a moment."""

    def kernel() -> None:
        total = nl.zeros((128, 512), nl.float32)
        kept = []
        for _ in range(count):
            part = nl.zeros((128, 512), nl.float32, buffer=memory)
            kept.append(part)
            isa.tensor_tensor(total, total, part, nl.add)
        if together:
            for part in kept:
                isa.tensor_tensor(total, total, part, nl.add)

    return kernel


def test_psum_holds_what_is_needed_at_once_and_no_more() -> None:
    (one,) = record(chain(50, together=False), ())
    (eight,) = record(chain(8, together=True), ())
    assert (2048, 16384) == (one.psum.bytes, eight.psum.bytes)
    with pytest.raises(NkiError, match="part does not fit: with it PSUM holds 18,432 bytes") as caught:
        record(chain(9, together=True), ())
    assert ("part", "psum", 18432, 16384) == (
        caught.value.tensor,
        caught.value.memory,
        caught.value.number,
        caught.value.limit,
    )
    assert "   18,432  part (9 x 2,048)  " in str(caught.value)  # the table of who holds what


def test_sbuf_holds_what_engines_wrote() -> None:
    with pytest.raises(
        NkiError, match="with it SBUF holds 231,424 bytes a partition at once, and trn2 has 229,376"
    ):
        record(chain(112, together=True, memory=nl.sbuf), ())
    (fits,) = record(chain(111, together=True, memory=nl.sbuf), ())
    assert 229376 == fits.sbuf.bytes


def test_what_is_only_loaded_may_be_loaded_again() -> None:
    def kernel(x: Any) -> None:
        tiles = [nl.load(x) for _ in range(120)]
        total = nl.zeros((128, 512), nl.float32)
        for _ in range(2):
            for part in tiles:
                isa.tensor_tensor(total, total, part, nl.add)

    with pytest.warns(NkiWarning, match="has to load tiles more than once"):
        (found,) = record(kernel, [((128, 512), "float32")])
    assert not found.sbuf.fits


def test_tensors_that_the_kernel_places_count_by_their_end() -> None:
    def kernel() -> None:
        for start in (0, 4096, 0):
            isa.memset(nl.ndarray((128, 512), nl.float32, address=(0, start)), 0)

    (found,) = record(kernel, ())
    assert 6144 == found.sbuf.bytes


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [((0, 0), (0, 16), True), ((0, 0), (0, 32), False), ((0, 0), (64, 0), False)],
)
def test_tensors_placed_over_each_other_are_warned_of(
    first: tuple[int, int], second: tuple[int, int], told: bool
) -> None:
    def kernel() -> None:
        one = nl.ndarray((32, 8), nl.float32, address=first)
        other = nl.ndarray((32, 8), nl.float32, address=second)
        isa.memset(one, 0)
        isa.memset(other, 0)
        isa.tensor_tensor(one, one, other, nl.add)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        simulate(kernel)()
    assert told == any(
        "placed over each other in SBUF while both are needed" in str(w.message) for w in caught
    )


# Memory that nobody wrote


def reads_unwritten(x: Any) -> Any:
    """Write one half of a tile and read the other."""
    half = nl.ndarray(x.shape, x.dtype)
    isa.tensor_copy(half[:, 0:4], x[:, 0:4])
    return nl.add(x, half)


def test_reading_what_nobody_wrote_is_an_error_at_that_line() -> None:
    x = np.ones((2, 8), np.float32)
    with pytest.raises(
        NkiError, match=r"half in SBUF is read where nobody wrote it: element \(0, 4\)"
    ) as caught:
        on_tiles(reads_unwritten, x)
    assert ("half", "sbuf", 8) == (caught.value.tensor, caught.value.memory, caught.value.number)
    assert reads_unwritten.__code__.co_firstlineno + 4 == caught.value.line


def test_unless_asked_for_the_official_nan() -> None:
    made = on_tiles(reads_unwritten, np.ones((2, 8), np.float32), unwritten="nan")
    assert [False] * 4 + [True] * 4 == np.isnan(made[0]).tolist()


def ragged(x: Any) -> Any:
    """Write two of four rows, and move all of them: transposed to PSUM, and copied back."""
    rows = nl.ndarray((4, 8), nl.float32)
    isa.tensor_copy(rows[0:2], x)
    columns = nl.ndarray((8, 4), nl.float32, buffer=nl.psum)
    isa.nc_transpose(columns, rows)
    back = nl.ndarray((8, 4), nl.float32)
    isa.tensor_copy(back, columns)
    moved = nl.ndarray((8, 4), nl.float32)
    isa.dma_copy(moved, back)
    return moved


def test_moving_passes_on_what_nobody_wrote() -> None:
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_array_equal(x.T, on_tiles(lambda tile: ragged(tile)[:, 0:2], x))
    with pytest.raises(NkiError, match=r"moved in SBUF is read where nobody wrote it: element \(0, 2\)"):
        on_tiles(lambda tile: nl.add(ragged(tile), 1.0), x)
    with pytest.raises(NkiError, match="moved in SBUF is read where nobody wrote it"):
        on_tiles(ragged, x)


def test_partitions_that_nobody_wrote_stay_so_in_results() -> None:
    def body(x: Any) -> Any:
        tall = nl.ndarray((4, 8), nl.float32)
        isa.tensor_copy(tall[0:2], x)
        total = nl.ndarray((4, 1), nl.float32)
        isa.tensor_reduce(total, nl.add, tall, axis=1)
        isa.tensor_scalar(total, total, nl.multiply, 2.0)
        return total

    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_array_equal(2 * x.sum(1, keepdims=True), on_tiles(lambda tile: body(tile)[0:2], x))
    with pytest.raises(NkiError, match=r"total in SBUF is read where nobody wrote it: element \(2, 0\)"):
        on_tiles(body, x)


def test_moving_a_tile_that_nobody_wrote_is_refused_at_once() -> None:
    def body(x: Any) -> Any:
        fresh = nl.ndarray(x.shape, x.dtype)
        isa.tensor_copy(x, fresh)
        return x

    with pytest.raises(NkiError, match="fresh in SBUF is read where nobody wrote it"):
        on_tiles(body, np.ones((2, 8), np.float32))


def test_written_in_parts_is_written() -> None:
    def body(x: Any) -> Any:
        whole = nl.ndarray(x.shape, x.dtype)
        for column in range(8):
            isa.tensor_copy(whole[:, column : column + 1], x[:, column : column + 1])
        return nl.add(whole, whole)

    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_array_equal(2 * x, on_tiles(body, x))


def test_output_that_nobody_wrote_is_nan() -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray((2, 8), nl.float32, buffer=nl.shared_hbm)
        isa.dma_copy(out[0:1], x[0:1])
        return out

    made = simulate(kernel)(np.ones((2, 8), np.float32))
    assert [False, True] == np.isnan(made[:, 0]).tolist()
