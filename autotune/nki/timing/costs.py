"""What each instruction costs on a NeuronCore: one table, with the source of every number.

The sources, by the names that the comments use (AWS's documentation, github.com/aws-neuron/aws-neuron-sdk):

isa226
    tag v2.26.0, general/nki/api/nki/isa/__init__.py: "Estimated instruction cost" of each function. Most of
    it was taken out of later releases.
arch1, arch2, arch3
    nki/guides/architecture/trainium_inferentia2_arch.rst, trainium2_arch.rst, trainium3_arch.rst (SDK 2.32).
dma
    nki/get-started/about/nki-dma-overview.rst, nki/deep-dives/nki-dma-bandwidth-guide.rst (SDK 2.32).
dge
    nki/deep-dives/nki-dge.rst (SDK 2.32).
fit
    chosen so that the model meets two published measurements; docs/nki-model.md says which two.

Nothing here was measured by us: none of this code has run beside a NeuronCore.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.nki.trace import GPSIMD, HBM, PSUM, SBUF, SCALAR, TENSOR, VECTOR, Operand, Work

MODEL_VERSION = "nki-model 1"
"""Changes whenever an estimate may change; it stands in the identity of every estimate."""

LOAD, STORE, MOVE = "load", "store", "move"
ENGINES = (TENSOR, VECTOR, SCALAR, GPSIMD, LOAD, STORE, MOVE)
"""The lanes of the schedule: four engines, and three queues of DMA: out of HBM, into it, and all others."""
DMA_ENGINES = 16  # for each core: dma
PARTITIONS_PER_DMA_ENGINE = 8  # 128 partitions over 16 engines: dma
HALF = ("bfloat16", "float16")
FP8 = ("float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True)
class Core:
    """Describe one physical NeuronCore.

    Args:
        clocks: GHz of each engine.
        dma_engine_gb_s: bandwidth of one of the 16 DMA engines.
        dma_latency_ns: from a DMA's trigger to the semaphore that says it is done, beside its bytes.
        hbm_gb_s: this core's share of the chip's HBM bandwidth.
        peaks_tflops: dense peak of the tensor engine by dtype, "other" for what is not named.
        fast_half: VectorE's performance mode for 16-bit elements.
        fast_scalar: ScalarE copies and scales 16-bit elements at twice the rate.
    """

    clocks: dict[str, float]
    dma_engine_gb_s: float
    dma_latency_ns: float
    hbm_gb_s: float
    peaks_tflops: dict[str, float]
    fast_half: bool = False
    fast_scalar: bool = False


def _peaks(clock_ghz: float, **others: float) -> dict[str, float]:
    """Return peaks in TFLOP/s: 128 x 128 multiply-adds a cycle in 16 bit, a quarter in float32 (arch1)."""
    half = 128 * 128 * 2 * clock_ghz / 1e3
    return {"other": half, "float32": half / 4, **others}


CORES = {
    "trn1": Core(
        clocks={TENSOR: 2.8, VECTOR: 1.12, SCALAR: 1.4, GPSIMD: 1.4},  # arch1
        dma_engine_gb_s=17,  # dma
        dma_latency_ns=1300,  # dma: semaphore to start across engines
        hbm_gb_s=820 / 2,  # arch1: 0.82 TB/s for two cores
        peaks_tflops=_peaks(2.8),  # 92 and 23 TFLOP/s
    ),
    "trn2": Core(
        clocks={TENSOR: 2.4, VECTOR: 0.96, SCALAR: 1.2, GPSIMD: 1.2},  # arch2
        dma_engine_gb_s=23,  # dma
        dma_latency_ns=600,  # dge: descriptors made by hardware, new in trn2
        hbm_gb_s=2900 / 8,  # about-neuron/arch/neuron-hardware/trainium2.rst: 2.9 TB/s for eight cores
        peaks_tflops=_peaks(2.4, **dict.fromkeys(FP8, 158.0)),  # arch2: 79, 20 and 158
        fast_half=True,  # arch2, "Vector Engine Performance Mode"
    ),
    "trn3": Core(
        clocks={TENSOR: 2.4, VECTOR: 1.2, SCALAR: 1.2, GPSIMD: 1.2},  # arch3
        dma_engine_gb_s=33,  # dma
        dma_latency_ns=600,  # dge
        hbm_gb_s=4700 / 8,  # about-neuron/arch/neuron-hardware/trainium3.rst
        peaks_tflops=_peaks(2.4, **dict.fromkeys(FP8, 158.0), mx=315.0),  # arch3
        fast_half=True,
        fast_scalar=True,  # arch3: ScalarE runs tensor_copy and tensor_scalar at up to twice the rate
    ),
}


@dataclass(frozen=True)
class Profile:
    """Set what no document tells exactly; a trace is priced under several of them.

    Args:
        name: what a person reads.
        matmul_cycles: cycles between two matmuls beside those that the moving operand takes.
        float32_matmul_cycles: the same for a matmul of float32, once for its four passes.
        semaphore_cycles: from an engine's signal to the start of the engine that waits for it, in cycles of
            1.4 GHz: about 64 cycles.
        access_cycles: from the last element written by an engine until another instruction can read it.
        dma_latency: times the core's latency of a DMA.
        dma_row_ns: for each run of bytes that lies together, on the DMA engine that moves it.
        dma_rate: part of the DMA engines' bandwidth that a copy reaches.
    """

    name: str = "nominal"
    matmul_cycles: float = 28  # fit
    float32_matmul_cycles: float = 14  # of an earlier sketch; docs/nki-model.md
    semaphore_cycles: float = 64  # arch1: MIN_II, the shortest interval between two instructions
    access_cycles: float = (
        60  # isa226: cost of a dependent small instruction, about 100 cycles with its issue
    )
    dma_latency: float = 1.0
    dma_row_ns: float = 10  # fit
    dma_rate: float = 1.0


PROFILES = (
    Profile(),
    Profile("quick DMA", dma_row_ns=5, matmul_cycles=20),
    Profile("slow DMA", dma_row_ns=18, dma_latency=2.2),  # 1,300 ns on trn2: descriptors made by software
    Profile("slow signals", semaphore_cycles=128, access_cycles=100),
    Profile("slow matmuls", matmul_cycles=40),
)
"""The ways in which one trace is priced; the first is the estimate, all of them together its range."""

SIGNAL_GHZ = 1.4
MIN_CYCLES = 64  # isa226: MIN_II
DYNAMIC_CYCLES = 600  # isa226: MIN_II of an instruction whose place is only known at run time
GPSIMD_START = 150  # isa226


@dataclass(frozen=True)
class Price:
    """Say what one piece of work takes.

    Args:
        engine: place in `ENGINES`.
        busy_ns: how long it keeps its engine, or all 16 DMA engines, from the next one.
        done_ns: how long after that its result can be read by the same engine.
        signal_ns: how long after that another engine knows.
        flops: floating-point operations of a matmul that computes (none for a transpose).
        hbm_bytes: bytes read from HBM and written to it.
    """

    engine: int
    busy_ns: float
    done_ns: float
    signal_ns: float
    flops: int = 0
    hbm_bytes: int = 0


def price(work: Work, core: Core, profile: Profile) -> Price:
    """Return what a piece of work takes on a core under a profile.

    A function that the table does not name costs what a one-input instruction of its engine costs.
    """
    if work.engine == "dma" or work.name in DMA_NAMES:
        return _dma(work, core, profile)
    engine = placed(work)
    case = Case(work, core, profile, engine, elements(work))
    cycles = CYCLES.get(work.name, _one_input)(case)
    clock = core.clocks.get(engine, core.clocks[GPSIMD])
    return Price(
        engine=ENGINES.index(engine) if engine in ENGINES else ENGINES.index(GPSIMD),
        busy_ns=cycles / clock,
        done_ns=profile.access_cycles / clock if cycles else 0.0,
        signal_ns=profile.semaphore_cycles / SIGNAL_GHZ if cycles else 0.0,
        flops=flops(work),
    )


def placed(work: Work) -> str:
    """Return the engine that runs a piece of work: the kernel's choice, else the function's usual one.

    Zeros in PSUM are GpSimd's: a published profile has them there (docs/nki-model.md), and with them on
    VectorE the model was twice as slow as what was measured.
    """
    if work.name == "memset" and work.dst is not None and work.dst.memory == PSUM:
        return GPSIMD
    return work.engine if work.engine in (TENSOR, VECTOR, SCALAR, GPSIMD) else USUAL.get(work.name, VECTOR)


def flops(work: Work) -> int:
    """Return the floating-point operations of a matmul; none if it only transposes."""
    if work.name not in ("nc_matmul", "nc_matmul_mx", "nc_matmul_sparse") or "transpose" in work.flags:
        return 0
    stationary, moving = work.srcs[:2]
    rows = stationary.partitions * (4 if work.name == "nc_matmul_mx" else 1)
    if _double(work):
        return 2 * 2 * rows * (stationary.elements // 2) * (moving.elements // 2)
    return 2 * rows * stationary.elements * moving.elements


def _double(work: Work) -> bool:
    """Tell whether a matmul takes two rows of fp8 at a time: half of its free elements are contracted too."""
    return any(flag.startswith("perf_mode=double_row") for flag in work.flags)


def peak_tflops(core: Core, work: Work) -> float:
    """Return the dense peak of the tensor engine for a matmul's dtype."""
    if work.name == "nc_matmul_mx":
        return core.peaks_tflops.get("mx", core.peaks_tflops["other"])
    return core.peaks_tflops.get(work.srcs[0].dtype, core.peaks_tflops["other"])


def elements(work: Work) -> int:
    """Return the elements a partition of the largest operand."""
    return max((operand.elements for operand in (*work.srcs, work.dst) if operand is not None), default=1)


@dataclass(frozen=True)
class Case:
    """Hold what the price of one instruction depends on: `count` is its elements a partition."""

    work: Work
    core: Core
    profile: Profile
    engine: str
    count: int


def _one_input(case: Case) -> float:
    """Price what reads one tensor: an element a cycle (isa226)."""
    start = GPSIMD_START if case.engine == GPSIMD else 0
    return start + max(MIN_CYCLES, case.count)


def _matmul(case: Case) -> float:
    """Price a matmul by the columns of its moving operand, four times that in float32 (isa226)."""
    stationary, moving = case.work.srcs[:2]
    half = 2 if _double(case.work) else 1
    columns = max(min(64, stationary.elements // half), moving.elements // half)
    if stationary.dtype != "float32":
        return columns + case.profile.matmul_cycles
    passes = (
        2 if "transpose" in case.work.flags and case.core.fast_half else 4
    )  # arch2: float32 transposes run at twice that
    return passes * columns + case.profile.float32_matmul_cycles


def _transpose(case: Case) -> float:
    """Price a transpose: on the tensor engine a matmul with an identity (isa226)."""
    data = case.work.srcs[0]
    if case.engine != TENSOR:
        return max(MIN_CYCLES, data.elements)
    columns = max(data.partitions, min(64, data.elements))
    if data.dtype != "float32":
        return columns + case.profile.matmul_cycles
    return (2 if case.core.fast_half else 4) * columns + case.profile.float32_matmul_cycles


def _copy(case: Case) -> float:
    """Price tensor_copy and tensor_scalar: N, and N/4 or N/2 in VectorE's performance mode (arch2)."""
    count: float = case.count
    engine = case.engine
    tiles = _tiles(case)
    if all(tile.dtype in HALF for tile in tiles):
        together = all(tile.run >= tile.elements for tile in tiles)
        in_psum = sum(tile.memory == PSUM for tile in tiles)
        if engine == VECTOR and case.core.fast_half:
            if in_psum == 0:
                count = count / 4 if together else count / 2
            elif in_psum == 1 and together:
                count = count / 2
        elif engine == SCALAR and case.core.fast_scalar and in_psum == 0:
            count = count / 2
    return (GPSIMD_START if engine == GPSIMD else 0) + max(MIN_CYCLES, count)


def _tiles(case: Case) -> list[Operand]:
    """Return the operands that are as wide as the widest: not the vectors and scalars beside them."""
    return [
        each for each in (*case.work.srcs, case.work.dst) if each is not None and each.elements == case.count
    ]


def _two_inputs(case: Case) -> float:
    """Price tensor_tensor: 2N, or N if one input is in PSUM or all is 16 bit in SBUF (isa226, arch2)."""
    count = case.count
    inputs = case.work.srcs[:2]
    in_psum = sum(each.memory == PSUM for each in inputs)
    every = [each for each in (*inputs, case.work.dst) if each is not None]
    half = in_psum == 0 and all(each.dtype in HALF and each.run >= each.elements for each in every)
    simple = case.work.op in ("add", "subtract", "multiply") or case.core.fast_half
    cycles = count if in_psum == 1 or (half and simple) else 2 * count
    return (GPSIMD_START if case.engine == GPSIMD else 0) + max(MIN_CYCLES, cycles)


def _fused(case: Case) -> float:
    """Price scalar_tensor_tensor: 2N, or N for subtract and multiply in bfloat16 (isa226)."""
    count = case.count
    quick = case.work.op == "subtract multiply" and all(tile.dtype == "bfloat16" for tile in _tiles(case))
    return max(MIN_CYCLES, count if quick and count % 2 == 0 else 2 * count)


def _reduce(case: Case) -> float:
    """Price tensor_reduce: N, or N/2 for add and max in bfloat16 (isa226)."""
    count = case.count
    half = case.work.op in ("add", "max", "maximum") and all(
        each.dtype == "bfloat16" for each in (*case.work.srcs[:1], case.work.dst) if each is not None
    )
    return max(MIN_CYCLES, count / 2 if half else count)


def _memset(case: Case) -> float:
    """Price memset: N, or N/2 for zeros of 16 bit (isa226)."""
    assert case.work.dst is not None
    zero = case.work.op == "zero"
    half = zero and case.work.dst.dtype in HALF
    start = GPSIMD_START if case.engine == GPSIMD else 0
    return start + max(MIN_CYCLES, case.work.dst.elements / 2 if half else case.work.dst.elements)


def _times(factor: float, more: float = 0, least: float = MIN_CYCLES) -> Callable[[Case], float]:
    """Price an instruction at a number of cycles an element."""

    def cycles(case: Case) -> float:
        start = GPSIMD_START if case.engine == GPSIMD else 0
        return start + max(least, factor * case.count) + more

    return cycles


CYCLES: dict[str, Callable[[Case], float]] = {  # isa226, unless a function says otherwise
    "nc_matmul": _matmul,
    "nc_matmul_mx": _matmul,
    "nc_transpose": _transpose,
    "tensor_copy": _copy,
    "tensor_scalar": _copy,
    "tensor_tensor": _two_inputs,
    "tensor_tensor_scan": _times(2),
    "tensor_copy_predicated": _times(2),
    "scalar_tensor_tensor": _fused,
    "tensor_reduce": _reduce,
    "tensor_scalar_reduce": _times(1, more=MIN_CYCLES),
    "activation": _one_input,
    "activation_reduce": _times(1, more=MIN_CYCLES),
    "reciprocal": _times(8),
    "memset": _memset,
    "bn_aggr": _times(13 / 3),
    "tensor_copy_dynamic_src": _times(1, least=DYNAMIC_CYCLES),
    "tensor_copy_dynamic_dst": _times(1, least=DYNAMIC_CYCLES),
    "device_print": _times(0, least=0),
    "core_barrier": _times(0, least=0),
    "get_nc_version": _times(0, least=0),
    "register_alloc": _times(0, least=0),
    "register_move": _times(0, least=0),
}
USUAL = {
    "nc_matmul": TENSOR,
    "nc_matmul_mx": TENSOR,
    "nc_transpose": TENSOR,
    "activation": SCALAR,
    "activation_reduce": SCALAR,
    "activate2": SCALAR,
    "exponential": SCALAR,
    "iota": GPSIMD,
    "affine_select": GPSIMD,
    "local_gather": GPSIMD,
    "nc_n_gather": GPSIMD,
    "tensor_partition_reduce": GPSIMD,
    "partition_all_reduce": GPSIMD,
    "topk": GPSIMD,
    "nonzero_with_count": GPSIMD,
    "core_barrier": GPSIMD,
}
"""The engine of a function if the kernel names none; VectorE for all others."""
DMA_NAMES = frozenset(
    {"dma_copy", "dma_transpose", "dma_compute", "sendrecv", "register_load", "register_store"}
)
TRANSPOSE_RATE = {HBM: 0.9, SBUF: 0.5}  # arch2, "DMA Transpose"


def _dma(work: Work, core: Core, profile: Profile) -> Price:
    """Price a DMA: its bytes over the engines that its partitions reach, and a time for each run of bytes."""
    sides = [side for side in (work.dst, *work.srcs[:1]) if side is not None]
    moved = max(side.itemsize * side.partitions * side.elements for side in sides)
    run = min(max(1, side.run) * side.itemsize for side in sides)
    on_chip = [side.partitions for side in sides if side.memory != HBM]
    engines = min(DMA_ENGINES, -(-min(on_chip) // PARTITIONS_PER_DMA_ENGINE)) if on_chip else DMA_ENGINES
    rate = core.dma_engine_gb_s * profile.dma_rate
    if work.name == "dma_transpose" or "transpose" in work.flags:
        rate *= TRANSPOSE_RATE.get(work.srcs[0].memory, 0.5)
        run = max(run, 2 * DMA_ENGINES)
        rows = max(on_chip, default=1)
    else:
        rows = max(-(-moved // run), min(on_chip, default=1))
    engine_ns = moved / engines / rate + -(-rows // engines) * profile.dma_row_ns
    whole_ns = engine_ns * engines / DMA_ENGINES
    store = work.dst is not None and work.dst.memory == HBM
    load = not store and any(side.memory == HBM for side in sides)
    return Price(
        engine=ENGINES.index(STORE if store else LOAD if load else MOVE),
        busy_ns=whole_ns,
        done_ns=profile.dma_latency * core.dma_latency_ns + engine_ns - whole_ns,
        signal_ns=0.0,
        hbm_bytes=sum(
            side.itemsize * side.partitions * side.elements for side in sides if side.memory == HBM
        ),
    )
