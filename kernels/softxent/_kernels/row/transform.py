"""Transformed logits z of a row: softcap and mask, before anything else looks at them.

The temperature is not among them: it divides exact differences of logits, inside the exponential.
"""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import tanh_quotient
from softxent._kernels.simd.lanes import LANES, cast_down, fma, select, to_float64
from softxent._kernels.simd.memory import load_first, store_first

TINY = 2.0**-900
"""Quotients below this lose digits on the way, in float64; tanh leaves them as they are."""


@inlined
def transform_row(task, row, x, z, slope):
    """Write z_j = s tanh(x_j / s) of a row, or x_j without softcap, and -inf where it is masked.

    `slope` takes the derivative of z_j by x_j where there is a softcap.
    """
    mask_begin = row * task.classes if task.masks_rows else 0
    for j in range(0, task.classes, LANES):
        n = task.classes - j
        v = load_first(x, j, n, 0.0)
        if task.softcap > 0.0:
            v, derivative = cap(v, task.softcap, z)
            store_first(slope, j, n, derivative)
        if task.mask.size > 0:
            v = select(load_first(task.mask, mask_begin + j, n, 0) != 0, v, -np.inf)
        store_first(z, j, n, v)


@inlined
def cap(x, softcap, like):
    """Return s tanh(x / s), within 1 ulp, and its derivative, in lanes like those of an array."""
    v = to_float64(x)
    negative = v < 0.0
    magnitude = select(negative, 0.0 - v, v)
    high, low, derivative = tanh_quotient(like, magnitude, softcap)
    product = high * softcap
    capped = product + fma(low, softcap, fma(high, softcap, 0.0 - product))
    # So far below the cap x / s loses digits, or is 0; s tanh(x / s) is x to every digit.
    tiny = (magnitude > 0.0) & (magnitude < softcap * TINY)
    capped = select(tiny, magnitude, capped)
    derivative = select(tiny, 1.0, derivative)
    return cast_down(select(negative, 0.0 - capped, capped), like), cast_down(derivative, like)


@inlined
def apply_slope(out, slope, count):
    """out_j = out_j slope_j, where the product of 0 with anything is 0."""
    for j in range(0, count, LANES):
        n = count - j
        v = load_first(out, j, n, 0.0)
        store_first(out, j, n, select(v != 0.0, v * load_first(slope, j, n, 0.0), 0.0))
