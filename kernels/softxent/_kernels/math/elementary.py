"""exp and log1p from + - x / fma and bit operations, for numbers and for lanes.

libm is never called, so the bits are the same on every processor. The polynomials are Chebyshev
fits in 300-bit arithmetic, rounded to the working precision; tests/kernels/test_elementary.py
fits them again and measures the errors in ulp.

    exp(v)   = 2^n (1 + r + r^2 q(r)),  n = rint(v log2 e),  r = v - n ln 2
    log1p(s) = k ln 2 + f - (f^2/2 - w (f^2/2 + R(w^2))),  w = f / (2 + f)
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.extending import overload

from softxent._kernels.build.compilation import inlined
from softxent._kernels.simd.lanes import Lanes, bits, fma, from_bits, select


class Format(NamedTuple):
    """Constants of a floating-point format for exponentials; all are exact in it.

    Adding `magic` = 1.5 * 2^(mantissa bits) leaves rint(v) in the low bits of the sum.
    """

    log2_e: float
    ln2_high: float
    ln2_low: float
    magic: float
    exponent_bias: float
    headroom: float
    """Exponentials of a tile are kept 2^headroom too large, so that their ratios to the largest
    are representable, and rounded once, down to the smallest subnormal number."""
    direct: float
    """Below this magnitude of the maximum logits are reduced as they are; above it, x - maximum is
    exact (Sterbenz) wherever its exponential is not 0. Either way no rounding error enters exp."""


FLOAT32 = Format(
    log2_e=1.4426950216293335,
    ln2_high=0.6931471824645996,
    ln2_low=-1.9046542121259336e-09,
    magic=1.5 * 2**23,
    exponent_bias=127.0,
    headroom=60.0,
    direct=512.0,
)
FLOAT64 = Format(
    log2_e=1.4426950408889634,
    ln2_high=0.6931471805599453,
    ln2_low=2.3190468138462996e-17,
    magic=1.5 * 2**52,
    exponent_bias=1023.0,
    headroom=400.0,
    direct=4096.0,
)

EXP_32 = (
    0.5,
    0.16666573286056519,
    0.04166654869914055,
    0.008363774046301842,
    0.0013926926767453551,
)
EXP_64 = (
    0.5,
    0.1666666666666667,
    0.04166666666666667,
    0.008333333333325544,
    0.0013888888888883327,
    0.00019841269876864356,
    2.4801587327007187e-05,
    2.755725283351691e-06,
    2.75572718102198e-07,
    2.5106274733573296e-08,
    2.0915442297780116e-09,
)
LOG = (
    0.6666666666666666,
    0.40000000000001007,
    0.2857142857072325,
    0.22222222409750114,
    0.18181793732111753,
    0.15386342449645143,
    0.13266048812203002,
    0.131148348695975,
)

_MAGIC = FLOAT64.magic
_MAGIC_BITS = 0x4338000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_EXPONENT_ONE = 1023


def format_of(array):
    """Return the format of an array's elements (in compiled code)."""
    return FLOAT32 if array.dtype == "float32" else FLOAT64


@overload(format_of, jit_options={"forceinline": True})
def _format_of(array):
    if array.dtype == types.float32:
        return lambda array: FLOAT32
    return lambda array: FLOAT64


def exp_quotient(r):
    """Return (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, in r's format (in compiled code)."""
    raise TypeError("exp_quotient is for compiled code")


@overload(exp_quotient, jit_options={"forceinline": True})
def _exp_quotient(r):
    element = r.element if isinstance(r, Lanes) else r
    return _exp_quotient_32 if element == types.float32 else _exp_quotient_64


def _exp_quotient_32(r):
    q = fma(EXP_32[4], r, EXP_32[3])
    q = fma(q, r, EXP_32[2])
    q = fma(q, r, EXP_32[1])
    return fma(q, r, EXP_32[0])


def _exp_quotient_64(r):
    q = fma(EXP_64[10], r, EXP_64[9])
    q = fma(q, r, EXP_64[8])
    q = fma(q, r, EXP_64[7])
    q = fma(q, r, EXP_64[6])
    q = fma(q, r, EXP_64[5])
    q = fma(q, r, EXP_64[4])
    q = fma(q, r, EXP_64[3])
    q = fma(q, r, EXP_64[2])
    q = fma(q, r, EXP_64[1])
    return fma(q, r, EXP_64[0])


@inlined
def two_sum(a, b):
    """Return a + b rounded, and the exact rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@inlined
def exp_pair(v, v_low, exponent):
    """Return exp(v + v_low) * 2^exponent as an unevaluated sum of two float64.

    For v <= 4096 and a result below 2^1024; `exponent` is an integer-valued float64. The sum is
    within 0.1 ulp. -inf gives 0, NaN gives NaN.
    """
    v_low = select(v < -16384.0, 0.0, v_low)
    v = select(v < -16384.0, -16384.0, v)
    n = fma(v, FLOAT64.log2_e, _MAGIC) - _MAGIC
    r, r_low = two_sum(fma(n, -FLOAT64.ln2_high, v), fma(n, -FLOAT64.ln2_low, v_low))
    high, low = two_sum(1.0, r)
    tail = (low + r_low * high) + r * r * exp_quotient(r)
    e = n + exponent
    e = select(e < -2040.0, -2040.0, e)
    half = fma(e, 0.5, _MAGIC) - _MAGIC
    high, low = two_sum(high, tail)
    first, second = power_of_two(half), power_of_two(e - half)
    return high * first * second, low * first * second


@inlined
def exp_scaled(v, v_low, exponent):
    """Return exp(v + v_low) * 2^exponent in float64, as `exp_pair` does."""
    high, low = exp_pair(v, v_low, exponent)
    return high + low


@inlined
def expm1_pair(v, v_low):
    """Return exp(v + v_low) - 1 for v <= 1/4 as an unevaluated sum of two float64; -1 for -inf."""
    v_low = select(v < -64.0, 0.0, v_low)
    v = select(v < -64.0, -64.0, v)
    n = fma(v, FLOAT64.log2_e, _MAGIC) - _MAGIC
    r, r_low = two_sum(fma(n, -FLOAT64.ln2_high, v), fma(n, -FLOAT64.ln2_low, v_low))
    tail = r_low + (r * r_low + r * r * exp_quotient(r))
    power = power_of_two(n)
    high, low = two_sum(power - 1.0, power * r)
    return two_sum(high, low + power * tail)


@inlined
def tanh_pair(v, v_low):
    """Return tanh(v + v_low) for v >= 0, as an unevaluated sum of two float64, and its derivative.

    tanh(v) = -u / (2 + u) and 1 - tanh(v)^2 = 4 (1 + u) / (2 + u)^2, with u = exp(-2 v) - 1.
    """
    u, u_low = expm1_pair(-2.0 * v, -2.0 * v_low)
    below, below_low = two_sum(2.0, u)
    high, low = divide_pair(0.0 - u, 0.0 - u_low, below, below_low + u_low)
    power = exp_scaled(-2.0 * v, -2.0 * v_low, 0.0)
    return high, low, (4.0 * power) / (below * below)


@inlined
def divide_pair(a, a_low, b, b_low):
    """Return (a + a_low) / (b + b_low) as an unevaluated sum of two float64."""
    quotient = a / b
    rest = fma(0.0 - quotient, b, a) + (a_low - quotient * b_low)
    return quotient, rest / b


@inlined
def power_of_two(n):
    """Return 2^n for an integer-valued float64 n in [-1022, 1023]."""
    return from_bits(bits(n + (_MAGIC + 1023.0)) << 52)


@inlined
def rint(v):
    """Round to the nearest integer, ties to even, for |v| < 2^51."""
    return (v + _MAGIC) - _MAGIC


@inlined
def log1p(s):
    """Return log(1 + s) for float64 s in [-1/2, 2^1023]; NaN gives NaN."""
    u, u_low = two_sum(1.0, s)
    return log_pair(u, u_low)


@inlined
def log_pair(u, u_low):
    """Return log(u + u_low) for a normal float64 u > 0; NaN gives NaN."""
    k = (bits(u) - _SQRT_HALF_BITS) >> 52
    u = from_bits(bits(u) - (k << 52))
    u_low = u_low * from_bits((_EXPONENT_ONE - k) << 52)
    f = u - 1.0
    w = f / (2.0 + f)
    z = w * w
    q = fma(LOG[7], z, LOG[6])
    q = fma(q, z, LOG[5])
    q = fma(q, z, LOG[4])
    q = fma(q, z, LOG[3])
    q = fma(q, z, LOG[2])
    q = fma(q, z, LOG[1])
    q = fma(q, z, LOG[0])
    half_square = 0.5 * f * f
    n = from_bits(k + _MAGIC_BITS) - _MAGIC
    low = fma(w, fma(q, z, half_square), fma(n, FLOAT64.ln2_low, u_low / u))
    return fma(n, FLOAT64.ln2_high, f - (half_square - low))


# As precise as the elements of an array need: float64 alone has digits to spare for float32.


@inlined
def is_single(x):
    """Whether an array's elements are float32."""
    return format_of(x).exponent_bias == 127.0


@inlined
def exp_quotient_short(r):
    """Return `exp_quotient` of float64 within 2^-30."""
    q = fma(EXP_64[6], r, EXP_64[5])
    q = fma(q, r, EXP_64[4])
    q = fma(q, r, EXP_64[3])
    q = fma(q, r, EXP_64[2])
    q = fma(q, r, EXP_64[1])
    return fma(q, r, EXP_64[0])


@inlined
def exp_unit(x, v, n):
    """Return exp(v) * 2^n, where that lies in [1/2, 2], as an unevaluated sum of two float64."""
    if is_single(x):
        r = fma(n, FLOAT64.ln2_high, v) + n * FLOAT64.ln2_low
        return fma(r * r, exp_quotient_short(r), r) + 1.0, 0.0 * r
    return exp_pair(v, 0.0 * n, n)


@inlined
def divide_for(x, a, a_low, b, b_low):
    """Return (a + a_low) / (b + b_low) as an unevaluated sum of two float64."""
    if is_single(x):
        return a / b, 0.0 * b
    return divide_pair(a, a_low, b, b_low)


@inlined
def times_for(x, factor, value, value_low):
    """Return factor * (value + value_low)."""
    if is_single(x):
        return factor * value
    return fma(factor, value, factor * value_low)


@inlined
def tanh_quotient(x, v, divisor):
    """Return tanh(v / divisor) for v >= 0, as an unevaluated sum, and tanh's derivative there.

    For float32 the forms of `tanh_pair` come from one exponential and one reciprocal.
    """
    if not is_single(x):
        share, share_low = divide_pair(v, 0.0 * v, divisor, 0.0)
        return tanh_pair(share, share_low)
    # Below 2^-1023 the quotient is infinite, and its product with 0 is 0 all the same.
    t = select(v == 0.0, 0.0, v * (-2.0 / divisor))
    t = select(t < -700.0, -700.0, t)
    n = rint(t * FLOAT64.log2_e)
    r = fma(n, -FLOAT64.ln2_high, t)
    power = power_of_two(n)
    grown = power * fma(r * r, exp_quotient_short(r), r)
    u = (power - 1.0) + grown
    reciprocal = 1.0 / (2.0 + u)
    return (0.0 - u) * reciprocal, 0.0 * u, (4.0 * (power + grown)) * (reciprocal * reciprocal)
