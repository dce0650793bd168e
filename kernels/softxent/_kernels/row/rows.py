"""One row: pass A over its tiles, a few scalars, pass B, then the elements that need more care.

The gradient is one linear map of the exponentials, a e_j - b w_j; only the target's entries and,
where the target is spread over all classes, a dominating maximum are then put right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import divide_pair, format_of, two_sum
from softxent._kernels.row.softmax import (
    FAR,
    MAXIMUM,
    PARTIALS,
    PEAK,
    combine,
    combine_shortfalls,
    fill_shares,
    inv_temperature_of,
    out_of_range,
    pass_a,
    penalty,
    share_of,
    tempered,
)
from softxent._kernels.row.tail_bucket import (
    bucket_gradient,
    bucket_loss,
    outside_maximum,
    share_outside,
)
from softxent._kernels.row.targets import mass_but, read_target
from softxent._kernels.row.task import BUCKET
from softxent._kernels.row.tiles import (
    TILE,
    find,
    write_all,
    write_difference,
    write_scaled,
    write_wide,
)
from softxent._kernels.row.transform import apply_slope, transform_row
from softxent._kernels.simd.lanes import cast_down, fma
from softxent._kernels.simd.span import part


class Scratch(NamedTuple):
    """Room for one row; what a task does not need is empty."""

    partials: Any
    """float64 [tiles * PARTIALS]."""
    outside: Any
    """The same for the classes outside a bucket's entries."""
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
    e: Any
    """[C]: kept exponentials, where no output takes them."""
    e_outside: Any
    """The same for the classes outside a bucket's entries."""


class Spread(NamedTuple):
    """Mass that a target spreads over all classes: u w_j."""

    weights: Any
    """w, empty where every w_j is 1."""
    tile_weights: Any
    other_weights: Any
    """For each class the sum of the others' w; not for a target that is written out."""
    written_out: Any


def _pass_b(tempered: bool) -> Any:

    @inlined
    def pass_b(x, classes, inv_temperature, s, partials, mass, b, weights, e, out):
        weighted = weights.size > 0
        largest, largest_low = divide_pair(1.0, 0.0, s.D, s.D_low)
        # Where p_j is the largest it is 1 / D, not a rounded exponential times a rounded factor:
        # equal logits have equal shares to the last bit.
        at_peak = fma(mass, largest, mass * largest_low)
        for t in range(partials.size // PARTIALS):
            first = t * TILE
            count = min(TILE, classes - first)
            share, low = share_of(partials, t)
            a = fma(mass, share, mass * low)
            peak = (
                partials[t * PARTIALS + PEAK] if partials[t * PARTIALS + MAXIMUM] == s.m else np.nan
            )
            if out_of_range(a, out) or out_of_range(b, out):
                write_wide(e, first, count, a, b, weights, first, weighted, out)
            elif b == 0.0:
                write_scaled(e, first, count, a, peak, at_peak, out)
            else:
                write_difference(
                    e, first, count, a, peak, at_peak, b, weights, first, weighted, out
                )

    return pass_b


pass_b = {tempered: _pass_b(tempered) for tempered in (False, True)}
"""Write mass p_j - b w_j of a row from its kept exponentials, tile by tile."""


def _evaluate_row(transformed: bool) -> Any:
    first_pass = pass_a[transformed]
    fill = fill_shares[transformed]
    second_pass = pass_b[transformed]

    @inlined
    def kept_probabilities(x, inv_temperature, s, count, e, scratch):
        lift = 2.0 ** -format_of(x).headroom
        for i in range(count):
            k = scratch.indices[i]
            share, low = share_of(scratch.partials, k // TILE)
            scratch.powers[i] = (np.float64(e[k]) * lift) * (share + low)

    @inlined
    def outside_softmax(x, classes, inv_temperature, w, target, e_out, keep, scratch):
        for i in range(target.named):
            scratch.z[scratch.indices[i]] = -np.inf
        first_pass(
            x, classes, inv_temperature, w.weights, w.tile_weights, 0.0, scratch.outside,
            e_out, keep,
        )  # fmt: skip
        for i in range(target.named):
            scratch.z[scratch.indices[i]] = scratch.logits[i]
        o = combine(scratch.outside, inv_temperature)
        fill(scratch.outside, o, inv_temperature, x)
        return o

    @inlined
    def write_bucket_gradient(
        x, classes, inv_temperature, s, o, target, w, factor, extra, scratch, out
    ):
        """Write T p_j - rest q_j outside, with q_j = p_j / P, then the entries and a maximum."""
        top = -1
        if o.m == -np.inf:
            write_all(out, 0, classes, 0.0)
        else:
            if s.S < 1.0 and not is_entry_maximum(target.count, s.m, scratch):
                top = find_maximum(classes, s.m, scratch.outside, out)
            mass = (target.mass + extra) * share_outside(inv_temperature, s, o) - target.rest
            second_pass(
                x, classes, inv_temperature, o, scratch.outside, factor * mass, 0.0,
                w.weights, out, out,
            )  # fmt: skip
        for i in range(target.count):
            at_entry = bucket_gradient(inv_temperature, target, i, s, o, extra, scratch)
            out[scratch.indices[i]] = cast_down(factor * at_entry + 0.0, out)
        if top >= 0:
            at_top = outside_maximum(target, -1, s, o, extra, scratch)
            out[top] = cast_down(factor * at_top + 0.0, out)

    @inlined
    def write_gradient(x, classes, inv_temperature, s, target, w, factor, extra, scratch, out):
        kept_probabilities(x, inv_temperature, s, target.count, out, scratch)
        top = -1
        if target.u > 0.0 and s.S < 1.0 and not is_entry_maximum(target.count, s.m, scratch):
            top = find_maximum(classes, s.m, scratch.partials, out)
        second_pass(
            x, classes, inv_temperature, s, scratch.partials, factor * (target.mass + extra),
            factor * target.u, w.weights, out, out,
        )  # fmt: skip
        for i in range(target.count):
            at_entry = entry_gradient(classes, target, i, s, w, scratch)
            if extra != 0.0:
                at_entry = at_entry + extra * scratch.powers[i]
            out[scratch.indices[i]] = cast_down(factor * at_entry + 0.0, out)
        if top >= 0:
            at_top = mass_but(classes, 0, target, scratch.masses, -1, w, top)
            at_top = at_top - target.mass * (s.S / s.D)
            if extra != 0.0:
                at_top = at_top + extra * (1.0 / s.D)
            out[top] = cast_down(factor * at_top + 0.0, out)

    @inlined
    def evaluate_row(task, row, row_weight, scratch):
        classes, inv_temperature = task.classes, inv_temperature_of(task)
        begin = row * classes
        x = part(task.logits, begin, begin + classes)
        gradient_out = part(task.gradient_out, begin, begin + classes)
        probabilities_out = part(task.probabilities_out, begin, begin + classes)
        if transformed and (task.softcap > 0.0 or task.mask.size > 0 or task.tail == BUCKET):
            transform_row(task, row, x, scratch.z, scratch.slope)
            x = scratch.z
        target = read_target(task, row, 0, scratch.indices, scratch.masses, scratch.written)
        w = spread_of(task, scratch)
        for i in range(target.count):
            scratch.logits[i] = x[scratch.indices[i]]
        wants_gradient, wants_probabilities = gradient_out.size > 0, probabilities_out.size > 0
        bucketed = transformed and target.rest > 0.0
        keeps_gradient = wants_gradient and not bucketed
        e_out = gradient_out if keeps_gradient else probabilities_out
        first_pass(
            x, classes, inv_temperature, w.weights, w.tile_weights, target.u,
            scratch.partials, e_out, keeps_gradient or wants_probabilities,
        )  # fmt: skip
        s = combine(scratch.partials, inv_temperature)
        if not (abs(s.m) < np.inf and s.S >= 0.0):
            write_invalid(task, row)
            return
        if wants_gradient or wants_probabilities:
            fill(scratch.partials, s, inv_temperature, x)
        loss = row_loss(inv_temperature, target, s, w, scratch)
        o = s
        if bucketed:
            o = outside_softmax(
                x, classes, inv_temperature, w, target, gradient_out, wants_gradient, scratch
            )
            loss = loss + bucket_loss(inv_temperature, target, s, o, scratch)
        if task.z_loss > 0.0:
            loss = loss + penalty(task.z_loss, s.lse)
        loss = times_factor(task, loss, row_weight, target, s, scratch)
        task.loss_out[row] = cast_down(loss + 0.0, task.loss_out)
        if task.log_normalizer_out.size > 0:
            task.log_normalizer_out[row] = cast_down(s.lse, task.log_normalizer_out)
        if wants_probabilities:
            second_pass(
                x, classes, inv_temperature, s, scratch.partials, 1.0, 0.0, w.weights, e_out,
                probabilities_out,
            )  # fmt: skip
        if wants_gradient:
            factor = tempered(inv_temperature, row_weight * task.scale / task.divisor)
            extra = 2.0 * task.z_loss * s.lse if task.z_loss > 0.0 else 0.0
            if bucketed:
                write_bucket_gradient(
                    x, classes, inv_temperature, s, o, target, w, factor, extra, scratch,
                    gradient_out,
                )  # fmt: skip
            else:
                write_gradient(
                    x, classes, inv_temperature, s, target, w, factor, extra, scratch,
                    gradient_out,
                )  # fmt: skip
            if transformed and task.softcap > 0.0:
                apply_slope(gradient_out, scratch.slope, classes)

    return evaluate_row


evaluate_row = {transformed: _evaluate_row(transformed) for transformed in (False, True)}
"""Evaluate one row that is not ignored, of a task with or without transformed logits."""


@inlined
def spread_of(task, scratch):
    """Return w of the target's form."""
    classes, written = task.classes, scratch.written
    if written.size > 0:
        weights = part(written, 0, classes)
        tile_weights = part(written, classes, written.size)
        return Spread(weights, tile_weights, task.other_weights, True)
    return Spread(task.class_weights, task.tile_weights, task.other_weights, False)


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
def row_loss(inv_temperature, target, s, w, scratch):
    """Return the loss of a row, without z-loss and what a bucket is owed."""
    total, low = 0.0, 0.0
    for i in range(target.count):
        if scratch.masses[i] > 0.0:
            below = tempered(inv_temperature, s.m - scratch.logits[i])
            total, error = two_sum(total, scratch.masses[i] * below)
            low += error if total < np.inf else 0.0
    mass = target.entry_mass if target.rest > 0.0 else target.mass
    loss = mass * s.log_D + (total + low)
    if target.u > 0.0:
        shortfalls = combine_shortfalls(scratch.partials, w.tile_weights, s.m)
        loss = loss + tempered(inv_temperature, target.u * shortfalls)
    return loss


@inlined
def times_factor(task, loss, row_weight, target, s, scratch):
    """Return a row's loss times its factor.

    Entries 2^1023 and more below the maximum, or of a large mass, make a loss that is infinite
    before it meets a small factor; it is added up again in units of 2^FAR.
    """
    factor = row_weight * task.scale
    if loss < np.inf or target.u > 0.0 or target.rest > 0.0 or task.z_loss > 0.0:
        return loss * factor
    unit = 2.0**-FAR
    total = target.mass * unit * s.log_D
    for i in range(target.count):
        if scratch.masses[i] > 0.0:
            below = s.m * unit - scratch.logits[i] * unit
            below = tempered(inv_temperature_of(task), below)
            total += scratch.masses[i] * below
    return total * (factor * 2.0**FAR)


@inlined
def entry_gradient(classes, target, i, s, w, scratch):
    """Return T p - t at an entry, at a maximum from 1 - p = S / D."""
    k = scratch.indices[i]
    p = scratch.powers[i]
    alone = target.count == 1 and target.u == 0.0
    if scratch.logits[i] == s.m and (s.S < 1.0 or alone):
        return mass_but(classes, 0, target, scratch.masses, i, w, k) - target.mass * (s.S / s.D)
    if alone:
        return target.mass * (p - 1.0)
    own = scratch.masses[i]
    if target.u > 0.0:
        own = own + target.u * (w.weights[k] if w.weights.size > 0 else 1.0)
    return target.mass * p - own


@inlined
def is_entry_maximum(count, m, scratch):
    """Whether an entry of the target has the largest logit."""
    found = False
    for i in range(count):
        found = found or scratch.logits[i] == m
    return found


@inlined
def find_maximum(classes, m, partials, e):
    """Return where the only maximum of a row stands, from its kept exponentials."""
    t = 0
    while partials[t * PARTIALS + MAXIMUM] != m:
        t += 1
    first = t * TILE
    return find(e, first, min(TILE, classes - first), partials[t * PARTIALS + PEAK])
