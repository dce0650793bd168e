"""Rounding arrays to a narrower floating-point type: once, to nearest, ties to even."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def round_into(out: Floats, values: Floats) -> None:
    """out = values, rounded once; out may be of any floating type, bfloat16 among them."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if values.dtype == np.float64 and out.dtype.name == "bfloat16":
            # The cast goes through float32, which alone would round twice.
            values = _to_odd(values)
        out[...] = values.astype(out.dtype)


def _to_odd(values: Floats) -> Floats:
    """Return float32 that round on as the float64 would: inexact ones end in an odd bit."""
    nearest = values.astype(np.float32)
    wide = nearest.astype(np.float64)
    away = np.abs(wide) > np.abs(values)
    bits = nearest.view(np.int32)
    truncated = bits - away.astype(np.int32)
    odd = (truncated | (wide != values)).astype(np.int32)
    return np.asarray(odd.view(np.float32))
