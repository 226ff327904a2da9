"""What instructions cost, against the documents' own formulas and numbers."""

from __future__ import annotations

import pytest

from autotune.nki.timing.costs import CORES, ENGINES, Price, Profile, peak_tflops, price
from autotune.nki.trace import HBM, SBUF, Operand, Work

BARE = Profile(matmul_cycles=0, float32_matmul_cycles=0, dma_row_ns=0)
WORDS = {"bf16": "bfloat16", "f32": "float32", "fp8": "float8_e4m3"}
SIZES = {"bf16": 2, "f32": 4, "fp8": 1}


def operand(text: str) -> Operand:
    """Read "sbuf bf16 512" or "sbuf bf16 512 strided": an operand of 128 partitions."""
    memory, dtype, count, *rest = text.split()
    run = 1 if rest else int(count)
    return Operand(memory, WORDS[dtype], SIZES[dtype], 128, int(count), run)


def work(name: str, *operands: str, op: str = "", engine: str = "", flags: tuple[str, ...] = ()) -> Work:
    """Describe an instruction: its destination, then its sources."""
    dst, *srcs = map(operand, operands)
    return Work(name, engine, dst, tuple(srcs), op, flags)


MM = ("psum f32 512", "sbuf bf16 128", "sbuf bf16 512")


@pytest.mark.parametrize(
    ("what", "engine", "cycles"),
    [
        (work("nc_matmul", *MM), "tensor", 512),
        (work("nc_matmul", "psum f32 16", "sbuf bf16 128", "sbuf bf16 16"), "tensor", 64),
        (work("nc_matmul", "psum f32 512", "sbuf f32 128", "sbuf f32 512"), "tensor", 4 * 512),
        (work("nc_matmul", *MM, flags=("transpose",)), "tensor", 512),
        (
            work(
                "nc_matmul",
                "psum f32 512",
                "sbuf fp8 256",
                "sbuf fp8 1024",
                flags=("perf_mode=double_row",),
            ),
            "tensor",
            512,
        ),
        (work("nc_transpose", "psum bf16 128", "sbuf bf16 128"), "tensor", 128),
        (work("nc_transpose", "sbuf bf16 32", "sbuf bf16 32", engine="vector"), "vector", 64),
        (work("activation", "sbuf f32 2048", "sbuf f32 2048", op="exp"), "scalar", 2048),
        (work("activation", "sbuf f32 8", "sbuf f32 8", op="exp"), "scalar", 64),
        (work("activation_reduce", "sbuf f32 2048", "sbuf f32 2048", op="exp"), "scalar", 2048 + 64),
        (work("tensor_copy", "sbuf bf16 512", "psum f32 512"), "vector", 512),
        (work("tensor_copy", "sbuf bf16 512", "psum bf16 512"), "vector", 256),
        (work("tensor_copy", "sbuf bf16 512", "sbuf bf16 512"), "vector", 128),
        (work("tensor_copy", "sbuf bf16 512", "sbuf bf16 512 strided"), "vector", 256),
        (work("tensor_copy", "sbuf f32 512", "sbuf bf16 512"), "vector", 512),
        (work("tensor_copy", "sbuf bf16 512", "sbuf bf16 512", engine="scalar"), "scalar", 512),
        (work("tensor_scalar", "sbuf bf16 512", "sbuf bf16 512", "sbuf f32 1"), "vector", 128),
        (work("tensor_scalar_reduce", "sbuf f32 512", "sbuf f32 512"), "vector", 512 + 64),
        (work("tensor_tensor", "sbuf f32 512", "sbuf f32 512", "sbuf f32 512", op="add"), "vector", 1024),
        (work("tensor_tensor", "sbuf f32 512", "sbuf f32 512", "psum f32 512", op="add"), "vector", 512),
        (work("tensor_tensor", "sbuf bf16 512", "sbuf bf16 512", "sbuf bf16 512", op="add"), "vector", 512),
        (work("tensor_tensor_scan", "sbuf f32 512", "sbuf f32 512", "sbuf f32 512"), "vector", 1024),
        (work("scalar_tensor_tensor", "sbuf f32 512", "sbuf f32 512", "sbuf f32 512"), "vector", 1024),
        (
            work(
                "scalar_tensor_tensor",
                "sbuf bf16 512",
                "sbuf bf16 512",
                "sbuf bf16 512",
                op="subtract multiply",
            ),
            "vector",
            512,
        ),
        (work("tensor_reduce", "sbuf f32 1", "sbuf f32 512", op="add"), "vector", 512),
        (work("tensor_reduce", "sbuf bf16 1", "sbuf bf16 512", op="add"), "vector", 256),
        (work("reciprocal", "sbuf f32 512", "sbuf f32 512"), "vector", 8 * 512),
        (work("memset", "sbuf bf16 512", op="zero"), "vector", 256),
        (work("memset", "sbuf bf16 512"), "vector", 512),
        (work("memset", "psum f32 2048", op="zero"), "gpsimd", 150 + 2048),
        (work("iota", "sbuf f32 512"), "gpsimd", 150 + 512),
        (work("affine_select", "sbuf f32 512", "sbuf f32 512"), "gpsimd", 150 + 512),
        (work("bn_stats", "sbuf f32 6", "sbuf f32 512"), "vector", 512),
        (work("a_function_to_come", "sbuf f32 512", "sbuf f32 512"), "vector", 512),
    ],
    ids=lambda value: value.name if isinstance(value, Work) else str(value),
)
def test_cycles_on_trn2(what: Work, engine: str, cycles: float) -> None:
    found = price(what, CORES["trn2"], BARE)
    assert engine == ENGINES[found.engine]
    assert cycles == pytest.approx(found.busy_ns * CORES["trn2"].clocks[engine])


@pytest.mark.parametrize(
    ("target", "name", "cycles"),
    [("trn1", "vector", 512), ("trn2", "vector", 128), ("trn1", "scalar", 512), ("trn3", "scalar", 256)],
)
def test_the_modes_for_16_bit_are_there_from_their_generation_on(
    target: str, name: str, cycles: float
) -> None:
    core = CORES[target]
    found = price(work("tensor_copy", "sbuf bf16 512", "sbuf bf16 512", engine=name), core, BARE)
    assert cycles == pytest.approx(found.busy_ns * core.clocks[name])


def dma(dst: Operand, src: Operand, name: str = "dma_copy", profile: Profile = BARE) -> Price:
    return price(Work(name, "dma", dst, (src,)), CORES["trn2"], profile)


def test_a_dma_of_128_partitions_uses_all_engines() -> None:
    found = dma(Operand(SBUF, "bfloat16", 2, 128, 2048, 2048), Operand(HBM, "bfloat16", 2, 128, 2048, 2048))
    assert "load" == ENGINES[found.engine]
    assert 128 * 4096 / 368 == pytest.approx(found.busy_ns)  # 368 GB/s: 16 engines of 23 bytes a ns
    assert 128 * 4096 == found.hbm_bytes


def test_a_dma_of_four_partitions_uses_one_engine() -> None:
    """The documentation's first example: 32 KiB by one engine took 1,416 ns."""
    found = dma(Operand(SBUF, "bfloat16", 2, 4, 4096, 4096), Operand(HBM, "bfloat16", 2, 4, 4096, 16384))
    latency = CORES["trn2"].dma_latency_ns
    assert 1416 == pytest.approx(found.busy_ns + found.done_ns - latency, rel=0.01)
    assert 1416 / 16 == pytest.approx(found.busy_ns, rel=0.01)  # the other 15 engines are free


def test_short_rows_cost_more_than_their_bytes() -> None:
    profile = Profile(dma_row_ns=10)
    rows = [
        dma(
            Operand(SBUF, "bfloat16", 2, 128, 512, run),
            Operand(HBM, "bfloat16", 2, 128, 512, run),
            profile=profile,
        )
        for run in (512, 64)
    ]
    assert [8 * 10, 64 * 10] == pytest.approx([each.busy_ns - 128 * 1024 / 368 for each in rows])


@pytest.mark.parametrize(("memory", "rate"), [(HBM, 0.9), (SBUF, 0.5)])
def test_a_transposing_dma_is_slower(memory: str, rate: float) -> None:
    found = dma(
        Operand(SBUF, "bfloat16", 2, 128, 512, 512),
        Operand(memory, "bfloat16", 2, 512, 128, 128),
        "dma_transpose",
    )
    assert 128 * 1024 / 368 / rate == pytest.approx(found.busy_ns)


def test_a_store_has_its_own_queue() -> None:
    found = dma(Operand(HBM, "bfloat16", 2, 128, 64, 64), Operand(SBUF, "bfloat16", 2, 128, 64, 64))
    assert "store" == ENGINES[found.engine]


@pytest.mark.parametrize(
    ("target", "dtype", "peak"),
    [
        ("trn1", "bf16", 92),
        ("trn1", "f32", 23),
        ("trn2", "bf16", 79),
        ("trn2", "f32", 20),
        ("trn2", "fp8", 158),
    ],
)
def test_peaks_are_the_published_ones(target: str, dtype: str, peak: float) -> None:
    matmul = work("nc_matmul", "psum f32 512", f"sbuf {dtype} 128", f"sbuf {dtype} 512")
    assert peak == pytest.approx(peak_tflops(CORES[target], matmul), rel=0.02)


def test_a_matmul_at_peak_takes_the_time_of_its_operations() -> None:
    core = CORES["trn2"]
    found = price(work("nc_matmul", *MM), core, BARE)
    assert 2 * 128 * 128 * 512 == found.flops
    assert found.flops / found.busy_ns / 1e3 == pytest.approx(peak_tflops(core, work("nc_matmul", *MM)))
