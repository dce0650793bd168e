"""One row: pass A over its tiles, a few scalars, pass B, then the elements that need more care.

Pass A leaves for each tile (m_t, c_t, S_t): its largest logit, how many logits equal it, and the
sum of the others' exp((x - m_t) / temperature). Everything else follows from these in float64; see
docs/derivation.md for the forms. The gradient is one linear map of the exponentials, a e_j - b w_j;
only the target's entries and, where the target is spread over all classes, a dominating maximum
are then put right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from softxent.compiled.memory import as_input
from softxent.compiled.targets import mass_but, read_target
from softxent.compiled.tiles import (
    TILE,
    find,
    reference,
    tile_exponentials,
    tile_maximum,
    tile_shortfall,
    write_all,
    write_difference,
    write_scaled,
    write_wide,
)
from softxent.compiled.transform import apply_slope, transform_row

PARTIALS = 7
"""Values kept for a tile: m_t, c_t, S_t, the shortfall, in two parts what turns a kept exponential,
less its headroom, into exp(x - m_t), and the kept exponential of m_t."""


def _pass_a(tempered: bool) -> Any:
    kept = tile_exponentials[True, tempered]
    unkept = tile_exponentials[False, tempered]

    @inlined
    def pass_a(x, classes, inverse, inverse_low, weights, tile_weights, u, partials, e_out, keep):
        weighted = weights.size > 0
        headroom = format_of(x).headroom
        lift = 2.0**-headroom
        for t in range(partials.shape[0]):
            first = t * TILE
            count = min(TILE, classes - first)
            maximum = tile_maximum(x, first, count)
            if u > 0.0:
                partials[t, 3] = shortfall(
                    x, first, count, maximum, weights, weighted, tile_weights[t]
                )
            centre, exponent = reference(maximum, x)
            if tempered and maximum > -np.inf:
                centre, exponent = maximum, 0.0 - headroom
            if keep:
                ties, others, peak = kept(
                    x, first, count, maximum, centre, exponent, inverse, inverse_low, e_out
                )
            else:
                ties, others, peak = unkept(
                    x, first, count, maximum, centre, exponent, inverse, inverse_low, e_out
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
def tempered_gap(difference, rest, inverse, inverse_low):
    """Return (difference + rest) / temperature as an unevaluated sum of two float64."""
    product = difference * inverse
    low = fma(difference, inverse, 0.0 - product)
    return product, low + (difference * inverse_low + rest * inverse)


@inlined
def combine(partials, inverse, inverse_low):
    """Return the maximum m and S, the sum of all exp((x - m) / temperature) but one maximum's."""
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
            gap, gap_low = tempered_gap(difference, rest, inverse, inverse_low)
            factor = exp_scaled(gap, gap_low, 0.0)
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


def _tile_share(tempered: bool) -> Any:
    @inlined
    def tile_share(partials, t, m, D, D_low, inverse, inverse_low, x):
        unit, unit_low = partials[t, 4], partials[t, 5]
        if partials[t, 0] != m:
            centre, exponent = reference(partials[t, 0], x)
            exponent = exponent + format_of(x).headroom
            if tempered and partials[t, 0] > -np.inf:
                centre, exponent = partials[t, 0], 0.0
            difference, rest = two_sum(centre, -m)
            gap, gap_low = tempered_gap(difference, rest, inverse, inverse_low)
            unit, unit_low = exp_pair(gap, gap_low, exponent)
        return divide_pair(unit, unit_low, D, D_low)

    return tile_share


tile_share = {tempered: _tile_share(tempered) for tempered in (False, True)}
"""Return, in two parts, p_j over the kept exponential less its headroom, for a tile."""


@inlined
def out_of_range(factor, out):
    """Whether a factor, less the headroom of exponentials, leaves the elements' normal range."""
    fmt = format_of(out)
    highest = 2.0 ** (fmt.exponent_bias - 1.0)
    lowest = 2.0 ** (fmt.headroom - fmt.exponent_bias + 1.0)
    magnitude = select(factor < 0.0, 0.0 - factor, factor)
    return (magnitude > highest) | ((magnitude > 0.0) & (magnitude < lowest))


class Scratch(NamedTuple):
    """Room for one row; what a task does not need is empty."""

    partials: Any
    """float64 [tiles, PARTIALS]."""
    indices: Any
    """int64 [K + 1]: the classes of the target's entries."""
    masses: Any
    """float64 [K + 1]: their masses."""
    logits: Any
    """float64 [K + 1]: their logits."""
    powers: Any
    """float64 [K + 1]: their probabilities."""
    written: Any
    """float64 [C + tiles]: a target that is written out, then its sum over each tile."""
    z: Any
    """[C]: transformed logits."""
    slope: Any
    """[C]: the derivative of z by the logits."""


def _evaluate_row(transformed: bool) -> Any:
    first_pass = pass_a[transformed]
    share_of = tile_share[transformed]

    @inlined
    def pass_b(x, classes, inverse, inverse_low, m, D, D_low, partials, mass, b, weights, e, out):
        weighted = weights.size > 0
        largest, largest_low = divide_pair(1.0, 0.0, D, D_low)
        # Where p_j is the largest it is 1 / D, not a rounded exponential times a rounded factor:
        # equal logits have equal shares to the last bit.
        at_peak = fma(mass, largest, mass * largest_low)
        for t in range(partials.shape[0]):
            first = t * TILE
            count = min(TILE, classes - first)
            share, low = share_of(partials, t, m, D, D_low, inverse, inverse_low, x)
            a = fma(mass, share, mass * low)
            peak = partials[t, 6] if partials[t, 0] == m else np.nan
            if out_of_range(a, out) or out_of_range(b, out):
                write_wide(e, first, count, a, b, weights, first, weighted, out)
            elif b == 0.0:
                write_scaled(e, first, count, a, peak, at_peak, out)
            else:
                write_difference(
                    e, first, count, a, peak, at_peak, b, weights, first, weighted, out
                )

    @inlined
    def entry_probabilities(inverse, inverse_low, x, m, D, D_low, target, e, scratch):
        lift = 2.0 ** -format_of(x).headroom
        for i in range(target.count):
            k = scratch.indices[i]
            share, low = share_of(scratch.partials, k // TILE, m, D, D_low, inverse, inverse_low, x)
            scratch.powers[i] = (np.float64(e[k]) * lift) * (share + low)

    @inlined
    def outside_bucket(task, x, target, scratch):
        for i in range(target.named):
            scratch.z[scratch.indices[i]] = -np.inf
        first_pass(
            x, task.classes, task.inverse, task.inverse_low, task.class_weights,
            task.tile_weights, 0.0, scratch.partials, scratch.z, False,
        )  # fmt: skip
        for i in range(target.named):
            scratch.z[scratch.indices[i]] = scratch.logits[i]
        return combine(scratch.partials, task.inverse, task.inverse_low)

    @inlined
    def evaluate_row(task, row, row_weight, scratch):
        classes = task.classes
        begin = row * classes
        x = as_input(task.logits[begin : begin + classes])
        gradient_out = task.gradient_out[begin : begin + classes]
        probabilities_out = task.probabilities_out[begin : begin + classes]
        wants_gradient = gradient_out.size > 0
        wants_probabilities = probabilities_out.size > 0
        e_out = gradient_out if wants_gradient else probabilities_out
        partials = scratch.partials
        if transformed:
            transform_row(task, row, x, scratch.z, scratch.slope)
            x = as_input(scratch.z)
        target = read_target(task, row, scratch.indices, scratch.masses, scratch.written)
        weights, tile_weights = target_weights(task, scratch)
        written_out, other_weights = scratch.written.size > 0, task.other_weights
        for i in range(target.count):
            scratch.logits[i] = x[scratch.indices[i]]
        outside, outside_sum = -np.inf, 0.0
        if transformed and target.rest > 0.0:
            outside, outside_sum = outside_bucket(task, x, target, scratch)
        first_pass(
            x, classes, task.inverse, task.inverse_low, weights, tile_weights, target.u, partials,
            e_out, wants_gradient or wants_probabilities,
        )  # fmt: skip
        m, S = combine(partials, task.inverse, task.inverse_low)
        if not (abs(m) < np.inf and S >= 0.0):
            write_invalid(task, row)
            return

        D, D_low = two_sum(1.0, S)
        log_D = log1p(S)
        lse = m + log_D
        paid = target.mass if target.rest == 0.0 else target.entry_mass
        loss = paid * log_D + entry_loss(task.inverse, task.inverse_low, target, m, scratch)
        if target.u > 0.0:
            spread_loss = target.u * combine_shortfalls(partials, tile_weights, m)
            loss = loss + (
                tempered(task.inverse, task.inverse_low, spread_loss)
                if transformed
                else spread_loss
            )
        if transformed:
            lse = tempered(task.inverse, task.inverse_low, m) + log_D
        outside_share = 1.0
        if transformed and target.rest > 0.0:
            bucket_loss, outside_share = bucket(
                task.inverse, task.inverse_low, target, m, D, outside, outside_sum, scratch
            )
            loss = loss + bucket_loss
        if task.z_loss > 0.0:
            loss = loss + task.z_loss * (lse * lse)
        task.loss_out[row] = narrow(loss * (row_weight * task.scale) + 0.0, task.loss_out)
        if task.log_normalizer_out.size > 0:
            task.log_normalizer_out[row] = narrow(lse, task.log_normalizer_out)
        if wants_probabilities:
            pass_b(
                x, classes, task.inverse, task.inverse_low, m, D, D_low, partials, 1.0, 0.0, weights,
                e_out, probabilities_out,
            )  # fmt: skip
        if wants_gradient:
            factor = row_weight * task.scale / task.divisor
            if transformed:
                factor = tempered(task.inverse, task.inverse_low, factor)
            entry_probabilities(
                task.inverse, task.inverse_low, x, m, D, D_low, target, gradient_out, scratch
            )
            top = -1
            if target.u > 0.0 and S < 1.0 and not is_entry_maximum(target, m, scratch):
                top = find_maximum(classes, m, partials, gradient_out)
            extra = 2.0 * task.z_loss * lse if task.z_loss > 0.0 else 0.0
            bucket_part = target.rest / outside_share if target.rest > 0.0 else 0.0
            pass_b(
                x, classes, task.inverse, task.inverse_low, m, D, D_low, partials, factor * ((target.mass + extra) - bucket_part),
                factor * target.u, weights, gradient_out, gradient_out,
            )  # fmt: skip
            for i in range(target.count):
                named = i < target.named
                at_entry = entry_gradient(
                    classes, other_weights, written_out, target, i, m, S, D, 0.0 if named else bucket_part, weights, tile_weights,
                    scratch,
                )  # fmt: skip
                if task.z_loss > 0.0:
                    at_entry = at_entry + extra * scratch.powers[i]
                k = scratch.indices[i]
                gradient_out[k] = narrow(factor * at_entry + 0.0, gradient_out)
            if top >= 0:
                at_top = mass_but(
                    classes,
                    other_weights,
                    written_out,
                    target,
                    scratch.masses,
                    -1,
                    weights,
                    tile_weights,
                    top,
                )
                at_top = at_top - target.mass * (S / D)
                if task.z_loss > 0.0:
                    at_top = at_top + extra * (1.0 / D)
                gradient_out[top] = narrow(factor * at_top + 0.0, gradient_out)
            if transformed and task.softcap > 0.0:
                apply_slope(gradient_out, scratch.slope, classes)

    return evaluate_row


evaluate_row = {transformed: _evaluate_row(transformed) for transformed in (False, True)}
"""Evaluate one row that is not ignored, of a task with or without transformed logits."""


@inlined
def target_weights(task, scratch):
    """Return w of the target's form, and its sum over each tile."""
    if scratch.written.size > 0:
        return as_input(scratch.written[: task.classes]), as_input(scratch.written[task.classes :])
    return task.class_weights, task.tile_weights


@inlined
def write_invalid(task, row):
    """Write a row whose logits hold a NaN, or have no finite maximum."""
    task.loss_out[row] = np.nan
    if task.log_normalizer_out.size > 0:
        task.log_normalizer_out[row] = np.nan
    if task.gradient_out.size > 0:
        write_all(task.gradient_out, row * task.classes, task.classes, np.nan)
    if task.probabilities_out.size > 0:
        write_all(task.probabilities_out, row * task.classes, task.classes, np.nan)


@inlined
def tempered(inverse, inverse_low, value):
    """Return value / temperature."""
    product = value * inverse
    return product + value * inverse_low if abs(product) < np.inf else product


@inlined
def entry_loss(inverse, inverse_low, target, m, scratch):
    """Return the sum of mass (m - z) / temperature over the target's entries."""
    total, low = 0.0, 0.0
    for i in range(target.count):
        if scratch.masses[i] > 0.0:
            term = scratch.masses[i] * tempered(inverse, inverse_low, m - scratch.logits[i])
            total, error = two_sum(total, term)
            low += error if total < np.inf else 0.0
    return total + low


@inlined
def bucket(inverse, inverse_low, target, m, D, outside, outside_sum, scratch):
    """Return -rest log P and P, the probability of all classes that the target does not name."""
    if outside == -np.inf:
        return np.inf, 0.0
    difference, rest = two_sum(outside, -m)
    gap, gap_low = tempered_gap(difference, rest, inverse, inverse_low)
    without = (1.0 + outside_sum) * exp_scaled(gap, gap_low, 0.0)
    named, low = 0.0, 0.0
    for i in range(target.named):
        difference, rest = two_sum(scratch.logits[i], -m)
        gap, gap_low = tempered_gap(difference, rest, inverse, inverse_low)
        named, error = two_sum(named, exp_scaled(gap, gap_low, 0.0))
        low += error
    ratio = (named + low) / without
    loss = target.rest * log1p(ratio) if ratio < 2.0**1000 else np.inf
    return loss, without / D


@inlined
def is_entry_maximum(target, m, scratch):
    """Whether an entry of the target has the largest logit."""
    found = False
    for i in range(target.count):
        found = found or scratch.logits[i] == m
    return found


@inlined
def entry_gradient(
    classes,
    other_weights,
    written_out,
    target,
    i,
    m,
    S,
    D,
    bucket_part,
    weights,
    tile_weights,
    scratch,
):
    """Return T p - t at an entry, at a maximum from 1 - p = S / D."""
    k = scratch.indices[i]
    p = scratch.powers[i]
    alone = target.count == 1 and target.u == 0.0 and target.rest == 0.0
    if scratch.logits[i] == m and (S < 1.0 or alone):
        rest = mass_but(
            classes, other_weights, written_out, target, scratch.masses, i, weights, tile_weights, k
        )
        return (rest - target.mass * (S / D)) - bucket_part * p
    if alone:
        return target.mass * (p - 1.0)
    own = scratch.masses[i]
    if target.u > 0.0:
        own = own + target.u * (weights[k] if weights.size > 0 else 1.0)
    return (target.mass - bucket_part) * p - own


@inlined
def find_maximum(classes, m, partials, e):
    """Return where the only maximum of a row stands, from its kept exponentials."""
    t = 0
    while partials[t, 0] != m:
        t += 1
    first = t * TILE
    return find(e, first, min(TILE, classes - first), partials[t, 6])
