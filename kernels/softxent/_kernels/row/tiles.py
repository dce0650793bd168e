"""Passes over one tile of a row.

A pass takes a flat array, where the tile begins and how many columns it has. It goes in steps of
64 columns: four times sixteen lanes. Four float32 exponentials are added as a tree and the sum
is added to sixteen float64 lanes, so that at most two float32 roundings enter a sum; float64
lanes are compensated. The last step of a row reads and writes only its own columns.

Exponentials are exp(x - centre) * 2^-exponent with (centre, exponent) chosen by `reference`, so
that no rounding error enters the argument: see `Format.direct`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import exp_quotient, format_of, rint, two_sum
from softxent._kernels.math.lane_reductions import (
    add_for,
    add_lanes,
    any_lane,
    count_lanes,
    fold_maximum,
    fold_sum,
    lane,
)
from softxent._kernels.simd.lanes import (
    LANES,
    bits,
    cast_down,
    fma,
    from_bits,
    select,
    spread,
    spread_as,
    to_float64,
)
from softxent._kernels.simd.memory import load, load_first, prefetch, store, store_first

TILE = 4096

STEP = 64
_AHEAD = 4096
"""Columns by which the exponential pass asks for the next tile: it computes while memory reads."""


# The exponential --------------------------------------------------------------------------------


@inlined
def reference(maximum, x):
    """Return (centre, exponent) for exponentials where the largest logit is `maximum`.

    For one float64 or for lanes of them.
    """
    fmt = format_of(x)
    direct = (maximum < fmt.direct) & (maximum > -fmt.direct)
    centre = select(direct | (maximum == -np.inf), 0.0, maximum)
    exponent = select(direct, rint(maximum * fmt.log2_e), 0.0) - fmt.headroom
    return centre, exponent


@inlined
def exponentials(v, x, centre, exponent):
    """Return exp(v - centre) * 2^-exponent, 0 where that is no normal number, NaN for NaN.

    `magic` carries the exponent, so that the low bits of `t` are the result's biased exponent;
    at `lowest` those bits are 0 and so is the factor they make.
    """
    fmt = format_of(x)
    magic = fmt.magic + (fmt.exponent_bias - exponent)
    lowest = (exponent - fmt.exponent_bias) * 0.6931471805599453
    mantissa_bits = 23 if fmt.exponent_bias == 127.0 else 52
    d = v - centre
    d = select(d < lowest, lowest, d)
    t = fma(d, fmt.log2_e, magic)
    n = t - magic
    r = fma(n, -fmt.ln2_low, fma(n, -fmt.ln2_high, d))
    factor = from_bits(bits(t) << mantissa_bits)
    p = fma(r * r, exp_quotient(r), r)
    return fma(p, factor, factor)


@inlined
def tempered_exponentials(v, x, centre, inv_temperature):
    """Return exp((v - centre) / temperature) * 2^headroom, as `exponentials` does.

    The difference and its product with 1 / temperature carry their rounding errors along: in one
    float alone they would cost up to |v - centre| / temperature ulp.
    """
    fmt = format_of(x)
    magic = fmt.magic + (fmt.exponent_bias + fmt.headroom)
    lowest = (0.0 - fmt.headroom - fmt.exponent_bias) * 0.6931471805599453
    mantissa_bits = 23 if fmt.exponent_bias == 127.0 else 52
    d, d_low = two_sum(v, spread_as(0.0 - centre, x))
    inv_high, inv_low = inv_temperature
    product = d * inv_high
    hidden = product < lowest
    low = fma(d, inv_high, spread_as(0.0, x) - product) + fma(d, inv_low, d_low * inv_high)
    low = select(hidden, 0.0, low)
    product = select(hidden, lowest, product)
    t = fma(product, fmt.log2_e, magic)
    n = t - magic
    r = fma(n, -fmt.ln2_high, product) + fma(n, -fmt.ln2_low, low)
    factor = from_bits(bits(t) << mantissa_bits)
    p = fma(r * r, exp_quotient(r), r)
    return fma(p, factor, factor)


# Passes -----------------------------------------------------------------------------------------


@inlined
def tile_maximum(x, begin, count):
    """Return the largest logit of a tile as float64; NaN is passed over, -inf if all are."""
    lowest = spread_as(-np.inf, x)
    m0, m1, m2, m3 = lowest, lowest, lowest, lowest
    whole = begin + count // STEP * STEP
    for j in range(begin, whole, STEP):
        v0, v1, v2, v3 = load(x, j), load(x, j + 16), load(x, j + 32), load(x, j + 48)
        m0 = select(v0 > m0, v0, m0)
        m1 = select(v1 > m1, v1, m1)
        m2 = select(v2 > m2, v2, m2)
        m3 = select(v3 > m3, v3, m3)
    for j in range(whole, begin + count, LANES):
        v0 = load_first(x, j, begin + count - j, -np.inf)
        m0 = select(v0 > m0, v0, m0)
    m0 = select(m1 > m0, m1, m0)
    m2 = select(m3 > m2, m3, m2)
    return np.float64(fold_maximum(select(m2 > m0, m2, m0)))


def _exponential_pass(keep: bool, tempered: bool) -> Any:
    @inlined
    def powers(v, x, centre, exponent, inv_temperature):
        if tempered:
            return tempered_exponentials(v, x, centre, inv_temperature)
        return exponentials(v, x, centre, exponent)

    @inlined
    def tile_exponentials(x, begin, count, maximum, centre, exponent, inv_temperature, e_out):
        acc = spread(0.0)
        low = spread(0.0)
        ties = 0
        zero = spread_as(0.0, x)
        m = spread_as(maximum, x)
        whole = begin + count // STEP * STEP
        for j in range(begin, whole, STEP):
            prefetch(x, j + _AHEAD)
            prefetch(x, j + _AHEAD + 16)
            prefetch(x, j + _AHEAD + 32)
            prefetch(x, j + _AHEAD + 48)
            v0, v1, v2, v3 = load(x, j), load(x, j + 16), load(x, j + 32), load(x, j + 48)
            e0 = powers(v0, x, centre, exponent, inv_temperature)
            e1 = powers(v1, x, centre, exponent, inv_temperature)
            e2 = powers(v2, x, centre, exponent, inv_temperature)
            e3 = powers(v3, x, centre, exponent, inv_temperature)
            if keep:
                store(e_out, j, e0)
                store(e_out, j + 16, e1)
                store(e_out, j + 32, e2)
                store(e_out, j + 48, e3)
            t0, t1, t2, t3 = v0 == m, v1 == m, v2 == m, v3 == m
            ties += (count_lanes(t0) + count_lanes(t1)) + (count_lanes(t2) + count_lanes(t3))
            s = (select(t0, zero, e0) + select(t1, zero, e1)) + (
                select(t2, zero, e2) + select(t3, zero, e3)
            )
            acc, low = add_lanes(acc, low, s)
        for j in range(whole, begin + count, LANES):
            n = begin + count - j
            v0 = load_first(x, j, n, -np.inf)
            e0 = powers(v0, x, centre, exponent, inv_temperature)
            if keep:
                store_first(e_out, j, n, e0)
            t0 = v0 == m
            ties += count_lanes(t0)
            acc, low = add_lanes(acc, low, select(t0, zero, e0))
        peak = lane(powers(m, x, centre, exponent, inv_temperature), 0)
        return np.float64(ties), fold_sum(acc, low), np.float64(peak)

    return tile_exponentials


tile_exponentials = {
    (keep, tempered): _exponential_pass(keep, tempered)
    for keep in (False, True)
    for tempered in (False, True)
}
"""Return how many logits equal the maximum, the sum of the other exponentials, and the exponential
of the maximum, all float64. `keep`: write the exponentials to e_out, which may be x itself."""


@inlined
def tile_shortfall(x, begin, count, maximum, weights, weights_begin, weighted):
    """Return sum_j w_j (maximum - x_j) over a tile; a weight of 0 hides any logit."""
    acc = spread(0.0)
    low = spread(0.0)
    for j in range(0, count, LANES):
        n = count - j
        d = maximum - to_float64(load_first(x, begin + j, n, maximum))
        if weighted:
            w = load_first(weights, weights_begin + j, n, 0.0)
            d = select(w > 0.0, w * d, 0.0)
        acc, low = add_for(x, acc, low, d)
    if any_lane(acc == np.inf):
        return np.inf
    return fold_sum(acc, low)


@inlined
def total_weight(weights, begin, count):
    """Return the sum of some weights, compensated."""
    acc = spread(0.0)
    low = spread(0.0)
    for j in range(0, count, LANES):
        acc, error = two_sum(acc, load_first(weights, begin + j, count - j, 0.0))
        low = low + error
    return fold_sum(acc, low)


@inlined
def write_scaled(e, begin, count, a, peak, at_peak, out):
    """out_j = e_j a less the headroom, rounded once, and `at_peak` where e_j == peak.

    e and out may be one array.
    """
    a = a * 2.0 ** -format_of(e).headroom
    whole = begin + count // STEP * STEP
    for j in range(begin, whole, STEP):
        e0, e1, e2, e3 = load(e, j), load(e, j + 16), load(e, j + 32), load(e, j + 48)
        store(out, j, select(e0 == peak, at_peak, e0 * a))
        store(out, j + 16, select(e1 == peak, at_peak, e1 * a))
        store(out, j + 32, select(e2 == peak, at_peak, e2 * a))
        store(out, j + 48, select(e3 == peak, at_peak, e3 * a))
    for j in range(whole, begin + count, LANES):
        n = begin + count - j
        e0 = load_first(e, j, n, 0.0)
        store_first(out, j, n, select(e0 == peak, at_peak, e0 * a))


@inlined
def write_difference(e, begin, count, a, peak, at_peak, b, weights, weights_begin, weighted, out):
    """Do `write_scaled`, less b w_j; w_j = 1 where not `weighted`. Rounded once but at the peak."""
    a = a * 2.0 ** -format_of(e).headroom
    if not weighted:
        t = cast_down(spread(-b), out)
        top = cast_down(spread(at_peak - b), out)
        for j in range(0, count, LANES):
            v = load_first(e, begin + j, count - j, 0.0)
            store_first(out, begin + j, count - j, select(v == peak, top, fma(v, a, t)))
        return
    for j in range(0, count, LANES):
        n = count - j
        t = -b * load_first(weights, weights_begin + j, n, 0.0)
        v = load_first(e, begin + j, n, 0.0)
        value = select(v == peak, cast_down(t + at_peak, out), fma(v, a, cast_down(t, out)))
        store_first(out, begin + j, n, value)


@inlined
def write_wide(e, begin, count, a, b, weights, weights_begin, weighted, out):
    """Write e_j a less the headroom - b w_j, for factors that leave the elements' normal range."""
    lift = 2.0 ** -format_of(e).headroom
    for j in range(0, count, LANES):
        n = count - j
        t = spread(-b)
        if weighted:
            t = t * load_first(weights, weights_begin + j, n, 0.0)
        p = to_float64(load_first(e, begin + j, n, 0.0)) * lift
        # Where an infinite factor meets a probability of 0, the product is 0.
        store_first(out, begin + j, n, cast_down(select(p > 0.0, p * a, 0.0) + t, out))


@inlined
def write_all(out, begin, count, value):
    """out_j = value."""
    for j in range(begin, begin + count):
        out[j] = value


@inlined
def find(e, begin, count, wanted):
    """Return the first index at which e holds a value."""
    end = begin + count
    for j in range(begin, end, LANES):
        if any_lane(load_first(e, j, end - j, np.nan) == wanted):
            for k in range(j, end):
                if e[k] == wanted:
                    return k
    return begin
