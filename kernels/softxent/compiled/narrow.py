"""Rows of a few classes, sixteen of them at a time in the lanes of a vector.

A row of ten classes would leave most lanes of a step idle and pay for its scalars alone. Here
lane r belongs to row r: the logits of sixteen rows are transposed into scratch, every formula is
the one of `rows`, applied to lanes, and the results are transposed back. A lane never looks at
another, so a row's bits depend neither on its neighbours nor on there being sixteen of them.
Which layout a batch takes depends on its number of classes alone.
"""

from __future__ import annotations

import numpy as np

from softxent.compiled.compilation import inlined
from softxent.compiled.elementary import divide_pair, exp_pair, format_of, log1p, two_sum
from softxent.compiled.folding import add_lanes, any_lane
from softxent.compiled.lanes import LANES, fma, narrow, select, spread, spread_as, widen
from softxent.compiled.memory import load, store
from softxent.compiled.softmax import out_of_range
from softxent.compiled.tiles import exponentials, reference

NARROW = 32
"""Up to this many classes, rows stand in lanes."""

(
    _LABEL_LOGIT,
    _LABEL_WEIGHT,
    _LABEL_OTHERS,
    _LABEL_POWER,
    _FACTOR,
    _LOSS,
    _LOG_NORMALIZER,
    _AT_LABEL,
    _LABEL_MASS,
    _TOP_SHARE,
    _TOP,
) = range(0, 11 * LANES, LANES)
FIELDS = 11 * LANES
"""float64 values of scratch for a group: each of the eleven above for every lane."""


@inlined
def evaluate_group(task, first, rows, z, e, fields, taken):
    """Evaluate rows first .. first + rows, at most LANES of them; set `taken` where not ignored.

    Scratch: z and e [classes * LANES] of the logits' dtype, fields [FIELDS] float64, taken
    [LANES].
    """
    classes = task.classes
    weighted = task.class_weights.size > 0
    every = gather(task, first, rows, z, fields, taken)
    maximum, centre, exponent, ties, others, top, peak = group_pass_a(z, e, classes)
    headroom = format_of(z).headroom
    lift = 2.0**-headroom
    unit, unit_low = exp_pair(centre - maximum, spread(0.0), exponent + headroom)
    S = (ties - 1.0) + fma(others, unit * lift, others * (unit_low * lift))
    valid = (maximum < np.inf) & (maximum > -np.inf) & (S > -1.0)
    spread_mass = task.spread_mass
    shortfall = spread(0.0)
    if spread_mass > 0.0:
        shortfall = group_shortfall(z, classes, maximum, task.class_weights)
    label_logit = load(fields, _LABEL_LOGIT)
    label_weight = load(fields, _LABEL_WEIGHT)
    label_others = load(fields, _LABEL_OTHERS)
    D, D_low = two_sum(1.0, S)
    log_D, mass, label_mass, loss = loss_terms(
        maximum, S, label_logit, shortfall, label_weight, label_others, task.smoothing,
        spread_mass, weighted,
    )  # fmt: skip
    lse = maximum + log_D
    extra = 2.0 * task.z_loss * lse
    if task.z_loss > 0.0:
        loss = loss + task.z_loss * (lse * lse)
    factor = load(fields, _FACTOR)
    nan = spread(np.nan)
    store(fields, _LOSS, select(valid, loss * factor + 0.0, nan))
    store(fields, _LOG_NORMALIZER, select(valid, lse, nan))
    write_row_values(task, fields, taken, first, rows)
    share, share_low = divide_pair(unit, unit_low, D, D_low)
    if task.probabilities_out.size > 0:
        group_pass_b(
            e, z, classes, select(valid, spread(1.0), nan), spread(0.0), share, share_low,
            D, D_low, peak, task.class_weights,
        )  # fmt: skip
        scatter(z, classes, first, rows, taken, every, task.probabilities_out)
    if task.gradient_out.size > 0:
        factor = factor / task.divisor
        for r in range(rows):
            label = task.labels[first + r] if taken[r] else 0
            fields[_LABEL_POWER + r] = e[label * LANES + r]
        p = (load(fields, _LABEL_POWER) * lift) * (share + share_low)
        at_label = label_gradient(
            label_logit == maximum, S, D, p, mass, label_mass, label_weight, label_others,
            spread_mass,
        )  # fmt: skip
        top_share = mass * (S / D)
        if task.z_loss > 0.0:
            at_label = at_label + extra * p
            top_share = top_share - extra * (1.0 / D)
            mass = mass + extra
        store(fields, _AT_LABEL, select(valid, factor * at_label + 0.0, nan))
        dominated = (S < 1.0) & (label_logit < maximum)
        store(fields, _TOP, select(dominated, top, -1.0))
        store(fields, _LABEL_MASS, label_mass)
        store(fields, _TOP_SHARE, top_share)
        group_pass_b(
            e, e, classes, select(valid, factor * mass, nan), factor * spread_mass,
            share, share_low, D, D_low, peak, task.class_weights,
        )  # fmt: skip
        scatter(e, classes, first, rows, taken, every, task.gradient_out)
        put_right(task, first, rows, fields, taken)


@inlined
def gather(task, first, rows, z, fields, taken):
    """Transpose logits into scratch, zeros in lanes without a row; return whether all have one."""
    classes = task.classes
    weighted = task.class_weights.size > 0
    labelled = task.labels.size > 0
    every = True
    for r in range(LANES):
        row = first + r
        row_weight = 0.0
        ignores = labelled and task.ignores
        if r < rows and not (ignores and task.labels[row] == task.ignore_index):
            row_weight = task.row_weights[row] if task.row_weights.size > 0 else 1.0
        taken[r] = row_weight > 0.0
        every = every and taken[r]
        label = task.labels[row] if labelled and taken[r] else 0
        fields[_LABEL_LOGIT + r] = task.logits[row * classes + label] if taken[r] else 0.0
        # Without a label there is no loss to speak of: log D, which is finite, stands for it.
        fields[_LABEL_WEIGHT + r] = 0.0
        if labelled:
            fields[_LABEL_WEIGHT + r] = task.class_weights[label] if weighted else 1.0
        fields[_LABEL_OTHERS + r] = task.other_weights[label] if weighted else classes - 1.0
        fields[_FACTOR + r] = row_weight * task.scale
    x = task.logits
    if every:
        for j in range(classes):
            for r in range(LANES):
                z[j * LANES + r] = x[(first + r) * classes + j]
    else:
        for r in range(LANES):
            for j in range(classes):
                z[j * LANES + r] = x[(first + r) * classes + j] if taken[r] else 0.0
    return every


@inlined
def loss_terms(m, S, z, shortfall, label_weight, label_others, smoothing, spread_mass, weighted):
    """Return log D, the total T of the target, the label's own part of T, and the loss.

    z is the label's logit, `shortfall` sum_j w_j (m - x_j),
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
def group_pass_a(z, e, classes):
    """Return maximum, (centre, exponent), ties, the sum of the other exponentials, where the last
    maximum stands, all lanes of float64, and its exponential; write the exponentials to e."""
    m = load(z, 0)
    for j in range(LANES, classes * LANES, LANES):
        v = load(z, j)
        m = select(v > m, v, m)
    maximum = widen(m)
    centre, exponent = reference(maximum, z)
    narrow_centre, narrow_exponent = narrow(centre, z), narrow(exponent, z)
    zero = spread_as(0.0, z)
    peak = zero
    total, low, ties, top = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    for j in range(classes):
        v = load(z, j * LANES)
        power = exponentials(v, z, narrow_centre, narrow_exponent)
        store(e, j * LANES, power)
        tie = v == m
        ties = ties + select(tie, spread(1.0), spread(0.0))
        top = select(tie, spread(np.float64(j)), top)
        peak = select(tie, power, peak)
        total, low = add_lanes(total, low, select(tie, zero, power))
    return maximum, centre, exponent, ties, total + low, top, peak


@inlined
def group_shortfall(z, classes, maximum, class_weights):
    """Return sum_j w_j (maximum - z_j) a lane; a weight of 0 hides any logit."""
    total, low = spread(0.0), spread(0.0)
    for j in range(classes):
        weight = class_weights[j] if class_weights.size > 0 else 1.0
        if weight > 0.0:
            total, error = two_sum(total, weight * (maximum - widen(load(z, j * LANES))))
            low = low + select(total < np.inf, error, 0.0)
    return select(total < np.inf, total + low, total)


@inlined
def group_pass_b(e, out, classes, mass, b, share, share_low, D, D_low, peak, class_weights):
    """Write mass p_j - b w_j in lanes from the kept exponentials; e and out may be one array.

    A lane whose factors leave the elements' normal range is computed in float64, alone.
    """
    largest, largest_low = divide_pair(spread(1.0), spread(0.0), D, D_low)
    at_peak = fma(mass, largest, mass * largest_low)
    a = fma(mass, share, mass * share_low)
    lift = 2.0 ** -format_of(e).headroom
    narrow_a = narrow(a * lift, e)
    wide = out_of_range(a, e) | out_of_range(b, e)
    any_wide = any_lane(wide)
    for j in range(classes):
        t = (0.0 - b) * (class_weights[j] if class_weights.size > 0 else 1.0)
        v = load(e, j * LANES)
        value = select(v == peak, narrow(at_peak + t, e), fma(v, narrow_a, narrow(t, e)))
        if any_wide:
            p = widen(v) * lift
            product = select((p == 0.0) & (a == a), 0.0, p * a)
            value = select(wide, narrow(product + t, e), value)
        store(out, j * LANES, value)


@inlined
def write_row_values(task, fields, taken, first, rows):
    """Write losses and log-normalisers, 0 for rows that are ignored."""
    for r in range(rows):
        task.loss_out[first + r] = fields[_LOSS + r] if taken[r] else 0.0
        if task.log_normalizer_out.size > 0:
            task.log_normalizer_out[first + r] = fields[_LOG_NORMALIZER + r] if taken[r] else 0.0


@inlined
def scatter(lanes, classes, first, rows, taken, every, out):
    """Transpose scratch into rows, 0 for rows that are ignored."""
    if every:
        for j in range(classes):
            for r in range(LANES):
                out[(first + r) * classes + j] = lanes[j * LANES + r]
    else:
        for r in range(rows):
            for j in range(classes):
                out[(first + r) * classes + j] = lanes[j * LANES + r] if taken[r] else 0.0


@inlined
def put_right(task, first, rows, fields, taken):
    """Write the gradient at the label and, with smoothing, at a maximum that dominates its row."""
    weighted = task.class_weights.size > 0
    for r in range(rows):
        if taken[r]:
            begin = (first + r) * task.classes
            task.gradient_out[begin + task.labels[first + r]] = fields[_AT_LABEL + r]
            top = int(fields[_TOP + r])
            if task.spread_mass > 0.0 and top >= 0:
                others = task.other_weights[top] if weighted else task.classes - 1.0
                rest = task.spread_mass * others
                at_top = (fields[_LABEL_MASS + r] + rest) - fields[_TOP_SHARE + r]
                task.gradient_out[begin + top] = fields[_FACTOR + r] / task.divisor * at_top + 0.0
