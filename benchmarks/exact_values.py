"""Softmax cross-entropy in exact arithmetic, and errors in the units of docs/numerics.md."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

Array = npt.NDArray[Any]


class Exact(NamedTuple):
    """Values as unevaluated sums of two float64, and the magnitudes that set their units."""

    high: Array
    low: Array
    operand: Array

    @classmethod
    def of(cls, values: Sequence[mpf], operands: Sequence[mpf]) -> Exact:
        """Split exact values."""
        high = [float(v) for v in values]
        low = [float(v - h) for v, h in zip(values, high, strict=True)]
        return cls(np.array(high), np.array(low), np.array([abs(float(o)) for o in operands]))

    def spread(self, place: Array, label: int, at_label: Exact) -> Exact:
        """Return distinct values in their places, and the label's own value in its."""
        fields = [of_all[place] for of_all in self]
        for field, own in zip(fields, at_label, strict=True):
            field[label] = own[0]
        return Exact(*fields)

    def worst(self, got: Array, classes: int) -> float:
        """Return the largest error of `got` in ulp; infinite where it is not finite."""
        info = np.finfo(got.dtype)
        size = np.maximum(self.operand, classes * float(info.tiny))
        unit = np.ldexp(1.0, np.frexp(size)[1] - info.nmant - 1)
        with np.errstate(invalid="ignore"):
            errors = np.abs((got.astype(np.float64) - self.high) - self.low) / unit
        return float(np.where(np.isfinite(errors), errors, np.inf).max())


class Softmax(NamedTuple):
    """One row's distinct logits in exact arithmetic; `place` says where they stand."""

    digits: int
    logits: list[mpf]
    probabilities: list[mpf]
    log_normalizer: mpf
    place: Array
    counts: list[int]


@functools.lru_cache(maxsize=1)
def softmax(row: bytes, dtype: str) -> Softmax:
    """Return the softmax of a row of finite logits, given as bytes."""
    values, place, counts = np.unique(
        np.frombuffer(row, dtype), return_inverse=True, return_counts=True
    )
    numbers: list[float] = values.astype(np.float64).tolist()
    digits = 60 + int((numbers[-1] - numbers[0]) / 2.3)
    with mp.workdps(digits):
        logits = [mpf(v) for v in numbers]
        exponentials = [mp.exp(v - logits[-1]) for v in logits]
        how_often: list[int] = counts.tolist()
        total = mpmath.fsum(n * e for n, e in zip(how_often, exponentials, strict=True))
        shares = [e / total for e in exponentials]
        return Softmax(digits, logits, shares, logits[-1] + mp.log(total), place, how_often)


def exact(row: Array, label: int, smoothing: float) -> dict[str, Exact]:
    """Return the exact outputs of one row; unsmoothed ones under their own names."""
    s = softmax(row.tobytes(), row.dtype.name)
    suffix = ", smoothed" if smoothing else ""
    with mp.workdps(s.digits):
        part = mpf(smoothing) / row.size
        own = int(s.place[label])
        rest = mpmath.fsum(
            n * (s.log_normalizer - x) for n, x in zip(s.counts, s.logits, strict=True)
        )
        loss = (1 - mpf(smoothing)) * (s.log_normalizer - s.logits[own])
        loss += part * rest if smoothing else 0
        gradient = _gradient(s.probabilities, part, bool(smoothing))
        at_label = _gradient(
            s.probabilities[own : own + 1], part + 1 - mpf(smoothing), bool(smoothing)
        )
        found = {
            f"loss{suffix}": Exact.of([loss], [loss]),
            f"gradient{suffix}": gradient.spread(s.place, label, at_label),
        }
        if not smoothing:
            largest = max(abs(s.logits[-1]), abs(s.log_normalizer))
            shares = Exact.of(s.probabilities, s.probabilities)
            found["log_normalizer"] = Exact.of([s.log_normalizer], [largest])
            found["probabilities"] = Exact(*(field[s.place] for field in shares))
        return found


def _gradient(probabilities: Sequence[mpf], target: mpf, smoothed: bool) -> Exact:
    """Return p - t; smoothed ones are measured at the larger operand, the lesser complement."""
    values = [p - target for p in probabilities]
    if not smoothed:
        return Exact.of(values, values)
    complement = [max(1 - p, 1 - target) if p > 0.5 else mpf("inf") for p in probabilities]
    sizes = [max(p, target) for p in probabilities]
    return Exact.of(values, [min(s, c) for s, c in zip(sizes, complement, strict=True)])
