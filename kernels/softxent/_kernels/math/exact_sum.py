"""Exact accumulator of float64 values; the sum does not depend on the order of addition.

A finite float64 is an integer times 2^-1074. The sum of such integers is kept in 32-bit digits,
each in an int64 word that takes 2^31 additions before it could overflow; words of two
accumulators merge by integer addition. The total is rounded once, at the end, and so equals
`math.fsum`. Three more words count NaN, +inf and -inf.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from softxent._kernels.build.compilation import inlined, kernel
from softxent._kernels.math.elementary import two_sum
from softxent._kernels.math.lane_reductions import any_lane, lane
from softxent._kernels.simd.lanes import LANES, bits, from_bits, select, spread, to_float64
from softxent._kernels.simd.memory import load_first
from softxent._kernels.simd.span import read

DIGITS = 67
WORDS = DIGITS + 3
_NAN, _INF, _MINUS_INF = DIGITS, DIGITS + 1, DIGITS + 2
_UNIT = 2.0**-1074
_TAME = 2.0**900
"""Of values below this, 2^63 add up to less than the largest float64."""


@inlined
def accumulate(words, value):
    """Add one float64 value to an accumulator of `WORDS` int64 words."""
    pattern = bits(value)
    exponent = (pattern >> 52) & 0x7FF
    mantissa = pattern & 0xFFFFFFFFFFFFF
    if exponent == 0x7FF:
        if mantissa != 0:
            words[_NAN] += 1
        elif pattern > 0:
            words[_INF] += 1
        else:
            words[_MINUS_INF] += 1
    elif pattern << 1 != 0:
        if exponent == 0:
            exponent = 1
        else:
            mantissa += 1 << 52
        digit = (exponent - 1) >> 5
        shift = (exponent - 1) & 31
        low = (mantissa << shift) & 0xFFFFFFFF
        rest = mantissa >> (32 - shift)
        middle = rest & 0xFFFFFFFF
        high = rest >> 32
        if pattern < 0:
            low, middle, high = -low, -middle, -high
        words[digit] += low
        words[digit + 1] += middle
        words[digit + 2] += high


@inlined
def accumulate_all(words, values, first, last):
    """Add values first .. last to an accumulator.

    They are added in lanes for as long as that is exact: the second level takes what the first
    rounds off, and what the second rounds off, rarely anything, goes to the accumulator at once.
    """
    high, low = spread(0.0), spread(0.0)
    for i in range(first, last, LANES):
        v = to_float64(load_first(values, i, last - i, 0.0))
        tame = (v < _TAME) & (v > -_TAME)
        high, rest = two_sum(high, select(tame, v, 0.0))
        low, rest = two_sum(low, rest)
        rest = select(tame, rest, v)
        if any_lane(rest != 0.0):
            accumulate_lanes(words, rest)
    accumulate_lanes(words, high)
    accumulate_lanes(words, low)


@inlined
def accumulate_lanes(words, values):
    """Add sixteen lanes to an accumulator."""
    for r in range(LANES):
        accumulate(words, lane(values, r))


@inlined
def holds_finite(words):
    """Return whether every value that an accumulator holds is finite."""
    return words[_NAN] == 0 and words[_INF] == 0 and words[_MINUS_INF] == 0


@inlined
def rounded(words):
    """Return the exact sum of what an accumulator holds, rounded once to float64."""
    if words[_NAN] != 0 or (words[_INF] != 0 and words[_MINUS_INF] != 0):
        return np.nan
    if words[_INF] != 0:
        return np.inf
    if words[_MINUS_INF] != 0:
        return -np.inf
    carry = 0
    for i in range(DIGITS):
        carry = (words[i] + carry) >> 32
    # The sign is that of what is carried out of the last digit.
    sign = -1 if carry < 0 else 1
    return sign * _rounded_magnitude(words, sign)


@inlined
def _rounded_magnitude(words, sign):
    """Return sign times the sum, which is not negative, rounded to nearest, ties to even.

    Of the digits from the highest that is not 0, three have at least 65 bits.
    """
    digits = np.empty(DIGITS + 3, np.int64)
    digits[0] = digits[1] = 0
    carry, top = 0, 1
    for i in range(DIGITS + 1):
        value = carry + (sign * words[i] if i < DIGITS else 0)
        digits[i + 2], carry = value & 0xFFFFFFFF, value >> 32
        if digits[i + 2] != 0:
            top = i + 2
    first, second, third = digits[top], digits[top - 1], digits[top - 2]
    if top < 3 or (top == 3 and first < 1 << 21):
        return (
            np.float64((first << 32 if top == 3 else 0) + (second if top == 3 else first)) * _UNIT
        )
    drop = ((bits(np.float64(first)) >> 52) - 1022) + 11
    if drop < 32:
        mantissa = (first << (64 - drop)) | (second << (32 - drop)) | (third >> drop)
        rest = third & ((1 << drop) - 1)
    else:
        mantissa = (first << (64 - drop)) | (second >> (drop - 32))
        rest = ((second & ((1 << (drop - 32)) - 1)) << 32) | third
    half = 1 << (drop - 1)
    sticky = mantissa & 1
    for i in range(2, top - 2):
        sticky |= digits[i]
    if rest > half or (rest == half and sticky != 0):
        mantissa += 1
    exponent = drop + 32 * (top - 4) - 1074
    if exponent > 971:
        return np.inf
    if exponent < -1022:
        return np.float64(mantissa) * from_bits(1 << (exponent + 1074))
    return np.float64(mantissa) * from_bits((exponent + 1023) << 52)


@functools.cache
def _total() -> Any:
    return kernel(_total_of, types.float64(read(types.int64)))


def _total_of(words):
    return rounded(words)


def total(words: npt.NDArray[np.int64]) -> float:
    """Return the exact sum of what an accumulator holds, rounded once to float64."""
    return float(_total()(words))


def all_finite(words: npt.NDArray[np.int64]) -> bool:
    """Whether every value that an accumulator holds is finite."""
    # A fifth of the time that NumPy takes to see whether any is not 0.
    return not any(words[DIGITS:].tolist())
