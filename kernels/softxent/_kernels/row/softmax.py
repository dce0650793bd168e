"""The softmax of a row from its tiles.

Pass A leaves for each tile (m_t, c_t, S_t): its largest logit, how many logits equal it, and the
sum of the others' exp((x - m_t) / temperature). Everything else follows from these in float64; see
docs/derivation.md for the forms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import (
    divide_pair,
    exp_pair,
    exp_scaled,
    format_of,
    is_single,
    log1p,
    two_sum,
)
from softxent._kernels.row.tiles import (
    TILE,
    reference,
    tile_exponentials,
    tile_maximum,
    tile_shortfall,
)
from softxent._kernels.simd.lanes import fma, select, spread

PARTIALS = 7
MAXIMUM, TIES, OTHERS, SHORTFALL, UNIT, UNIT_LOW, PEAK = range(PARTIALS)
"""Values kept for a tile, by their places: m_t, c_t, S_t, the shortfall, in two parts what turns a
kept exponential, less its headroom, into exp(x - m_t), and the kept exponential of m_t."""

FAR = 70.0
"""By this power of two losses beyond float64 are made smaller until they meet their factor."""


def _pass_a(tempered: bool) -> Any:
    kept = tile_exponentials[True, tempered]
    unkept = tile_exponentials[False, tempered]

    @inlined
    def pass_a(x, classes, inv_temperature, weights, tile_weights, u, partials, e_out, keep):
        weighted = weights.size > 0
        headroom = format_of(x).headroom
        lift = 2.0**-headroom
        for t in range(partials.size // PARTIALS):
            first = t * TILE
            count = min(TILE, classes - first)
            maximum = tile_maximum(x, first, count)
            if u > 0.0:
                partials[t * PARTIALS + SHORTFALL] = shortfall(
                    x, first, count, maximum, weights, weighted, tile_weights[t]
                )
            centre, exponent = reference(maximum, x)
            if tempered and maximum > -np.inf:
                centre, exponent = maximum, 0.0 - headroom
            if keep:
                ties, others, peak = kept(
                    x, first, count, maximum, centre, exponent, inv_temperature, e_out
                )
            else:
                ties, others, peak = unkept(
                    x, first, count, maximum, centre, exponent, inv_temperature, e_out
                )
            unit, unit_low = 0.0, 0.0
            if maximum > -np.inf:
                unit, unit_low = exp_pair(centre - maximum, 0.0, exponent + headroom)
            partials[t * PARTIALS + MAXIMUM] = maximum
            partials[t * PARTIALS + TIES] = ties
            partials[t * PARTIALS + OTHERS] = fma(others, unit * lift, others * (unit_low * lift))
            partials[t * PARTIALS + UNIT] = unit
            partials[t * PARTIALS + UNIT_LOW] = unit_low
            partials[t * PARTIALS + PEAK] = peak

    return pass_a


pass_a = {tempered: _pass_a(tempered) for tempered in (False, True)}
"""Fill `partials` [tiles, PARTIALS] for a row x; keep the exponentials in e_out if asked to."""


@inlined
def shortfall(x, first, count, maximum, weights, weighted, tile_weight):
    """Return sum_j w_j (maximum - x_j) over a tile, where its maximum may be -inf."""
    if maximum == -np.inf:
        return np.inf if tile_weight > 0.0 else 0.0
    return tile_shortfall(x, first, count, maximum, weights, first, weighted)


@inlined
def inv_temperature_of(task):
    """Return 1 / temperature in two parts, the first one rounded to the type of computation."""
    return task.inv_temperature_hi, task.inv_temperature_lo


@inlined
def tempered_gap(x, m, inv_temperature):
    """Return (x - m) / temperature as an unevaluated sum of two float64."""
    difference, rest = two_sum(x, -m)
    high, low = inv_temperature
    product = difference * high
    error = fma(difference, high, 0.0 - product)
    return product, error + (difference * low + rest * high)


@inlined
def gap_for(like, x, m, inv_temperature):
    """Return `tempered_gap` of lanes; for elements of float32 its second part is 0."""
    if is_single(like):
        return (x - m) * inv_temperature[0], spread(0.0)
    return tempered_gap(x, m, inv_temperature)


@inlined
def tempered(inv_temperature, value):
    """Return value / temperature."""
    high, low = inv_temperature
    product = value * high
    return product + value * low if abs(product) < np.inf else product


@inlined
def penalty(z_loss, lse):
    """Return z_loss lse^2, also where the square alone overflows; for one float64 or lanes."""
    square = lse * lse
    return select(square < np.inf, z_loss * square, (z_loss * lse) * lse)


class Softmax(NamedTuple):
    """Softmax of a row, in float64."""

    m: Any
    """The largest logit."""
    S: Any
    """The sum of all exp((x - m) / temperature) but one maximum's."""
    D: Any
    """1 + S, rounded, and what that leaves."""
    D_low: Any
    log_D: Any  # noqa: N815
    lse: Any
    """The log-normaliser."""


@inlined
def combine(partials, inv_temperature):
    """Return the softmax of a row from its tiles; without one, m is not finite or S not >= 0."""
    m = partials[0]
    for t in range(1, partials.size // PARTIALS):
        m = max(m, partials[t * PARTIALS + MAXIMUM])
    total, low, ties = 0.0, 0.0, 0.0
    for t in range(partials.size // PARTIALS):
        if partials[t * PARTIALS + MAXIMUM] == m:
            ties += partials[t * PARTIALS + TIES]
            total, error = two_sum(total, partials[t * PARTIALS + OTHERS])
        else:
            gap, gap_low = tempered_gap(partials[t * PARTIALS + MAXIMUM], m, inv_temperature)
            factor = exp_scaled(gap, gap_low, 0.0)
            total, error = two_sum(
                total, (partials[t * PARTIALS + OTHERS] + partials[t * PARTIALS + TIES]) * factor
            )
        low += error
    total, error = two_sum(total, ties - 1.0)
    S = total + (low + error)
    D, D_low = two_sum(1.0, S)
    log_D = log1p(S)
    return Softmax(m, S, D, D_low, log_D, tempered(inv_temperature, m) + log_D)


@inlined
def combine_shortfalls(partials, tile_weights, m):
    """Return sum_j w_j (m - x_j) of a row."""
    total, low = 0.0, 0.0
    for t in range(partials.size // PARTIALS):
        term = partials[t * PARTIALS + SHORTFALL]
        if tile_weights[t] > 0.0 and partials[t * PARTIALS + MAXIMUM] < m:
            term += tile_weights[t] * (m - partials[t * PARTIALS + MAXIMUM])
        total, error = two_sum(total, term)
        low += error
    return total + low if total < np.inf else total


def _fill_shares(tempered: bool) -> Any:
    @inlined
    def fill_shares(partials, s, inv_temperature, x):
        for t in range(partials.size // PARTIALS):
            unit, unit_low = partials[t * PARTIALS + UNIT], partials[t * PARTIALS + UNIT_LOW]
            if partials[t * PARTIALS + MAXIMUM] != s.m:
                centre, exponent = reference(partials[t * PARTIALS + MAXIMUM], x)
                exponent = exponent + format_of(x).headroom
                if tempered and partials[t * PARTIALS + MAXIMUM] > -np.inf:
                    centre, exponent = partials[t * PARTIALS + MAXIMUM], 0.0
                gap, gap_low = tempered_gap(centre, s.m, inv_temperature)
                unit, unit_low = exp_pair(gap, gap_low, exponent)
            share, share_low = divide_pair(unit, unit_low, s.D, s.D_low)
            partials[t * PARTIALS + UNIT], partials[t * PARTIALS + UNIT_LOW] = share, share_low

    return fill_shares


fill_shares = {tempered: _fill_shares(tempered) for tempered in (False, True)}
"""Put into each tile's partials, in two parts, p_j over the kept exponential less its headroom, in
the place of what relates that to the tile's own maximum."""


@inlined
def share_of(partials, t):
    """Return what `fill_shares` has left for a tile."""
    return partials[t * PARTIALS + UNIT], partials[t * PARTIALS + UNIT_LOW]


@inlined
def out_of_range(factor, out):
    """Whether a factor, less the headroom of exponentials, leaves the elements' normal range."""
    fmt = format_of(out)
    highest = 2.0 ** (fmt.exponent_bias - 1.0)
    lowest = 2.0 ** (fmt.headroom - fmt.exponent_bias + 1.0)
    magnitude = select(factor < 0.0, 0.0 - factor, factor)
    return (magnitude > highest) | ((magnitude > 0.0) & (magnitude < lowest))
