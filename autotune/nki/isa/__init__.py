"""The instructions of a NeuronCore, as `nki.isa` of NKI 0.6 names them."""

from autotune.nki import constants
from autotune.nki.constants import (
    dge_mode,
    dma_engine,
    engine,
    gpsimd_engine,
    matmul_perf_mode,
    nc_version,
    oob_mode,
    reduce_cmd,
    scalar_engine,
    tensor_engine,
    unknown_engine,
    vector_engine,
)
from autotune.nki.errors import NkiError as NkiValidationError
from autotune.nki.interpreter.registers import VirtualRegister
from autotune.nki.isa.activation import activate2, activation, activation_reduce, exponential
from autotune.nki.isa.copy import memset, nc_stream_shuffle, tensor_copy, tensor_copy_predicated
from autotune.nki.isa.cores import core_barrier, sendrecv
from autotune.nki.isa.dma import dma_compute, dma_copy, dma_transpose
from autotune.nki.isa.elementwise import reciprocal, scalar_tensor_tensor, tensor_scalar, tensor_tensor
from autotune.nki.isa.issue import NkiInstruction
from autotune.nki.isa.matmul import nc_matmul, nc_transpose
from autotune.nki.isa.mx import nc_matmul_mx, quantize_mx
from autotune.nki.isa.random import (
    dropout,
    rand2,
    rand_get_state,
    rand_set_state,
    rng,
    set_rng_seed,
)
from autotune.nki.isa.reduction import (
    bn_aggr,
    bn_stats,
    tensor_partition_reduce,
    tensor_reduce,
    tensor_scalar_cumulative,
    tensor_scalar_reduce,
    tensor_tensor_scan,
)
from autotune.nki.isa.registers import (
    get_nc_sub_version,
    get_nc_version,
    register_alloc,
    register_load,
    register_move,
    register_store,
)
from autotune.nki.isa.search import (
    local_gather,
    max8,
    nc_find_index8,
    nc_match_replace8,
    nc_n_gather,
    nonzero_with_count,
    sequence_bounds,
    topk,
)
from autotune.nki.isa.select import affine_select, iota, range_select, select_reduce

__all__ = [
    "NkiInstruction",
    "NkiValidationError",
    "VirtualRegister",
    "activate2",
    "activation",
    "activation_reduce",
    "affine_select",
    "bn_aggr",
    "bn_stats",
    "constants",
    "core_barrier",
    "dge_mode",
    "dma_compute",
    "dma_copy",
    "dma_engine",
    "dma_transpose",
    "dropout",
    "engine",
    "exponential",
    "get_nc_sub_version",
    "get_nc_version",
    "gpsimd_engine",
    "iota",
    "local_gather",
    "matmul_perf_mode",
    "max8",
    "memset",
    "nc_find_index8",
    "nc_match_replace8",
    "nc_matmul",
    "nc_matmul_mx",
    "nc_n_gather",
    "nc_stream_shuffle",
    "nc_transpose",
    "nc_version",
    "nonzero_with_count",
    "oob_mode",
    "quantize_mx",
    "rand2",
    "rand_get_state",
    "rand_set_state",
    "range_select",
    "reciprocal",
    "reduce_cmd",
    "register_alloc",
    "register_load",
    "register_move",
    "register_store",
    "rng",
    "scalar_engine",
    "scalar_tensor_tensor",
    "select_reduce",
    "sendrecv",
    "sequence_bounds",
    "set_rng_seed",
    "tensor_copy",
    "tensor_copy_predicated",
    "tensor_engine",
    "tensor_partition_reduce",
    "tensor_reduce",
    "tensor_scalar",
    "tensor_scalar_cumulative",
    "tensor_scalar_reduce",
    "tensor_tensor",
    "tensor_tensor_scan",
    "topk",
    "unknown_engine",
    "vector_engine",
]
