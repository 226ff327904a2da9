"""The language of NKI 0.6 as `nki.language` names it; conveniences are made of `nki.isa` instructions."""

from typing import Any

from autotune.nki.interpreter.dtypes import (
    DType,
    bfloat16,
    bool_,
    float4_e2m1fn_x4,
    float8_e4m3,
    float8_e4m3fn,
    float8_e4m3fn_x4,
    float8_e5m2,
    float8_e5m2_x4,
    float8_e8m0fnu,
    float16,
    float32,
    int8,
    int16,
    int32,
    tfloat32,
    uint8,
    uint16,
    uint32,
)
from autotune.nki.interpreter.objects import NKIObject
from autotune.nki.interpreter.regions import MemoryRegion
from autotune.nki.interpreter.tensor import NkiTensor
from autotune.nki.isa.operators import OPERATORS
from autotune.nki.language.control import (
    affine_range,
    device_print,
    ds,
    dynamic_range,
    fori_loop,
    no_reorder,
    num_programs,
    program_id,
    program_ndim,
    sequential_range,
    static_range,
    tile_size,
    while_loop,
)
from autotune.nki.language.creation import (
    broadcast_to,
    copy,
    empty_like,
    expand_dims,
    full,
    is_hbm,
    is_on_chip,
    is_psum,
    is_sbuf,
    load,
    load_transpose2d,
    ndarray,
    ones,
    private_hbm,
    psum,
    rand,
    random_seed,
    sbuf,
    shared_constant,
    shared_hbm,
    shared_identity_matrix,
    store,
    zeros,
    zeros_like,
)
from autotune.nki.language.maths import (
    all_ as all,
)
from autotune.nki.language.maths import (
    binary,
    dropout,
    gather_flattened,
    matmul,
    mean,
    reduction,
    rms_norm,
    softmax,
    transpose,
    unary,
    var,
    where,
)

hbm = private_hbm
dtype = DType  # what annotations of kernels call it
average = OPERATORS["average"]
prelu = OPERATORS["prelu"]
bypass = OPERATORS["bypass"]
copy.operator = OPERATORS["copy"]  # type: ignore[attr-defined]

add = binary("add")
subtract = binary("subtract")
multiply = binary("multiply")
divide = binary("divide")
maximum = binary("maximum")
minimum = binary("minimum")
abs_max = binary("abs_max")
abs_min = binary("abs_min")
power = binary("power")
equal = binary("equal")
not_equal = binary("not_equal")
less = binary("less")
less_equal = binary("less_equal")
greater = binary("greater")
greater_equal = binary("greater_equal")
bitwise_and = binary("bitwise_and")
bitwise_or = binary("bitwise_or")
bitwise_xor = binary("bitwise_xor")
left_shift = binary("left_shift")
right_shift = binary("right_shift")
logical_and = binary("logical_and")
logical_or = binary("logical_or")
logical_xor = binary("logical_xor")
fmod = binary("fmod")
mod = binary("mod")

abs = unary("abs")
square = unary("square")
invert = unary("invert")
logical_not = unary("logical_not")
exp = unary("exp")
log = unary("log")
sqrt = unary("sqrt")
rsqrt = unary("rsqrt")
tanh = unary("tanh")
sigmoid = unary("sigmoid")
relu = unary("relu")
gelu = unary("gelu")
gelu_apprx_sigmoid = unary("gelu_apprx_sigmoid")
gelu_apprx_tanh = unary("gelu_apprx_tanh")
gelu_dx = unary("gelu_dx")
gelu_apprx_sigmoid_dx = unary("gelu_apprx_sigmoid_dx")
silu = unary("silu")
silu_dx = unary("silu_dx")
softplus = unary("softplus")
mish = unary("mish")
erf = unary("erf")
erf_dx = unary("erf_dx")
reciprocal = unary("reciprocal")
sin = unary("sin")
cos = unary("cos")
tan = unary("tan")
arctan = unary("arctan")
ceil = unary("ceil")
floor = unary("floor")
trunc = unary("trunc")
negative = unary("negative")
sign = unary("sign")

sum = reduction("sum", "add")
max = reduction("max", "maximum")
min = reduction("min", "minimum")
prod = reduction("prod", "multiply")


__all__ = [
    "MemoryRegion",
    "NKIObject",
    "NkiTensor",
    "abs",
    "abs_max",
    "abs_min",
    "add",
    "affine_range",
    "all",
    "arctan",
    "average",
    "bfloat16",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bool_",
    "broadcast_to",
    "bypass",
    "ceil",
    "copy",
    "cos",
    "device_print",
    "divide",
    "dropout",
    "ds",
    "dtype",
    "dynamic_range",
    "empty_like",
    "equal",
    "erf",
    "erf_dx",
    "exp",
    "expand_dims",
    "float4_e2m1fn_x4",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e4m3fn_x4",
    "float8_e5m2",
    "float8_e5m2_x4",
    "float8_e8m0fnu",
    "float16",
    "float32",
    "floor",
    "fmod",
    "fori_loop",
    "full",
    "gather_flattened",
    "gelu",
    "gelu_apprx_sigmoid",
    "gelu_apprx_sigmoid_dx",
    "gelu_apprx_tanh",
    "gelu_dx",
    "greater",
    "greater_equal",
    "hbm",
    "int8",
    "int16",
    "int32",
    "invert",
    "is_hbm",
    "is_on_chip",
    "is_psum",
    "is_sbuf",
    "left_shift",
    "less",
    "less_equal",
    "load",
    "load_transpose2d",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mish",
    "mod",
    "multiply",
    "ndarray",
    "negative",
    "no_reorder",
    "not_equal",
    "num_programs",
    "ones",
    "power",
    "prelu",
    "private_hbm",
    "prod",
    "program_id",
    "program_ndim",
    "psum",
    "rand",
    "random_seed",
    "reciprocal",
    "relu",
    "right_shift",
    "rms_norm",
    "rsqrt",
    "sbuf",
    "sequential_range",
    "shared_constant",
    "shared_hbm",
    "shared_identity_matrix",
    "sigmoid",
    "sign",
    "silu",
    "silu_dx",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "static_range",
    "store",
    "subtract",
    "sum",
    "tan",
    "tanh",
    "tfloat32",
    "tile_size",
    "transpose",
    "trunc",
    "uint8",
    "uint16",
    "uint32",
    "var",
    "where",
    "while_loop",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    """Say of a name that is not there whether NKI has it."""
    removed = (
        "mgrid",
        "arange",
        "par_dim",
        "loop_reduce",
        "static_cast",
        "nc",
        "spmd_dim",
        "hbm_mod",
        "tensor",
    )
    why = "; NKI removed it before 0.6, see its migration guide" if name in removed else ""
    raise AttributeError(f"nki.language has no {name}{why}")
