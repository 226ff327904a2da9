"""C source of a vectorized exp for arguments at or below zero: a stable softmax needs no others."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial


@dataclass(frozen=True)
class _Format:
    """The constants that exp needs of an IEEE 754 format.

    Args:
        integer: C's integer type of the same width.
        fraction_bits: bits of the fraction.
        exponent_bias: the number that the format adds to an exponent.
        ln2_high: ln 2, truncated so that n * ln2_high is exact for every n that occurs.
        ln2_low: ln 2 - ln2_high.
        floor: for smaller arguments the result is 0; the exact result would be subnormal.
        degree: Taylor terms on |r| <= ln(2) / 2 for an error below half a unit in the last place.
    """

    integer: str
    fraction_bits: int
    exponent_bias: int
    ln2_high: str
    ln2_low: str
    floor: str
    degree: int


_FORMATS = {
    "float32": _Format("int32_t", 23, 127, "0x1.62e4p-1f", "0x1.7f7d1cp-20f", "-87.0f", 7),
    "float64": _Format("int64_t", 52, 1023, "0x1.62e42fee00000p-1", "0x1.a39ef35793c76p-33", "-708.0", 13),
}


def exp_function(dtype: str) -> str:
    """Return `exp_nonpositive(vec)`: 2^n e^r with n = round(x / ln 2); NaN stays NaN, -inf gives 0.

    Adding 1.5 * 2^fraction_bits rounds to an integer and leaves that integer in the low bits. A shift turns
    it into the exponent of 2^n (Cody and Waite, Software Manual for the Elementary Functions, 1980).
    """
    form = _FORMATS[dtype]
    suffix = "f" if dtype == "float32" else ""
    horner = "\n".join(
        f"    p = p * r + (T)(1.0 / {factorial(n)}.0);" for n in range(form.degree - 1, -1, -1)
    )
    return f"""\
typedef {form.integer} ivec __attribute__((vector_size(sizeof(vec)), may_alias));

INLINE vec exp_nonpositive(vec x) {{
    const T magic = 0x1.8p{form.fraction_bits}{suffix};
    const vec shifted = x * (T)0x1.71547652b82fep+0 + magic;
    const vec n = shifted - magic;
    const vec r = (x - n * {form.ln2_high}) - n * {form.ln2_low};
    vec p = r * (T)0 + (T)(1.0 / {factorial(form.degree)}.0);
{horner}
    const {form.integer} one = ({form.integer}){form.exponent_bias} << {form.fraction_bits};
    const ivec power = ((ivec)shifted << {form.fraction_bits}) + one;
    return (vec)((ivec)(p * (vec)power) & ~(ivec)(x < {form.floor}));
}}
"""
