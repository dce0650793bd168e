"""An accumulator for float64 values in which order and split do not exist.

A finite float64 is an integer times 2^-1074. The sum of such integers is kept in 32-bit digits,
each in an int64 word that takes 2^31 additions before it could overflow; words of two
accumulators merge by integer addition. The total is rounded once, at the end, and so equals
`math.fsum`. Three more words count NaN, +inf and -inf.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from softxent.compiled.compilation import inlined
from softxent.compiled.elementary import two_sum
from softxent.compiled.folding import any_lane, lane
from softxent.compiled.lanes import LANES, bits, select, spread, widen
from softxent.compiled.memory import load_first

DIGITS = 67
WORDS = DIGITS + 3
_NAN, _INF, _MINUS_INF = DIGITS, DIGITS + 1, DIGITS + 2
_ONE = 1 << 1074
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
        v = widen(load_first(values, i, last - i, 0.0))
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


def total(words: npt.NDArray[np.int64]) -> float:
    """Return the exact sum of what an accumulator holds, rounded once to float64."""
    # All but a few digits are 0.
    places = words.nonzero()[0]
    integer = 0
    for place, digit in zip(places.tolist(), words[places].tolist(), strict=True):
        if place >= DIGITS:
            return _not_finite(words)
        integer += digit << (32 * place)
    try:
        return float(integer / _ONE)
    except OverflowError:
        return math.inf if integer > 0 else -math.inf


def _not_finite(words: npt.NDArray[np.int64]) -> float:
    nans, infs, minus_infs = words[DIGITS:].tolist()
    if nans or (infs and minus_infs):
        return math.nan
    return math.inf if infs else -math.inf


def all_finite(words: npt.NDArray[np.int64]) -> bool:
    """Whether every value that an accumulator holds is finite."""
    # A fifth of the time that NumPy takes to see whether any is not 0.
    return not any(words[DIGITS:].tolist())
