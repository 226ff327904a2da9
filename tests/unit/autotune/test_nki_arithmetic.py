"""What the instructions compute, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from on_tiles import on_tiles

from autotune.nki import NkiError, isa
from autotune.nki import language as nl

BF16 = ml_dtypes.bfloat16
random = np.random.default_rng(0)
X = random.standard_normal((32, 24)).astype(np.float32)
Y = random.standard_normal((32, 24)).astype(np.float32)
V = random.standard_normal((32, 1)).astype(np.float32)
K = random.integers(0, 200, (32, 24)).astype(np.uint8)


def new(like: Any, dtype: Any = None, shape: Any = None, buffer: Any = nl.sbuf) -> Any:
    """Make a tile of the shape and dtype of another."""
    return nl.ndarray(shape or like.shape, dtype or like.dtype, buffer)


def instruction(function: Callable[..., Any], *names: str, **how: Any) -> Callable[..., Any]:
    """Return a body that calls an instruction with a new dst and its tiles by the names given."""

    def body(*tiles: Any) -> Any:
        dst = new(tiles[0], how.get("dtype"), how.get("shape"))
        keywords = {name: value for name, value in how.items() if name not in ("dtype", "shape")}
        function(dst=dst, **dict(zip(names, tiles, strict=True)), **keywords)
        return dst

    return body


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "tensor_tensor": (instruction(isa.tensor_tensor, "data1", "data2", op=nl.subtract), (X, Y), X - Y),
    "tensor_tensor compares": (
        instruction(isa.tensor_tensor, "data1", "data2", op=nl.less),
        (X, Y),
        (X < Y).astype("f4"),
    ),
    "tensor_tensor on bits": (
        instruction(isa.tensor_tensor, "data1", "data2", op=nl.bitwise_xor),
        (K, K[::-1].copy()),
        K ^ K[::-1],
    ),
    "tensor_scalar": (
        instruction(isa.tensor_scalar, "data", op0=nl.multiply, operand0=2.0, op1=nl.add, operand1=1.0),
        (X,),
        X * 2 + 1,
    ),
    "tensor_scalar by a vector, reversed": (
        instruction(isa.tensor_scalar, "data", "operand0", op0=nl.subtract, reverse0=True),
        (X, V),
        V - X,
    ),
    "tensor_scalar of one operand": (
        instruction(isa.tensor_scalar, "data", op0=nl.rsqrt, operand0=0.0),
        (X * X + 1,),
        1 / np.sqrt(X * X + 1),
    ),
    "tensor_scalar shifts in zeros": (
        instruction(isa.tensor_scalar, "data", op0=nl.right_shift, operand0=3),
        ((K.astype(np.int16) - 100).view(np.int16),),
        ((K.astype(np.int16) - 100).view(np.uint16) >> 3).view(np.int16),
    ),
    "scalar_tensor_tensor": (
        instruction(
            isa.scalar_tensor_tensor,
            "data",
            "operand0",
            "operand1",
            op0=nl.multiply,
            op1=nl.subtract,
            reverse1=True,
        ),
        (X, V, Y),
        Y - X * V,
    ),
    "tensor_reduce": (
        instruction(isa.tensor_reduce, "data", op=nl.add, axis=1, shape=(32, 1), negate=True),
        (X,),
        -X.sum(1, keepdims=True),
    ),
    "tensor_reduce of two dimensions": (
        instruction(isa.tensor_reduce, "data", op=nl.maximum, axis=(2, 3), shape=(8, 4)),
        (X.reshape(8, 4, 6, 4),),
        X.reshape(8, 4, 24).max(2),
    ),
    "tensor_partition_reduce": (
        instruction(isa.tensor_partition_reduce, "data", op=nl.add, shape=(1, 24)),
        (X,),
        X.sum(0, keepdims=True),
    ),
    "activation": (
        instruction(isa.activation, "data", "bias", op=nl.exp, scale=0.5),
        (X, V),
        np.exp(X * 0.5 + V),
    ),
    "activation by vectors": (
        instruction(isa.activation, "data", "bias", "scale", op=nl.square),
        (X, V, V),
        (X * V + V) ** 2,
    ),
    "reciprocal": (instruction(isa.reciprocal, "data"), (np.abs(X) + 1,), 1 / (np.abs(X) + 1)),
    "iota": (
        lambda _: _iota(),
        (X,),
        5 + np.arange(4)[:, None] * 100 + (np.arange(3)[:, None] * 10 + np.arange(2)).reshape(1, 6),
    ),
    "affine_select": (
        instruction(
            isa.affine_select,
            "on_true_tile",
            pattern=[[-1, 24]],
            channel_multiplier=1,
            on_false_value=-9.0,
            cmp_op=nl.greater_equal,
        ),
        (X,),
        np.where(np.arange(32)[:, None] >= np.arange(24), X, -9),
    ),
    "max8": (instruction(isa.max8, "src", shape=(32, 8)), (X,), -np.sort(-X, axis=1)[:, :8]),
    "tensor_tensor_scan": (
        instruction(isa.tensor_tensor_scan, "data0", "data1", initial=1.0, op0=nl.multiply, op1=nl.add),
        (X[:, :3].copy(), Y[:, :3].copy()),
        None,
    ),
    "tensor_scalar_cumulative": (
        instruction(isa.tensor_scalar_cumulative, "src", op0=nl.multiply, op1=nl.add, imm0=2.0),
        (X,),
        np.cumsum(2 * X, axis=1),
    ),
    "nc_n_gather": (
        instruction(isa.nc_n_gather, "data", "indices", shape=(32, 5)),
        (X, (K[:, :5] % 24).astype(np.uint32)),
        np.take_along_axis(X, (K[:, :5] % 24).astype(int), 1),
    ),
    "local_gather": (
        instruction(
            isa.local_gather, "src_buffer", "index", shape=(32, 8), num_elem_per_idx=2, num_valid_indices=4
        ),
        (X, (np.arange(32).reshape(32, 1) % 16).astype(np.uint16)),
        X[:, [0, 1, 1, 2, 2, 3, 3, 4]],
    ),
    "nc_stream_shuffle": (
        instruction(isa.nc_stream_shuffle, "src", shuffle_mask=[31 - lane for lane in range(32)]),
        (X,),
        X[::-1],
    ),
    "nc_find_index8": (
        instruction(isa.nc_find_index8, "data", "vals", shape=(1, 8), dtype=nl.uint32),
        (
            np.array([[5, 7, 5, 1, 2, 3, 4, 9]], dtype=np.float32),
            np.array([[5, 5, 5, 9, 8, 1, 2, 3]], dtype=np.float32),
        ),
        np.array([[0, 2, 2**32 - 1, 7, 2**32 - 1, 3, 4, 5]]),
    ),
}
state = np.ones(32, dtype=np.float32)
scanned = []
for column in range(3):
    state = X[:, column] * state + Y[:, column]
    scanned.append(state)
CASES["tensor_tensor_scan"] = (*CASES["tensor_tensor_scan"][:2], np.stack(scanned, 1))


def _iota() -> Any:
    dst = nl.ndarray((4, 6), nl.int32)
    isa.iota(dst, [[10, 3], [1, 2]], offset=5, channel_multiplier=100)
    return dst


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_computes_what_numpy_does(name: str) -> None:
    body, arrays, expected = CASES[name]
    result = on_tiles(body, *[np.ascontiguousarray(each) for each in arrays])
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=2e-6, atol=2e-6)


ACTIVATIONS: dict[Any, Callable[[Any], Any]] = {
    nl.relu: lambda x: np.maximum(x, 0),
    nl.sigmoid: lambda x: 1 / (1 + np.exp(-x)),
    nl.silu: lambda x: x / (1 + np.exp(-x)),
    nl.gelu_apprx_sigmoid: lambda x: x / (1 + np.exp(-1.702 * x)),
    nl.tanh: np.tanh,
    nl.softplus: lambda x: np.log1p(np.exp(x)),
    nl.sin: np.sin,
    nl.sign: np.sign,
    nl.abs: np.abs,
}


@pytest.mark.parametrize("op", ACTIVATIONS, ids=lambda op: str(op.__name__))
def test_activation_functions(op: Any) -> None:
    x = np.clip(X, -3, 3)
    np.testing.assert_allclose(
        on_tiles(instruction(isa.activation, "data", op=op), x), ACTIVATIONS[op](x), 1e-5, 1e-6
    )


@pytest.mark.parametrize(
    ("function", "derivative"), [("gelu", "gelu_dx"), ("silu", "silu_dx"), ("erf", "erf_dx")]
)
def test_a_derivative_is_its_functions_slope(function: str, derivative: str) -> None:
    step = 2.0**-9
    points = np.linspace(-3, 3, 64, dtype=np.float32).reshape(1, 64)
    low, high = (on_tiles(getattr(nl, function), points + side) for side in (-step, step))
    np.testing.assert_allclose(
        on_tiles(getattr(nl, derivative), points), (high - low) / (2 * step), atol=2e-4
    )


def test_sine_beyond_the_engines_range_is_refused_and_nl_sin_reduces_it() -> None:
    x = np.full((1, 8), 9.0, dtype=np.float32)
    with pytest.raises(NkiError, match="-pi to pi"):
        on_tiles(instruction(isa.activation, "data", op=nl.sin), x)
    np.testing.assert_allclose(on_tiles(nl.sin, x), np.sin(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0.5, 1.5, 2.5, -0.5, -1.5], nl.int8, [0, 2, 2, 0, -2]),
        ([127.4, 128.0, 1e9, -128.6, -1e9], nl.int8, [127, 127, 127, -128, -128]),
        ([-3.0, 255.5, 300.0], nl.uint8, [0, 255, 255]),
        ([3e9, -3e9, np.inf, np.nan], nl.int32, [2**31 - 1, -(2**31), 2**31 - 1, 0]),
        ([1 + 2**-8, 1 + 3 * 2**-8], nl.bfloat16, [1.0, 1 + 2**-6]),
        ([1 + 2**-11, 1 + 3 * 2**-11], nl.tfloat32, [1.0, 1 + 2**-9]),
        ([239.0, 17.0, 0.0625], nl.float8_e4m3, [240.0, 16.0, 0.0625]),
    ],
)
def test_results_are_rounded_to_the_dtype_of_dst(
    values: list[float], dtype: Any, expected: list[float]
) -> None:
    def body(x: Any) -> Any:
        dst = new(x, dtype)
        isa.tensor_copy(dst=dst, src=x)
        return dst

    result = on_tiles(body, np.array([values], dtype=np.float32))
    assert expected == result.astype(np.float64).tolist()[0]


def test_32_bit_integers_are_exact_and_wrap_around() -> None:
    first, second = np.array([[2**24 + 1, 2**31 - 1]], np.int32), np.array([[1, 1]], np.int32)
    body = instruction(isa.tensor_tensor, "data1", "data2", op=nl.add)
    assert [[2**24 + 2, -(2**31)]] == on_tiles(body, first, second).tolist()


def test_a_matmul_adds_up_in_float32() -> None:
    left, right = (random.standard_normal((128, size)).astype(BF16) for size in (64, 256))

    def body(stationary: Any, moving: Any) -> Any:
        dst = nl.ndarray((64, 256), nl.float32, buffer=nl.psum)
        for _ in range(3):
            isa.nc_matmul(dst, stationary, moving)
        return dst

    expected = 3 * (left.astype(np.float64).T @ right.astype(np.float64))
    np.testing.assert_allclose(on_tiles(body, left, right), expected, rtol=1e-5, atol=1e-4)


def test_the_first_write_to_a_part_of_psum_replaces_and_later_ones_add() -> None:
    ones = np.ones((1, 4), dtype=np.float32)

    def body(x: Any) -> Any:
        dst = nl.ndarray((4, 6), nl.float32, buffer=nl.psum)
        isa.nc_matmul(dst[:, 0:4], x, x)
        isa.nc_matmul(dst[:, 2:6], x, x)  # columns 2 and 3 are added to, 4 and 5 replaced
        isa.nc_matmul(dst[:, 0:1], x, x[:, 0:1], accumulate=True)
        isa.nc_matmul(dst[:, 1:2], x, x[:, 0:1], accumulate=False)
        return dst

    assert [2.0, 1.0, 2.0, 2.0, 1.0, 1.0] == on_tiles(body, ones)[0].tolist()


def test_a_matmul_takes_three_dimensions() -> None:
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 2, 3), (16, 4, 5)))

    def body(stationary: Any, moving: Any) -> Any:
        dst = nl.ndarray((6, 4, 5), nl.float32, buffer=nl.psum)
        isa.nc_matmul(dst, stationary, moving)
        return dst

    expected = left.reshape(16, 6).T @ right.reshape(16, 20)
    np.testing.assert_allclose(on_tiles(body, left, right).reshape(6, 20), expected, rtol=1e-5, atol=1e-5)


def test_double_row_contracts_two_rows_at_once() -> None:
    left, right = (
        random.standard_normal(shape).astype(ml_dtypes.float8_e4m3) for shape in ((32, 2, 8), (32, 2, 16))
    )

    def body(stationary: Any, moving: Any) -> Any:
        dst = nl.ndarray((8, 16), nl.float32, buffer=nl.psum)
        isa.nc_matmul(dst, stationary, moving, perf_mode=isa.matmul_perf_mode.double_row)
        return dst

    expected = left.astype("f4").reshape(64, 8).T @ right.astype("f4").reshape(64, 16)
    np.testing.assert_allclose(on_tiles(body, left, right), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", [isa.engine.tensor, isa.engine.vector])
def test_a_transpose_keeps_every_bit(engine: Any) -> None:
    x = np.array([[np.nan, np.inf, -0.0, 1.5]] * 3, dtype=np.float32).astype(BF16)

    def body(data: Any) -> Any:
        dst = nl.ndarray((4, 3), data.dtype, buffer=nl.psum)
        isa.nc_transpose(dst, data, engine=engine)
        return dst

    np.testing.assert_array_equal(x.T.view(np.uint16), on_tiles(body, x).view(np.uint16))


@pytest.mark.parametrize(
    ("shape", "axes"), [((4, 6), (1, 0)), ((4, 5, 6), (2, 1, 0)), ((4, 2, 3, 6), (3, 1, 2, 0))]
)
def test_dma_transposes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).astype(BF16)

    def body(data: Any) -> Any:
        dst = nl.ndarray([shape[axis] for axis in axes], data.dtype)
        isa.dma_transpose(dst, data, axes=axes)
        return dst

    np.testing.assert_array_equal(x.transpose(axes), on_tiles(body, x))


def test_dma_adds() -> None:
    def body(x: Any, y: Any) -> Any:
        isa.dma_compute(dst=x, srcs=[x, y, y], reduce_op=nl.add)
        return x

    np.testing.assert_allclose(on_tiles(body, X, Y), X + Y + Y, rtol=1e-6)


def test_statistics_of_parts_make_the_mean_and_variance_of_the_whole() -> None:
    def body(x: Any) -> Any:
        parts = nl.ndarray((32, 2, 6), nl.float32)
        for part in range(2):
            isa.bn_stats(parts[:, part], x[:, part * 12 : part * 12 + 12])
        dst = nl.ndarray((32, 2), nl.float32)
        isa.bn_aggr(dst, parts)
        return dst

    np.testing.assert_allclose(on_tiles(body, X), np.stack([X.mean(1), X.var(1)], 1), rtol=1e-5, atol=1e-6)


def test_the_scalar_engine_adds_up_over_several_instructions() -> None:
    def body(x: Any) -> Any:
        dst, total = new(x), nl.ndarray((32, 1), nl.float32)
        isa.activation(dst, nl.copy, x, reduce_op=nl.add, reduce_cmd=isa.reduce_cmd.reset_reduce)
        isa.activation(dst, nl.copy, x, reduce_op=nl.add, reduce_cmd=isa.reduce_cmd.reduce, reduce_res=total)
        return total

    np.testing.assert_allclose(on_tiles(body, X), 2 * X.sum(1, keepdims=True), rtol=1e-5, atol=1e-5)


def test_the_vector_engine_reduces_what_it_computes() -> None:
    def body(x: Any) -> Any:
        dst, most = new(x), nl.ndarray((32, 1), nl.float32)
        isa.tensor_scalar_reduce(
            dst=dst, data=x, op0=nl.multiply, operand0=2.0, reduce_op=nl.maximum, reduce_res=most
        )
        return dst, most

    made, most = on_tiles(body, X)
    np.testing.assert_allclose(made, 2 * X)
    np.testing.assert_allclose(most, 2 * X.max(1, keepdims=True))


def test_range_select_keeps_indices_between_bounds() -> None:
    low, high = (np.full((32, 1), bound, np.float32) for bound in (3, 7))

    def body(x: Any, first: Any, last: Any) -> Any:
        dst, most = new(x), nl.ndarray((32, 1), nl.float32)
        isa.range_select(dst, x, nl.greater_equal, nl.less, first, last, reduce_res=most)
        return dst, most

    made, most = on_tiles(body, X, low, high)
    np.testing.assert_array_equal(X[:, 3:7], made[:, 3:7])
    assert {float(np.finfo(np.float32).min)} == set(np.delete(made, slice(3, 7), 1).reshape(-1).tolist())
    np.testing.assert_array_equal(X[:, 3:7].max(1, keepdims=True), most)


def test_selection_by_a_predicate() -> None:
    mask = (K > 100).astype(np.uint8)

    def body(x: Any, y: Any, predicate: Any) -> Any:
        dst = new(x)
        isa.select_reduce(dst, predicate, x, -1.0)
        isa.tensor_copy_predicated(y, x, predicate, reverse_pred=True)
        return dst, y

    chosen, copied = on_tiles(body, X, Y, mask)
    np.testing.assert_array_equal(np.where(mask, X, -1), chosen)
    np.testing.assert_array_equal(np.where(mask, Y, X), copied)


def test_match_replace_pairs_duplicates_from_the_end() -> None:
    data = np.array([[1, 2, 3, 4, 8, 8, 8, 8, 8, 8, 8]], dtype=np.float32)
    wanted = np.array([[3, 8, 8, 8, 8, 8, 8, 8]], dtype=np.float32)

    def body(x: Any, vals: Any) -> Any:
        dst, places = new(x), nl.ndarray((1, 8), nl.uint32)
        isa.nc_match_replace8(dst, x, vals, -1.0, dst_idx=places)
        return dst, places

    replaced, places = on_tiles(body, data, wanted)
    assert [2, 10, 9, 8, 7, 6, 5, 4] == places[0].tolist()
    assert [1, 2, -1, 4, -1, -1, -1, -1, -1, -1, -1] == replaced[0].tolist()


def test_nonzero_elements_are_listed_and_counted() -> None:
    def body(x: Any) -> Any:
        dst = nl.zeros((16, 9), nl.int32)
        isa.nonzero_with_count(dst, x, index_offset=16)
        return dst

    row = np.zeros((16, 8), np.int32)
    row[0] = [0, 1, 1, 0, 0, 1, 0, 0]
    assert [17, 18, 21, -1, -1, -1, -1, -1, 3] == on_tiles(body, row)[0].tolist()


def test_dropout_is_the_same_in_every_run() -> None:
    ones = np.ones((32, 512), np.float32)
    body = instruction(isa.dropout, "data", prob=0.25)
    first, second = on_tiles(body, ones), on_tiles(body, ones)
    np.testing.assert_array_equal(first, second)
    assert abs(float(first.mean()) - 0.75) < 0.02


def test_mx_products_come_close_to_the_product() -> None:
    left, right = (random.standard_normal((128, size)).astype(BF16) for size in (4 * 64, 4 * 128))

    def body(stationary: Any, moving: Any) -> Any:
        sides = []
        for side in (stationary, moving):
            data = nl.ndarray((128, side.shape[1] // 4), nl.float8_e4m3fn_x4)
            scale = nl.zeros(data.shape, nl.uint8)
            isa.quantize_mx(data, side, scale)
            sides.append((data, scale))
        dst = nl.ndarray((64, 128), nl.float32, buffer=nl.psum)
        isa.nc_matmul_mx(dst, sides[0][0], sides[1][0], sides[0][1], sides[1][1])
        return dst

    whole = [
        each.astype("f4").reshape(128, -1, 4).transpose(0, 2, 1).reshape(512, -1) for each in (left, right)
    ]
    expected = whole[0].T @ whole[1]
    assert np.abs(on_tiles(body, left, right, target="trn3") - expected).max() < 0.05 * np.abs(expected).max()


HIGH: dict[str, tuple[Callable[..., Any], Any]] = {
    "softmax": (lambda x: nl.softmax(x, axis=1), np.exp(X) / np.exp(X).sum(1, keepdims=True)),
    "mean": (lambda x: nl.mean(x, axis=1), X.mean(1, keepdims=True)),
    "var": (lambda x: nl.var(x, axis=[1]), X.var(1, keepdims=True)),
    "sum": (lambda x: nl.sum(x, axis=-1, keepdims=True), X.sum(1, keepdims=True)),
    "where": (lambda x: nl.where(nl.greater(x, 0.0), x, 0.0), np.maximum(X, 0)),
    "transpose": (nl.transpose, X.T),
    "broadcast_to": (lambda x: nl.broadcast_to(x[0:1], (5, 24)), np.broadcast_to(X[0], (5, 24))),
    "one partition of two": (lambda x: nl.subtract(x[0:1], x), X[:1] - X),
    "a column with a row": (lambda x: nl.multiply(x[:, 0:1], x[3:4]), X[:, :1] * X[3:4]),
    "power": (lambda x: nl.power(x, 2.0), X**2),
    "floor": (nl.floor, np.floor(X)),
    "cos": (nl.cos, np.cos(X)),
    "a number first": (lambda x: nl.subtract(1.0, x), 1 - X),
    "assignment": (lambda x: _assigned(x), np.concatenate([X[:, :4] * 2, np.full((32, 20), 7)], 1)),
    "rms_norm": (
        lambda x: nl.rms_norm(x, nl.ones((32, 24), nl.float32), axis=1, n=24),
        X / np.sqrt((X**2).mean(1, keepdims=True) + 1e-6),
    ),
}


def _assigned(x: Any) -> Any:
    x[:, 0:4] = nl.add(x[:, 0:4], x[:, 0:4])
    x[:, 4:] = 7.0
    return x


@pytest.mark.parametrize("name", HIGH)
def test_a_convenience_of_the_language(name: str) -> None:
    body, expected = HIGH[name]
    np.testing.assert_allclose(on_tiles(body, X.copy()), expected, rtol=1e-5, atol=1e-5)


def test_a_product_in_one_line() -> None:
    left, right = X, random.standard_normal((24, 40)).astype(np.float32)
    np.testing.assert_allclose(on_tiles(nl.matmul, left, right), left @ right, rtol=1e-4, atol=1e-5)


def test_comparisons_tell_whether_all_elements_are_true() -> None:
    def body(x: Any) -> Any:
        assert nl.equal(nl.add(x, x), nl.multiply(x, 2.0))
        assert not nl.equal(x, 0.0)
        return x

    on_tiles(body, X)
