"""Rows of a few classes, sixteen of them at a time in the lanes of a vector.

A row of ten classes would leave most lanes of a step idle and pay for its scalars alone. Here
lane r belongs to row r: the logits of sixteen rows are transposed into scratch, every formula is
the one of `rows`, applied to lanes, and the results are transposed back. A lane never looks at
another, so a row's bits depend neither on its neighbours nor on there being sixteen of them.
Which layout a batch takes depends on its number of classes alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import (
    divide_for,
    exp_unit,
    format_of,
    log1p,
    times_for,
    two_sum,
)
from softxent._kernels.math.lane_reductions import add_lanes, any_lane
from softxent._kernels.row.softmax import FAR, out_of_range, penalty
from softxent._kernels.row.tiles import exponentials, reference
from softxent._kernels.simd.lanes import (
    LANES,
    cast_down,
    fma,
    select,
    spread,
    spread_as,
    to_float64,
    to_int32,
)
from softxent._kernels.simd.memory import first_lanes, load, load_first, store, store_first
from softxent._kernels.simd.transposing import columns_from, columns_to

NARROW = 32
"""Up to this many classes, rows stand in lanes."""


class Target(NamedTuple):
    """Targets of sixteen rows: lanes of float64, but for label and taken."""

    taken: Any
    """Whether there is a row, and it is not ignored."""
    label: Any
    """int32; -1 where there is none."""
    own: Any
    """The label's mass without its share of smoothing's."""
    weight: Any
    """The label's class weight."""
    others: Any
    """The sum of all class weights but that."""
    mass: Any
    """T."""
    factor: Any
    """Row weight times scale."""


class PassA(NamedTuple):
    """Results of a pass over the logits of sixteen rows: lanes of float64, but for the peak."""

    maximum: Any
    ties: Any
    others: Any
    """The sum of the exponentials of all that are not the maximum."""
    unit: Any
    """What turns an exponential, less its headroom, into exp(x - maximum), in two parts."""
    unit_low: Any
    peak: Any
    """The exponential of the maximum, as it is kept."""
    label_logit: Any
    label_power: Any


class Linear(NamedTuple):
    """An output as a linear map of the exponentials, and where it is not: lanes of float64."""

    a: Any
    b: Any
    """Element j is a e_j, less the headroom, - b w_j,"""
    at_peak: Any
    """at the maximum this - b w_j,"""
    label: Any
    at_label: Any
    """and at the label this."""
    dominated: Any
    """Where smoothing's mass meets a maximum of more than 1/2 that is not the label, it is"""
    factor: Any
    own: Any
    top_share: Any
    """factor (own + what smoothing gives the other classes - top_share)."""


@inlined
def evaluate_group(task, first, rows, z, e):
    """Evaluate rows first .. first + rows, at most LANES of them.

    Scratch: z and e [columns * LANES] of the logits' dtype, C rounded up to a multiple of LANES.
    """
    classes = task.classes
    target = read_group(task, first, rows)
    for j in range(0, classes, LANES):
        columns_from(
            task.logits, first * classes + j, classes, min(LANES, classes - j), target.taken,
            z, j * LANES,
        )  # fmt: skip
    found = group_pass_a(z, e, classes, target.label)
    m = found.maximum
    lift = 2.0 ** -format_of(z).headroom
    S = (found.ties - 1.0) + (
        fma(found.others, found.unit * lift, found.others * (found.unit_low * lift))
    )
    valid = (m < np.inf) & (m > -np.inf) & (S > -1.0)
    nan = spread(np.nan)
    D, D_low = two_sum(1.0, S)
    log_D = log1p(S)
    lse = m + log_D
    loss = group_loss(task, z, m, log_D, found.label_logit, target)
    if task.z_loss > 0.0:
        loss = loss + penalty(task.z_loss, lse)
    loss = group_times_factor(task, loss, m, log_D, found.label_logit, target)
    loss = select(valid, loss + 0.0, nan)
    write_values(task.loss_out, first, rows, target.taken, loss)
    if task.log_normalizer_out.size > 0:
        write_values(task.log_normalizer_out, first, rows, target.taken, select(valid, lse, nan))
    share, share_low = divide_for(z, found.unit, found.unit_low, D, D_low)
    largest, largest_low = divide_for(z, spread(1.0), spread(0.0), D, D_low)
    if task.probabilities_out.size > 0:
        mass = select(valid, spread(1.0), nan)
        zero = spread(0.0)
        linear = Linear(
            times_for(z, mass, share, share_low), zero, times_for(z, mass, largest, largest_low),
            spread(np.int32(-1)), zero, S < -2.0, zero, zero, zero,
        )  # fmt: skip
        group_pass_b(task, e, z, found.peak, linear)
        write_rows(z, first, rows, target.taken, task.probabilities_out, classes)
    if task.gradient_out.size > 0:
        factor = target.factor
        if task.divisor != 1.0:
            factor = factor / task.divisor
        mass = target.mass
        p = (found.label_power * lift) * (share + share_low)
        rest = S / D
        at_label = label_gradient(
            found.label_logit == m, S < 1.0, rest, p, target, task.spread_mass
        )
        top_share = mass * rest
        if task.z_loss > 0.0:
            extra = 2.0 * task.z_loss * lse
            at_label = at_label + extra * p
            top_share = top_share - extra * (1.0 / D)
            mass = mass + extra
        at_label = select(valid, factor * at_label + 0.0, nan)
        mass = select(valid, factor * mass, nan)
        linear = Linear(
            times_for(z, mass, share, share_low), factor * task.spread_mass,
            times_for(z, mass, largest, largest_low), target.label, at_label,
            (S < 1.0) & (found.label_logit < m), factor, target.own, top_share,
        )  # fmt: skip
        group_pass_b(task, e, e, found.peak, linear)
        write_rows(e, first, rows, target.taken, task.gradient_out, classes)


@inlined
def read_group(task, first, rows):
    """Return the targets of some rows."""
    taken = first_lanes(rows)
    label = spread(np.int32(-1))
    own, weight, others = spread(0.0), spread(0.0), spread(task.classes - 1.0)
    if task.labels.size > 0:
        given = load_first(task.labels, first, rows, -1)
        if task.ignores:
            taken = taken & (given != task.ignore_index)
        label = to_int32(given)
        weight = spread(1.0)
        if task.class_weights.size > 0:
            for j in range(task.classes):
                at_label = label == j
                weight = select(at_label, task.class_weights[j], weight)
                others = select(at_label, task.other_weights[j], others)
        own = weight * (1.0 - task.smoothing)
    factor = spread(task.scale)
    if task.row_weights.size > 0:
        row_weight = load_first(task.row_weights, first, rows, 0.0)
        taken = taken & (row_weight > 0.0)
        factor = row_weight * task.scale
    mass = spread(1.0)
    if task.class_weights.size > 0:
        mass = own + (task.spread_mass * weight + task.spread_mass * others)
    return Target(taken, label, own, weight, others, mass, factor)


@inlined
def group_loss(task, x, m, log_D, label_logit, target):
    """Return T log D + sum_j t_j (m - x_j) in lanes.

    Without a label there is no loss to speak of: log D, which is finite, stands for it.
    """
    loss = target.mass * log_D
    loss = loss + select(target.own > 0.0, target.own * (m - label_logit), 0.0)
    if task.spread_mass > 0.0:
        loss = loss + task.spread_mass * group_shortfall(x, task.classes, m, task.class_weights)
    return loss


@inlined
def group_times_factor(task, loss, m, log_D, label_logit, target):
    """Do `rows.times_factor` in lanes."""
    product = loss * target.factor
    if task.spread_mass > 0.0 or task.z_loss > 0.0 or not any_lane(loss == np.inf):
        return product
    unit = 2.0**-FAR
    below = select(target.own > 0.0, target.own * (m * unit - label_logit * unit), 0.0)
    far = (target.mass * unit * log_D + below) * (target.factor * 2.0**FAR)
    return select(loss == np.inf, far, product)


@inlined
def label_gradient(at_maximum, dominating, rest, p, target, spread_mass):
    """Return the gradient at the label, T p - t, from `rest`, 1 - p, where it is the maximum."""
    from_rest = spread_mass * target.others - target.mass * rest
    if spread_mass == 0.0:
        return select(at_maximum, from_rest, target.mass * (p - 1.0))
    elsewhere = target.mass * p - (target.own + spread_mass * target.weight)
    return select(at_maximum & dominating, from_rest, elsewhere)


@inlined
def group_pass_a(z, e, classes, label):
    """Return what there is to know of the logits in z; write their exponentials to e."""
    m = load(z, 0)
    for j in range(1, classes):
        v = load(z, j * LANES)
        m = select(v > m, v, m)
    maximum = to_float64(m)
    centre, exponent = reference(maximum, z)
    unit, unit_low = exp_unit(z, centre - maximum, exponent + format_of(z).headroom)
    centre, exponent = cast_down(centre, z), cast_down(exponent, z)
    zero = spread_as(0.0, z)
    ties, logit, power = zero, zero, zero
    total, low = spread(0.0), spread(0.0)
    whole = classes // 4 * 4
    for j in range(0, whole, 4):
        e0, ties, logit, power = column(z, e, j, m, centre, exponent, label, ties, logit, power)
        e1, ties, logit, power = column(z, e, j + 1, m, centre, exponent, label, ties, logit, power)
        e2, ties, logit, power = column(z, e, j + 2, m, centre, exponent, label, ties, logit, power)
        e3, ties, logit, power = column(z, e, j + 3, m, centre, exponent, label, ties, logit, power)
        total, low = add_lanes(total, low, (e0 + e1) + (e2 + e3))
    for j in range(whole, classes):
        e0, ties, logit, power = column(z, e, j, m, centre, exponent, label, ties, logit, power)
        total, low = add_lanes(total, low, e0)
    peak = exponentials(m, z, centre, exponent)
    return PassA(
        maximum,
        to_float64(ties),
        total + low,
        unit,
        unit_low,
        peak,
        to_float64(logit),
        to_float64(power),
    )


@inlined
def column(z, e, j, m, centre, exponent, label, ties, logit, power):
    """Keep the exponentials of a column; return those below the maximum, and what is counted."""
    v = load(z, j * LANES)
    kept = exponentials(v, z, centre, exponent)
    store(e, j * LANES, kept)
    tie, at_label = v == m, label == j
    return (
        select(tie, 0.0, kept),
        ties + select(tie, spread_as(1.0, z), 0.0),
        select(at_label, v, logit),
        select(at_label, kept, power),
    )


@inlined
def group_shortfall(z, classes, maximum, class_weights):
    """Return sum_j w_j (maximum - z_j) a lane; a weight of 0 hides any logit."""
    total, low = spread(0.0), spread(0.0)
    for j in range(classes):
        weight = class_weights[j] if class_weights.size > 0 else 1.0
        if weight > 0.0:
            total, error = two_sum(total, weight * (maximum - to_float64(load(z, j * LANES))))
            low = low + select(total < np.inf, error, 0.0)
    return select(total < np.inf, total + low, total)


@inlined
def group_pass_b(task, e, out, peak, linear):
    """Write an output in lanes from the kept exponentials; e and out may be one array.

    A lane whose factors leave the elements' normal range is computed in float64, alone.
    """
    weighted = task.class_weights.size > 0
    lift = 2.0 ** -format_of(e).headroom
    narrow_a = cast_down(linear.a * lift, e)
    at_label = cast_down(linear.at_label, e)
    wide = out_of_range(linear.a, e) | out_of_range(linear.b, e)
    any_wide = any_lane(wide)
    smooth = task.spread_mass > 0.0
    for j in range(task.classes):
        t = (0.0 - linear.b) * (task.class_weights[j] if weighted else 1.0)
        v = load(e, j * LANES)
        value = select(
            v == peak, cast_down(linear.at_peak + t, e), fma(v, narrow_a, cast_down(t, e))
        )
        if any_wide:
            p = to_float64(v) * lift
            product = select((p == 0.0) & (linear.a == linear.a), 0.0, p * linear.a)
            value = select(wide, cast_down(product + t, e), value)
        if smooth:
            others = task.other_weights[j] if weighted else task.classes - 1.0
            at_top = (linear.own + task.spread_mass * others) - linear.top_share
            at_top = cast_down(linear.factor * at_top + 0.0, e)
            value = select(linear.dominated & (v == peak), at_top, value)
        store(out, j * LANES, select(linear.label == j, at_label, value))


@inlined
def write_values(out, first, rows, taken, values):
    """Write a value for each row, 0 for rows that are ignored."""
    store_first(out, first, rows, cast_down(select(taken, values, 0.0), out))


@inlined
def write_rows(lanes, first, rows, taken, out, classes):
    """Transpose scratch into rows, 0 for rows that are ignored."""
    for j in range(0, classes, LANES):
        count = min(LANES, classes - j)
        columns_to(lanes, j * LANES, out, first * classes + j, classes, count, rows, taken)
