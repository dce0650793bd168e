"""A bucket: what a top-k target leaves to all the classes that it does not name."""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import exp_scaled, log1p, two_sum
from softxent._kernels.row.softmax import tempered_gap
from softxent._kernels.row.targets import sum_but


@inlined
def share_outside(inv_temperature, s, o):
    """Return P, the probability of the classes outside, from the softmax of all and of those."""
    gap, gap_low = tempered_gap(o.m, s.m, inv_temperature)
    return exp_scaled(gap, gap_low, 0.0) * (o.D / s.D)


@inlined
def bucket_loss(inv_temperature, target, s, o, scratch):
    """Return -rest log P: log1p of the odds against the bucket, or a difference where P is tiny."""
    if o.m == -np.inf:
        return np.inf
    gap, gap_low = tempered_gap(o.m, s.m, inv_temperature)
    if gap < -40.0:
        return target.rest * (s.log_D - o.log_D - (gap + gap_low))
    named, low = 0.0, 0.0
    for i in range(target.named):
        above, above_low = tempered_gap(scratch.logits[i], o.m, inv_temperature)
        named, error = two_sum(named, exp_scaled(above, above_low, 0.0))
        low += error
    return target.rest * log1p((named + low) / o.D)


@inlined
def bucket_gradient(inv_temperature, target, i, s, o, extra, scratch):
    """Return the gradient at an entry: T p - t and, at a label in the bucket, less rest q."""
    gap, gap_low = tempered_gap(scratch.logits[i], s.m, inv_temperature)
    p = exp_scaled(gap, gap_low, 0.0) / s.D
    own = scratch.masses[i]
    at_maximum = scratch.logits[i] == s.m and s.S < 1.0
    if i < target.named:
        if at_maximum:
            others = sum_but(scratch.masses, target.count, i) + target.rest
            return (others - target.mass * (s.S / s.D)) + extra * p
        return (target.mass + extra) * p - own
    if at_maximum:
        return outside_maximum(target, i, s, o, extra, scratch)
    gap, gap_low = tempered_gap(scratch.logits[i], o.m, inv_temperature)
    q = exp_scaled(gap, gap_low, 0.0) / o.D
    return (target.mass + extra) * p - (own + target.rest * q)


@inlined
def outside_maximum(target, entry, s, o, extra, scratch):
    """Return the gradient at a p of more than 1/2 in the bucket, (T - t - rest q) - T (1 - p).

    T - t - rest q is added up over the other classes; `entry` is the class's entry, or -1.
    """
    others = sum_but(scratch.masses, target.count, entry) + target.rest * (o.S / o.D)
    return (others - target.mass * (s.S / s.D)) + extra * (1.0 / s.D)
