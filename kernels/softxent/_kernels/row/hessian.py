"""The Hessian of a row's loss by its logits: its diagonal, and its product with a vector.

With p the softmax, q the softmax of the classes outside a bucket's entries, T the target's total
and z the factor of the z-loss, over the temperature squared:

    diagonal_j = T p_j (1 - p_j) - rest q_j (1 - q_j) + 2 z (p_j^2 + lse p_j (1 - p_j))
    product_j = (T + 2 z lse) p_j (v_j - p.v) - rest q_j (v_j - q.v) + 2 z p_j p.v
"""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import format_of
from softxent._kernels.math.lane_reductions import add_for, fold_sum
from softxent._kernels.row.softmax import MAXIMUM, PARTIALS, inv_temperature_of, share_of, tempered
from softxent._kernels.row.tiles import TILE, find
from softxent._kernels.simd.lanes import LANES, cast_down, fma, select, spread, to_float64
from softxent._kernels.simd.memory import load_first, store_first


@inlined
def factor_of(task, row_weight):
    """Return row weight, scale and divisor in one, over the temperature squared."""
    inv_temperature = inv_temperature_of(task)
    factor = row_weight * task.scale / task.divisor
    return tempered(inv_temperature, tempered(inv_temperature, factor))


@inlined
def mass_of(target, extra, s):
    """Return T + 2 zeta lse, where the log-normaliser may be infinite without a z-loss."""
    return target.mass + extra * s.lse if extra > 0.0 else target.mass


@inlined
def probability(z, e, j, n, share, share_low, s):
    """Return (p_j, 1 - p_j) lane by lane; at a maximum they are 1 / D and S / D."""
    v = to_float64(load_first(e, j, n, 0.0)) * 2.0 ** -format_of(e).headroom
    p = select(v > 0.0, fma(v, share, v * share_low), 0.0)
    peak = (v > 0.0) & (to_float64(load_first(z, j, n, -np.inf)) == s.m)
    return select(peak, 1.0 / s.D, p), select(peak, s.S / s.D, 1.0 - p)


@inlined
def write_scaled_by(factor, value, j, n, out):
    """out_j = factor value_j, where the product of 0 with anything is 0."""
    store_first(out, j, n, cast_down(select(value == 0.0, 0.0, factor * value), out))


@inlined
def write_hessian_diagonal(task, row_weight, target, s, o, bucketed, scratch, out):
    """Write the diagonal."""
    z = scratch.z
    factor, extra = factor_of(task, row_weight), 2.0 * task.z_loss
    mass = mass_of(target, extra, s)
    for t in range(scratch.partials.size // PARTIALS):
        share, share_low = share_of(scratch.partials, t)
        q_share, q_low = share, share_low
        if bucketed:
            q_share, q_low = share_of(scratch.outside, t)
        end = min((t + 1) * TILE, task.classes)
        for j in range(t * TILE, end, LANES):
            n = end - j
            p, others = probability(z, scratch.e, j, n, share, share_low, s)
            value = mass * (p * others)
            if extra > 0.0:
                value = value + extra * (p * p)
            if bucketed:
                q, others = probability(z, scratch.e_outside, j, n, q_share, q_low, o)
                value = value - target.rest * (q * others)
            write_scaled_by(factor, value, j, n, out)


@inlined
def write_product(task, row_weight, target, s, o, bucketed, vector, scratch, out):
    """Write the product, relative to the vector's value at the first maximum."""
    z = scratch.z
    factor, extra = factor_of(task, row_weight), 2.0 * task.z_loss
    mass = mass_of(target, extra, s)
    t = 0
    while scratch.partials[t * PARTIALS + MAXIMUM] != s.m:
        t += 1
    base = np.float64(vector[find(z, t * TILE, min(TILE, task.classes - t * TILE), s.m)])
    mean = mean_of(task, s, vector, base, scratch.partials, scratch.e, z)
    outside = mean
    if bucketed:
        outside = mean_of(task, o, vector, base, scratch.outside, scratch.e_outside, z)
    for t in range(scratch.partials.size // PARTIALS):
        share, share_low = share_of(scratch.partials, t)
        q_share, q_low = share, share_low
        if bucketed:
            q_share, q_low = share_of(scratch.outside, t)
        end = min((t + 1) * TILE, task.classes)
        for j in range(t * TILE, end, LANES):
            n = end - j
            u = relative(z, vector, base, j, n)
            p, _ = probability(z, scratch.e, j, n, share, share_low, s)
            value = mass * (p * (u - mean))
            if extra > 0.0:
                value = value + extra * (p * (base + mean))
            if bucketed:
                q, _ = probability(z, scratch.e_outside, j, n, q_share, q_low, o)
                value = value - target.rest * (q * (u - outside))
            write_scaled_by(factor, value, j, n, out)


@inlined
def relative(z, vector, base, j, n):
    """Return v_j - base lane by lane, 0 where a class takes no part."""
    taking_part = to_float64(load_first(z, j, n, -np.inf)) > -np.inf
    return select(taking_part, to_float64(load_first(vector, j, n, 0.0)) - base, 0.0)


@inlined
def mean_of(task, s, vector, base, partials, e, z):
    """Return sum_j p_j (v_j - base)."""
    acc, low = spread(0.0), spread(0.0)
    for t in range(partials.size // PARTIALS):
        share, share_low = share_of(partials, t)
        end = min((t + 1) * TILE, task.classes)
        for j in range(t * TILE, end, LANES):
            p, _ = probability(z, e, j, end - j, share, share_low, s)
            acc, low = add_for(z, acc, low, p * relative(z, vector, base, j, end - j))
    return fold_sum(acc, low)
