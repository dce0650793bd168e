"""One row: pass A over its tiles, a few scalars, pass B, then the elements that need more care.

Pass A leaves for each tile (m_t, c_t, S_t): its largest logit, how many logits equal it, and the
sum of the others' exp(x - m_t). Everything else follows from these in float64; see
docs/derivation.md for the forms. The gradient is one linear map of the exponentials, a e_j - b w_j;
only the label and, where the target is spread over all classes, a dominating maximum are then
put right.
"""

from __future__ import annotations

import numpy as np

from softxent.compiled.compilation import inlined
from softxent.compiled.elementary import (
    divide_pair,
    exp_pair,
    exp_scaled,
    format_of,
    log1p,
    two_sum,
)
from softxent.compiled.lanes import fma, narrow, select
from softxent.compiled.tiles import (
    find,
    reference,
    tile_exponentials,
    tile_exponentials_kept,
    tile_maximum,
    tile_shortfall,
    write_all,
    write_difference,
    write_scaled,
    write_wide,
)

TILE = 4096
PARTIALS = 7
"""Values kept for a tile: m_t, c_t, S_t, the shortfall, in two parts what turns a kept exponential,
less its headroom, into exp(x - m_t), and the kept exponential of m_t."""


@inlined
def pass_a(x, begin, classes, class_weights, tile_weights, smoothed, partials, e_out, keep):
    """Fill `partials` [tiles, PARTIALS] for the row that begins at x[begin]; keep exponentials."""
    weighted = class_weights.size > 0
    headroom = format_of(x).headroom
    lift = 2.0**-headroom
    for t in range(partials.shape[0]):
        first = t * TILE
        count = min(TILE, classes - first)
        maximum = tile_maximum(x, begin + first, count)
        if smoothed:
            partials[t, 3] = shortfall(
                x, begin + first, count, maximum, class_weights, first, weighted, tile_weights[t]
            )
        centre, exponent = reference(maximum, x)
        if keep:
            ties, others, peak = tile_exponentials_kept(
                x, begin + first, count, maximum, centre, exponent, e_out
            )
        else:
            ties, others, peak = tile_exponentials(
                x, begin + first, count, maximum, centre, exponent, e_out
            )
        unit, unit_low = 0.0, 0.0
        if maximum > -np.inf:
            unit, unit_low = exp_pair(centre - maximum, 0.0, exponent + headroom)
        partials[t, 0] = maximum
        partials[t, 1] = ties
        partials[t, 2] = fma(others, unit * lift, others * (unit_low * lift))
        partials[t, 4] = unit
        partials[t, 5] = unit_low
        partials[t, 6] = peak


@inlined
def shortfall(x, begin, count, maximum, weights, weights_begin, weighted, tile_weight):
    """Return sum_j w_j (maximum - x_j) over a tile, where its maximum may be -inf."""
    if maximum == -np.inf:
        return np.inf if tile_weight > 0.0 else 0.0
    return tile_shortfall(x, begin, count, maximum, weights, weights_begin, weighted)


@inlined
def combine(partials):
    """Return the row's maximum m and S, the sum of exp(x - m) without one maximum."""
    m = partials[0, 0]
    for t in range(1, partials.shape[0]):
        m = max(m, partials[t, 0])
    total, low, ties = 0.0, 0.0, 0.0
    for t in range(partials.shape[0]):
        if partials[t, 0] == m:
            ties += partials[t, 1]
            total, error = two_sum(total, partials[t, 2])
        else:
            difference, rest = two_sum(partials[t, 0], -m)
            factor = exp_scaled(difference, rest, 0.0)
            total, error = two_sum(total, (partials[t, 2] + partials[t, 1]) * factor)
        low += error
    total, error = two_sum(total, ties - 1.0)
    return m, total + (low + error)


@inlined
def combine_shortfalls(partials, tile_weights, m):
    """Return sum_j w_j (m - x_j) of a row."""
    total, low = 0.0, 0.0
    for t in range(partials.shape[0]):
        term = partials[t, 3]
        if tile_weights[t] > 0.0 and partials[t, 0] < m:
            term += tile_weights[t] * (m - partials[t, 0])
        total, error = two_sum(total, term)
        low += error
    return total + low if total < np.inf else total


@inlined
def tile_share(partials, t, m, D, D_low, x):
    """Return, in two parts, p_j over the kept exponential less its headroom, for a tile."""
    unit, unit_low = partials[t, 4], partials[t, 5]
    if partials[t, 0] != m:
        centre, exponent = reference(partials[t, 0], x)
        difference, rest = two_sum(centre, -m)
        unit, unit_low = exp_pair(difference, rest, exponent + format_of(x).headroom)
    return divide_pair(unit, unit_low, D, D_low)


@inlined
def pass_b(x, begin, classes, m, D, D_low, partials, mass, b, class_weights, e, out):
    """Write mass p_j - b w_j from the kept exponentials; e and out may be one array.

    Where p_j is the largest it is 1 / D, not a rounded exponential times a rounded factor: equal
    logits have equal shares to the last bit.
    """
    weighted = class_weights.size > 0
    largest, largest_low = divide_pair(1.0, 0.0, D, D_low)
    at_peak = fma(mass, largest, mass * largest_low)
    for t in range(partials.shape[0]):
        first = t * TILE
        at = begin + first
        count = min(TILE, classes - first)
        share, low = tile_share(partials, t, m, D, D_low, x)
        a = fma(mass, share, mass * low)
        peak = partials[t, 6] if partials[t, 0] == m else np.nan
        if out_of_range(a, out) or out_of_range(b, out):
            write_wide(e, at, count, a, b, class_weights, first, weighted, out)
        elif b == 0.0:
            write_scaled(e, at, count, a, peak, at_peak, out)
        else:
            write_difference(e, at, count, a, peak, at_peak, b, class_weights, first, weighted, out)


@inlined
def out_of_range(factor, out):
    """Whether a factor, less the headroom of exponentials, leaves the elements' normal range."""
    fmt = format_of(out)
    highest = 2.0 ** (fmt.exponent_bias - 1.0)
    lowest = 2.0 ** (fmt.headroom - fmt.exponent_bias + 1.0)
    magnitude = select(factor < 0.0, 0.0 - factor, factor)
    return (magnitude > highest) | ((magnitude > 0.0) & (magnitude < lowest))


@inlined
def evaluate_row(
    x,
    begin,
    classes,
    label,
    row_weight,
    class_weights,
    other_weights,
    tile_weights,
    smoothing,
    scale,
    divisor,
    partials,
    row,
    loss_out,
    gradient_out,
    log_normalizer_out,
    probabilities_out,
):
    """Evaluate one row that is not ignored.

    `smoothing` is eps, `other_weights[k]` the sum of all class weights but w_k, empty (as
    `class_weights`) where every weight is 1. `partials` is scratch.
    """
    weighted = class_weights.size > 0
    wants_gradient = gradient_out.size > 0
    wants_probabilities = probabilities_out.size > 0
    e_out = gradient_out if wants_gradient else probabilities_out
    z = np.float64(x[begin + label])
    pass_a(
        x,
        begin,
        classes,
        class_weights,
        tile_weights,
        smoothing > 0.0,
        partials,
        e_out,
        wants_gradient or wants_probabilities,
    )
    m, S = combine(partials)
    if not (abs(m) < np.inf and S >= 0.0):
        loss_out[row] = np.nan
        if log_normalizer_out.size > 0:
            log_normalizer_out[row] = np.nan
        if wants_gradient:
            write_all(gradient_out, begin, classes, np.nan)
        if wants_probabilities:
            write_all(probabilities_out, begin, classes, np.nan)
        return

    spread_mass = smoothing / classes
    label_weight = class_weights[label] if weighted else 1.0
    label_others = other_weights[label] if weighted else classes - 1.0
    spread_sum = combine_shortfalls(partials, tile_weights, m) if spread_mass > 0.0 else 0.0
    D, D_low = two_sum(1.0, S)
    log_D, mass, label_mass, loss = loss_terms(
        m, S, z, spread_sum, label_weight, label_others, smoothing, spread_mass, weighted
    )
    loss_out[row] = narrow(loss * (row_weight * scale) + 0.0, loss_out)
    if log_normalizer_out.size > 0:
        log_normalizer_out[row] = narrow(m + log_D, log_normalizer_out)
    if wants_probabilities:
        pass_b(
            x, begin, classes, m, D, D_low, partials, 1.0, 0.0, class_weights, e_out,
            probabilities_out,
        )  # fmt: skip
    if wants_gradient:
        factor = row_weight * scale / divisor
        share, share_low = tile_share(partials, label // TILE, m, D, D_low, x)
        lift = 2.0 ** -format_of(x).headroom
        p = (np.float64(gradient_out[begin + label]) * lift) * (share + share_low)
        at_label = label_gradient(
            z == m, S, D, p, mass, label_mass, label_weight, label_others, spread_mass
        )
        top = -1
        if spread_mass > 0.0 and S < 1.0 and z < m:
            top = find_maximum(begin, classes, m, partials, gradient_out)
        pass_b(
            x, begin, classes, m, D, D_low, partials, factor * mass, factor * spread_mass,
            class_weights, gradient_out, gradient_out,
        )  # fmt: skip
        gradient_out[begin + label] = narrow(factor * at_label + 0.0, gradient_out)
        if top >= 0:
            rest = spread_mass * (other_weights[top - begin] if weighted else classes - 1.0)
            at_top = (label_mass + rest) - mass * (S / D)
            gradient_out[top] = narrow(factor * at_top + 0.0, gradient_out)


@inlined
def loss_terms(m, S, z, shortfall, label_weight, label_others, smoothing, spread_mass, weighted):
    """Return log D, the total T of the target, the label's own part of T, and the loss.

    For one row or for rows in lanes. z is the label's logit, `shortfall` sum_j w_j (m - x_j),
    `label_others` the sum of all class weights but the label's, `spread_mass` eps / C.
    """
    log_D = log1p(S)
    label_mass = label_weight * (1.0 - smoothing)
    mass = label_mass + (spread_mass * label_weight + spread_mass * label_others)
    if not weighted:
        mass = label_mass * 0.0 + 1.0
    loss = mass * log_D + select(label_mass > 0.0, label_mass * (m - z), 0.0)
    if spread_mass > 0.0:
        loss = loss + spread_mass * shortfall
    return log_D, mass, label_mass, loss


@inlined
def label_gradient(at_maximum, S, D, p, mass, label_mass, label_weight, label_others, spread_mass):
    """Return the gradient at the label, T p - t, from 1 - p = S / D where it is the maximum."""
    dominating = spread_mass * label_others - mass * (S / D)
    if spread_mass == 0.0:
        return select(at_maximum, dominating, mass * (p - 1.0))
    elsewhere = mass * p - (label_mass + spread_mass * label_weight)
    return select(at_maximum & (S < 1.0), dominating, elsewhere)


@inlined
def find_maximum(begin, classes, m, partials, e):
    """Return where the only maximum of a row stands, from its kept exponentials."""
    t = 0
    while partials[t, 0] != m:
        t += 1
    first = t * TILE
    return find(e, begin + first, min(TILE, classes - first), partials[t, 6])
