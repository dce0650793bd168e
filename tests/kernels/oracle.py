"""The slow twins of the kernels for labels: ten obvious lines of NumPy, and exact arithmetic.

`naive` shows what is computed; `exact` how well: see `reference`, which knows every target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mpf
from reference import outputs
from targets import Row
from ulps import Array, Exact

__all__ = ["ALL", "Array", "exact", "naive", "worst_errors"]

ALL = ("loss", "gradient", "log_normalizer", "probabilities")


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


def exact(
    row: Array,
    label: int,
    *,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    loss_factor: float | mpf = 1.0,
    gradient_factor: float | mpf = 1.0,
) -> dict[str, Exact]:
    """Return each output of one row of finite logits; factors are row weight, scale, divisor."""
    problem = Row(
        logits=tuple(row.tolist()),
        label=label,
        class_weights=None if class_weights is None else tuple(class_weights.tolist()),
        label_smoothing=label_smoothing,
        loss_factor=loss_factor,
        gradient_factor=gradient_factor,
    )
    return outputs(problem, ALL)


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
