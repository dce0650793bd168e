"""Exact values and how far a result is from them, in units in the last place.

A unit is the spacing of the computing type (float64 for float64 logits, else float32) at the
exact value or, for differences, at the larger operand. What a result may differ by besides is a
slack: rounding once to a narrower type, and what is conditioned on another rounded number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
from mpmath import mpf

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]


class Exact(NamedTuple):
    """Exact values as unevaluated sums of two float64, and the magnitudes that set their units."""

    high: Float64s
    low: Float64s
    operand: Float64s
    slack: Float64s
    """Absolute error that counts for nothing."""

    @classmethod
    def of(
        cls,
        values: Sequence[mpf],
        operands: Sequence[mpf] | None = None,
        slacks: Sequence[mpf] | None = None,
    ) -> Exact:
        """Return exact values; without operands each value sets its own unit."""
        high = np.array([float(v) for v in values], np.float64)
        rest = zip(values, high.tolist(), np.isfinite(high).tolist(), strict=True)
        low = np.array([float(v - h) if finite else 0.0 for v, h, finite in rest], np.float64)
        size = high if operands is None else np.array([float(o) for o in operands], np.float64)
        slack = np.zeros_like(high) if slacks is None else np.array([float(s) for s in slacks])
        return cls(high, low, np.abs(size), slack)

    def units(self, dtype: Any, classes: float) -> Float64s:
        """Return the spacing of `dtype` at the operands, with the floor of `classes` * smallest."""
        info = np.finfo(dtype)
        size = np.maximum(self.operand, classes * float(info.tiny))
        return np.asarray(np.ldexp(1.0, np.frexp(size)[1] - info.nmant - 1), np.float64)

    def allowance(self, stored: np.dtype[Any], computed: np.dtype[Any]) -> Float64s:
        """Return the absolute error that counts for nothing: slack, and rounding to `stored`."""
        return np.asarray(self.slack + _rounding(self.high, stored, computed), np.float64)

    def errors(self, got: Array, classes: float, dtype: Any = None) -> Float64s:
        """Return the errors of `got` in ulp of `dtype`, which it was computed in (its own if None).

        An infinity is right where the exact value rounds to it; NaN is infinitely wrong.
        """
        dtype = got.dtype if dtype is None else np.dtype(dtype)
        given = got.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            away = np.abs((given - self.high) - self.low)
            excess = away - self.allowance(got.dtype, dtype)
            error = np.maximum(excess, 0.0) / self.units(dtype, classes)
            right = np.isinf(given) & (given == self.high.astype(got.dtype).astype(np.float64))
        return np.where(right, 0.0, np.where(np.isfinite(error), error, np.inf))


def _rounding(values: Float64s, stored: np.dtype[Any], computed: np.dtype[Any]) -> Float64s:
    """Return what rounding to `stored` costs: half its spacing, if it is narrower."""
    info = ml_dtypes.finfo(stored)  # type: ignore[no-untyped-call]
    if info.nmant >= np.finfo(computed).nmant:
        return np.zeros_like(values)
    # The computed value may lie across the next power of two, where spacing doubles.
    exponent = np.frexp(np.abs(values) * (1 + 2.0**-20))[1] - 1
    lowest = int(np.frexp(float(info.smallest_normal))[1]) - 1
    return np.asarray(np.ldexp(0.5, np.maximum(exponent, lowest) - info.nmant), np.float64)
