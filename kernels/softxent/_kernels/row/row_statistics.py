"""Row statistics beside loss and gradient: entropy, prediction, rank and more.

These go row by row over scratch, at any number of classes, and always as tempered logits; a
temperature of 1 changes nothing.
"""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import (
    exp_scaled,
    format_of,
    is_single,
    log1p,
    log_pair,
    two_sum,
)
from softxent._kernels.math.lane_reductions import add_for, count_lanes, fold_sum
from softxent._kernels.row.hessian import write_hessian_diagonal, write_product
from softxent._kernels.row.rows import spread_of
from softxent._kernels.row.softmax import (
    MAXIMUM,
    PARTIALS,
    combine,
    fill_shares,
    gap_for,
    inv_temperature_of,
    pass_a,
    share_of,
)
from softxent._kernels.row.targets import read_target
from softxent._kernels.row.task import RENORMALIZE
from softxent._kernels.row.tiles import TILE, find, write_all
from softxent._kernels.row.top_k import find_largest
from softxent._kernels.row.transform import transform_row
from softxent._kernels.simd.lanes import (
    LANES,
    cast_down,
    fma,
    select,
    spread,
    spread_as,
    to_float64,
)
from softxent._kernels.simd.memory import load_first, store_first
from softxent._kernels.simd.span import part

_first_pass = pass_a[True]
_fill_shares = fill_shares[True]

_TINY = 2.0**-900
_LIFT = 2.0**200
_LOG_LIFT = 138.62943611198907


@inlined
def describe_row(task, row, row_weight, scratch):
    """Write every output but those of `rows` for one row that is not ignored."""
    begin, end = row * task.classes, (row + 1) * task.classes
    transform_row(task, row, part(task.logits, begin, end), scratch.z, scratch.slope)
    target = read_target(task, row, 0, scratch.indices, scratch.masses, scratch.written)
    w = spread_of(task, scratch)
    bucketed = target.rest > 0.0
    fill_passes(task, target, w, bucketed, scratch)
    s = combine(scratch.partials, inv_temperature_of(task))
    if not (abs(s.m) < np.inf and s.S >= 0.0):
        write_blank(task, row, np.nan)
        return
    _fill_shares(scratch.partials, s, inv_temperature_of(task), scratch.z)
    if task.log_probabilities_out.size > 0:
        write_log_probabilities(task, s, scratch.z, part(task.log_probabilities_out, begin, end))
    if task.entropy_out.size > 0:
        task.entropy_out[row] = cast_down(entropy(task, s, scratch), task.entropy_out)
    if task.target_entropy_out.size > 0:
        uncertainty = target_entropy(task, row, target, w, scratch)
        task.target_entropy_out[row] = cast_down(uncertainty, task.target_entropy_out)
    write_places(task, row, s, scratch)
    if task.hessian_diagonal_out.size > 0 or task.hessian_vector_product_out.size > 0:
        o = s
        if bucketed:
            o = combine(scratch.outside, inv_temperature_of(task))
            _fill_shares(scratch.outside, o, inv_temperature_of(task), scratch.z)
        bucketed = bucketed and o.m > -np.inf
        if task.hessian_diagonal_out.size > 0:
            out = part(task.hessian_diagonal_out, begin, end)
            write_hessian_diagonal(task, row_weight, target, s, o, bucketed, scratch, out)
        if task.hessian_vector_product_out.size > 0:
            vector, out = (
                part(task.vectors, begin, end),
                part(task.hessian_vector_product_out, begin, end),
            )
            write_product(task, row_weight, target, s, o, bucketed, vector, scratch, out)


@inlined
def fill_passes(task, target, w, bucketed, scratch):
    """Fill partials and exponentials, with a bucket also for the classes outside its entries."""
    for i in range(target.count):
        scratch.logits[i] = scratch.z[scratch.indices[i]]
    partials, e = scratch.outside, scratch.e_outside
    # One loop, so that the pass is compiled once.
    for everything in range(0 if bucketed else 1, 2):
        if everything == 1:
            partials, e = scratch.partials, scratch.e
        for i in range(target.named):
            scratch.z[scratch.indices[i]] = scratch.logits[i] if everything == 1 else -np.inf
        _first_pass(
            scratch.z, task.classes, inv_temperature_of(task), w.weights, w.tile_weights,
            0.0, partials, e, True,
        )  # fmt: skip


@inlined
def write_blank(task, row, value):
    """Write a row that is ignored (value 0), or whose logits have no softmax (NaN)."""
    begin, classes = row * task.classes, task.classes
    if task.log_probabilities_out.size > 0:
        write_all(task.log_probabilities_out, begin, classes, value)
    if task.entropy_out.size > 0:
        task.entropy_out[row] = value
    if task.target_entropy_out.size > 0:
        task.target_entropy_out[row] = value
    if task.prediction_out.size > 0:
        task.prediction_out[row] = -1
    if task.correct_out.size > 0:
        task.correct_out[row] = 0
    if task.rank_out.size > 0:
        task.rank_out[row] = -1
    if task.hessian_diagonal_out.size > 0:
        write_all(task.hessian_diagonal_out, begin, classes, value)
    if task.hessian_vector_product_out.size > 0:
        write_all(task.hessian_vector_product_out, begin, classes, value)


@inlined
def write_log_probabilities(task, s, z, out):
    """out_j = (z_j - m) / temperature - log D, rounded once."""
    for j in range(0, task.classes, LANES):
        n = task.classes - j
        v = to_float64(load_first(z, j, n, -np.inf))
        gap, gap_low = gap_for(z, v, s.m, inv_temperature_of(task))
        value = gap - s.log_D
        if not is_single(z):
            value, error = two_sum(gap, 0.0 - s.log_D)
            value = select(gap > -np.inf, value + (error + gap_low), -np.inf)
        store_first(out, j, n, cast_down(value, out))


@inlined
def entropy(task, s, scratch):
    """Return log D + sum_j p_j (m - z_j) / temperature."""
    lift = 2.0 ** -format_of(scratch.e).headroom
    acc, low = spread(0.0), spread(0.0)
    for t in range(scratch.partials.size // PARTIALS):
        share, share_low = share_of(scratch.partials, t)
        end = min((t + 1) * TILE, task.classes)
        for j in range(t * TILE, end, LANES):
            e = to_float64(load_first(scratch.e, j, end - j, 0.0)) * lift
            v = to_float64(load_first(scratch.z, j, end - j, s.m))
            gap, gap_low = gap_for(scratch.z, v, s.m, inv_temperature_of(task))
            p = fma(e, share, e * share_low)
            term = select(e > 0.0, fma(p, 0.0 - gap, 0.0 - p * gap_low), 0.0)
            acc, low = add_for(scratch.z, acc, low, term)
    return s.log_D + fold_sum(acc, low)


@inlined
def target_entropy(task, row, target, w, scratch):
    """Return -sum_j t_j log t_j, from stored logarithms where t_j follows from them alone."""
    stored = task.entries > 0 and task.labels.size == 0
    if stored and task.smoothing == 0.0 and task.class_weights.size == 0:
        if task.tail == RENORMALIZE:
            return softmax_entropy(task, row)
        return stored_entropy(task, row, rest_surprise(target))
    total, low = rest_surprise(target), 0.0
    if target.u > 0.0:
        if w.weights.size > 0:
            total += spread_surprise(target.u, w.weights, task.classes)
        else:
            total += (task.classes - target.count) * surprise(target.u)
    for i in range(target.count):
        own = 0.0
        if target.u > 0.0:
            own = target.u
            if w.weights.size > 0:
                own = target.u * w.weights[scratch.indices[i]]
                total, error = two_sum(total, 0.0 - surprise(own))
                low += error
        total, error = two_sum(total, surprise(own + scratch.masses[i]))
        low += error
    return (total + low) + 0.0


@inlined
def stored_entropy(task, row, total):
    """Return total - sum_i exp(l_i) l_i over the entries of a row."""
    low = 0.0
    for i in range(row * task.entries, (row + 1) * task.entries):
        logarithm = task.target_log_probabilities[i]
        if task.target_indices[i] >= 0 and logarithm > -np.inf:
            power = exp_scaled(logarithm, 0.0, 0.0)
            total, error = two_sum(total, 0.0 - power * logarithm)
            low += error
    return (total + low) + 0.0


@inlined
def softmax_entropy(task, row):
    """Return the entropy of the softmax of the l_i: log D + sum_i e_i (l - l_i) / D, l the largest.

    No term is negative, so a sure teacher's entropy keeps its digits.
    """
    begin, end = row * task.entries, (row + 1) * task.entries
    highest, largest = find_largest(task.target_indices, task.target_log_probabilities, begin, end)
    others, others_low, total, low = 0.0, 0.0, 0.0, 0.0
    for i in range(begin, end):
        if task.target_indices[i] >= 0 and i != largest:
            gap, gap_low = two_sum(task.target_log_probabilities[i], 0.0 - highest)
            power = exp_scaled(gap, gap_low, 0.0)
            if power > 0.0:
                others, error = two_sum(others, power)
                others_low += error
                total, error = two_sum(total, 0.0 - power * gap)
                low += error
    others += others_low
    return log1p(others) + (total + low) / (1.0 + others)


@inlined
def rest_surprise(target):
    """Return -r log r of what a bucket is owed, from 1 - r, the entries' mass, where r is near 1.

    A bucket goes with neither smoothing nor class weights, so the two add up to 1.
    """
    if target.entry_mass < 0.5 and target.rest > 0.0:
        return 0.0 - target.rest * log1p(0.0 - target.entry_mass)
    return surprise(target.rest)


@inlined
def spread_surprise(u, weights, count):
    """Return -sum_j u w_j log(u w_j)."""
    acc, low = spread(0.0), spread(0.0)
    for j in range(0, count, LANES):
        term = surprise(u * load_first(weights, j, count - j, 0.0))
        acc, error = two_sum(acc, term)
        low = low + error
    return fold_sum(acc, low)


@inlined
def surprise(t):
    """Return -t log t, 0 for 0; of one float64 or of lanes."""
    tiny = t < _TINY
    logarithm = log_pair(select(tiny, t * _LIFT, t), 0.0 * t) - select(tiny, _LOG_LIFT, 0.0 * t)
    return select(t > 0.0, 0.0 - t * logarithm, 0.0 * t)


@inlined
def write_places(task, row, s, scratch):
    """Write where the first maximum stands, whether that is the label, and the label's rank."""
    if task.prediction_out.size > 0 or task.correct_out.size > 0:
        first = first_maximum(task, s, scratch)
        if task.prediction_out.size > 0:
            task.prediction_out[row] = first
        if task.correct_out.size > 0:
            task.correct_out[row] = 1 if first == task.labels[row] else 0
    if task.rank_out.size > 0:
        task.rank_out[row] = rank(task, row, task.labels[row], scratch.z)


@inlined
def first_maximum(task, s, scratch):
    """Return the lowest class whose logit is the largest."""
    t = 0
    while scratch.partials[t * PARTIALS + MAXIMUM] != s.m:
        t += 1
    return find(scratch.z, t * TILE, min(TILE, task.classes - t * TILE), s.m)


@inlined
def rank(task, row, label, z):
    """Return how many classes stand above a label, or are equal to it and before it."""
    own = spread_as(z[label], z)
    place = 0
    for j in range(0, task.classes, LANES):
        place += count_lanes(load_first(z, j, task.classes - j, -np.inf) > own)
    for j in range(0, label, LANES):
        place += count_lanes(load_first(z, j, label - j, np.nan) == own)
    if z[label] == -np.inf and task.mask.size > 0:
        begin = row * task.classes if task.masks_rows else 0
        for j in range(label):
            place -= task.mask[begin + j] == 0
    return place
