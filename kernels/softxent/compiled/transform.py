"""Transformed logits z of a row: softcap and mask, before anything else looks at them.

The temperature is not among them: it divides exact differences of logits, inside the exponential.
"""

from __future__ import annotations

import numpy as np

from softxent.compiled.compilation import inlined
from softxent.compiled.elementary import divide_pair, tanh_pair
from softxent.compiled.lanes import LANES, fma, narrow, select, spread, widen
from softxent.compiled.memory import load_first, store_first


@inlined
def transform_row(task, row, x, z, slope):
    """Write z_j = s tanh(x_j / s) of a row, or x_j without softcap, and -inf where it is masked.

    `slope` takes the derivative of z_j by x_j where there is a softcap.
    """
    if task.softcap > 0.0:
        cap(x, task.classes, task.softcap, z, slope)
    else:
        for j in range(task.classes):
            z[j] = x[j]
    if task.mask.size > 0:
        begin = row * task.classes if task.masks_rows else 0
        for j in range(task.classes):
            if task.mask[begin + j] == 0:
                z[j] = -np.inf


@inlined
def cap(x, count, softcap, z, slope):
    """Write s tanh(x / s), within 1 ulp, and its derivative."""
    for j in range(0, count, LANES):
        n = count - j
        v = widen(load_first(x, j, n, 0.0))
        negative = v < 0.0
        share, share_low = divide_pair(
            select(negative, 0.0 - v, v), spread(0.0), spread(softcap), spread(0.0)
        )
        high, low, derivative = tanh_pair(share, share_low)
        product = high * softcap
        capped = product + fma(low, softcap, fma(high, softcap, 0.0 - product))
        store_first(z, j, n, narrow(select(negative, 0.0 - capped, capped), z))
        store_first(slope, j, n, narrow(derivative, slope))


@inlined
def apply_slope(out, slope, count):
    """out_j = out_j slope_j, where the product of 0 with anything is 0."""
    for j in range(count):
        out[j] = out[j] * slope[j] if out[j] != 0.0 else 0.0
