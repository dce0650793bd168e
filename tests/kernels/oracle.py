"""The slow twins of the kernels: ten obvious lines of NumPy, and the same in exact arithmetic.

`naive` shows what is computed; `exact` how well. `exact` works with 60 + gap / 2.3 decimal digits,
where gap is the largest distance of a logit from its row's maximum: with fewer, 1 - p is lost
([200, 0] at 50 digits gives 0). Errors are in units in the last place: the spacing of the
result's type at the exact value or, for differences, at the larger operand.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]

ALL = ("loss", "gradient", "log_normalizer", "probabilities")
MOST_GAP = 2000
"""Beyond exp(-2000) nothing is left of a float64, times any class weight of these tests."""


def naive(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "none",
    denominator: float | None = None,
    scale: float = 1.0,
) -> dict[str, Any]:
    """Return every output and sum for [N, C] logits, in float64 and as textbooks write them."""
    x, y = np.array(logits, np.float64), np.array(labels, np.int64)
    w = np.ones(x.shape[1]) if class_weights is None else np.array(class_weights, np.float64)
    r = np.ones(len(x)) if row_weights is None else np.array(row_weights, np.float64)
    r, y = r * (y != ignore_index), np.where(y == ignore_index, 0, y)
    t = w * ((1 - label_smoothing) * np.eye(x.shape[1])[y] + label_smoothing / x.shape[1])
    lse = np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1)
    p = np.exp(x - lse[:, None])
    loss = scale * r * (t * np.where(t > 0, lse[:, None] - x, 0)).sum(1)
    weight_sum = float((r * w[y]).sum())
    divisor = (denominator or weight_sum) if reduction == "mean" else 1.0
    return {
        "loss": loss if reduction == "none" else loss.sum() / divisor,
        "gradient": (scale * r / divisor)[:, None] * (t.sum(1, keepdims=True) * p - t),
        "log_normalizer": np.where(r > 0, lse, 0),
        "probabilities": np.where(r[:, None] > 0, p, 0),
        "loss_sum": loss.sum(),
        "weight_sum": weight_sum,
        "count": int((r > 0).sum()),
    }


class Exact(NamedTuple):
    """Exact values as unevaluated sums of two float64, and the magnitudes that set their units."""

    high: Float64s
    low: Float64s
    operand: Float64s

    @classmethod
    def of(cls, values: Sequence[mpf], operands: Sequence[mpf] | None = None) -> Exact:
        """Return exact values; without operands each value sets its own unit."""
        high = np.array([float(v) for v in values])
        low = np.array([float(v - h) for v, h in zip(values, high.tolist(), strict=True)])
        return cls(high, low, np.abs(high if operands is None else [float(o) for o in operands]))

    def errors(self, got: Array, classes: int) -> Float64s:
        """Return the errors of `got` in ulp of its type, with the floor of `classes` * smallest."""
        info = np.finfo(got.dtype)
        size = np.maximum(self.operand, classes * float(info.tiny))
        unit = np.ldexp(1.0, np.frexp(size)[1] - info.nmant - 1)
        return np.asarray(np.abs((got - self.high) - self.low) / unit, np.float64)


@dataclass(frozen=True)
class Softmax:
    """One row's softmax in exact arithmetic."""

    digits: int
    logits: list[mpf]
    probabilities: list[mpf]
    log_normalizer: mpf
    outputs: dict[str, Exact]
    """What does not depend on the target: probabilities and log-normaliser."""


@functools.lru_cache(maxsize=4096)
def softmax(row: tuple[float, ...]) -> Softmax:
    """Return the softmax of a row of finite logits; mp.exp is called once a distinct value."""
    maximum = max(row)
    digits = 60 + int(min(maximum - min(row), MOST_GAP) / 2.3)
    with mp.workdps(digits):
        exps = {v: mp.exp(mpf(v) - mpf(maximum)) for v in set(row)}
        total = mpmath.fsum(exps[v] for v in row)
        shares = {v: e / total for v, e in exps.items()}
        lse = mpf(maximum) + mp.log(total)
        return Softmax(
            digits=digits,
            logits=[mpf(v) for v in row],
            probabilities=[shares[v] for v in row],
            log_normalizer=lse,
            outputs={
                "probabilities": Exact.of([shares[v] for v in row]),
                "log_normalizer": Exact.of([lse], [max(abs(mpf(maximum)), abs(lse))]),
            },
        )


def exact(
    row: Array,
    label: int,
    *,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    loss_factor: float | mpf = 1.0,
    gradient_factor: float | mpf = 1.0,
) -> dict[str, Exact]:
    """Return each output of one row of finite logits; the factors are row weight, scale, divisor.

    The unit of a smoothed gradient is that of the larger of T p_j and t_j or, where p_j > 1/2, of
    the larger of T (1 - p_j) and T - t_j if that is smaller.
    """
    s = softmax(tuple(row.tolist()))
    classes = len(s.logits)
    with mp.workdps(s.digits):
        w = (
            [mpf(1)] * classes
            if class_weights is None
            else [mpf(v) for v in class_weights.tolist()]
        )
        eps = mpf(label_smoothing)
        t = [v * eps / classes for v in w]
        t[label] += w[label] * (1 - eps)
        mass = mpmath.fsum(t)
        loss = mpmath.fsum(
            a * (s.log_normalizer - z) for a, z in zip(t, s.logits, strict=True) if a
        )
        values = [mass * p - a for p, a in zip(s.probabilities, t, strict=True)]
        units = values
        if eps:
            units = [_unit(mass, p, a) for p, a in zip(s.probabilities, t, strict=True)]
        factor = mpf(gradient_factor)
        return {
            "loss": Exact.of([loss * mpf(loss_factor)]),
            "gradient": Exact.of([v * factor for v in values], [u * factor for u in units]),
            **s.outputs,
        }


def _unit(mass: mpf, p: mpf, t: mpf) -> mpf:
    larger = max(mass * p, t)
    return min(larger, max(mass * (1 - p), mass - t)) if p > 0.5 else larger


def worst_errors(
    result: Any, logits: Array, labels: Sequence[int], **options: Any
) -> dict[str, float]:
    """Return the largest error of each output over a batch, in ulp."""
    worst = dict.fromkeys(ALL, 0.0)
    for i, label in enumerate(labels):
        wanted = exact(logits[i], label, **options)
        for name in ALL:
            got = np.atleast_1d(getattr(result, name)[i])
            assert got.dtype == logits.dtype
            worst[name] = max(worst[name], float(wanted[name].errors(got, logits.shape[1]).max()))
    return worst
