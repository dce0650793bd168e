"""One row's problem, and its target in exact arithmetic, whatever form it was given in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

REST_SLACK = 1 / 8
"""How far a bucket's rest may be off, in float64 ulp of the mass of all entries but the largest.

What the largest entry leaves is expm1 of its logarithm and has every digit; so has the rest, then,
where no other entry stands beside it.
"""


MOST_DEPTH = 2000
"""Beyond exp(-2000) nothing is left of a float64."""


@dataclass(frozen=True)
class Row:
    """A row of logits, its target in any of the forms, and the options that concern a row."""

    logits: tuple[float, ...]
    label: int | None = None
    probabilities: tuple[float, ...] | None = None
    indices: tuple[int, ...] | None = None
    log_probabilities: tuple[float, ...] | None = None
    hard_weight: float | None = None
    tail: str = "renormalize"
    class_weights: tuple[float, ...] | None = None
    mask: tuple[bool, ...] | None = None
    label_smoothing: float = 0.0
    smoothing: str = "all"
    z_loss: float = 0.0
    softcap: float | None = None
    temperature: float = 1.0
    vector: tuple[float, ...] | None = None
    loss_factor: Any = 1
    """Row weight times scale; a float or an mpf."""
    gradient_factor: Any = 1
    """The same over the divisor of the mean."""
    dtype: str = "float32"
    """What is computed in: the softcapped logits may be off by one of its ulp."""

    @property
    def kept(self) -> tuple[bool, ...]:
        return (True,) * len(self.logits) if self.mask is None else self.mask

    @property
    def is_soft(self) -> bool:
        """Whether a soft target takes part."""
        return self.probabilities is not None or self.indices is not None

    @property
    def is_given(self) -> bool:
        """Whether each t_j, its logarithm or their differences were passed, not computed."""
        computed = self.label_smoothing or (
            self.is_soft and (self.class_weights is not None or self.hard_weight is not None)
        )
        return not computed


def digits_of(row: Row) -> int:
    """Return how many digits a mass of 1 less the row's smallest one needs, besides 60."""
    logs = [v for v in row.log_probabilities or () if np.isfinite(v)]
    depth = max(logs, default=0.0) - min(logs, default=0.0) if row.tail == "renormalize" else 0.0
    if row.tail == "bucket":
        depth = -min(logs, default=0.0)
    return int(min(max(depth, 0.0), MOST_DEPTH) / 2.3)


@dataclass(frozen=True)
class Target:
    """Masses t_j, and the mass that is owed to a bucket of classes together.

    Attributes:
        masses: C of them; 0 where masked.
        rest: what the bucket is owed; 0 without one, or where no class is left for it.
        bucket: whether each class belongs to the bucket; masked ones do not.
        total: T, the sum of all masses and the rest.
        rest_slack: how far `rest` may be off.
    """

    masses: list[mpf]
    rest: mpf
    bucket: list[bool]
    total: mpf
    rest_slack: mpf


def target(row: Row) -> Target:
    """Return the target: soft one, mixed with the label, smoothed, weighted, in that order.

    A masked class is not there: its mass is dropped before a top-k is divided by its sum.
    """
    base, rest, slack = _mixed(row)
    weights = [mpf(1)] * len(base) if row.class_weights is None else [*map(mpf, row.class_weights)]
    masses = [
        w * b if keep else mpf(0)
        for w, b, keep in zip(weights, _smoothed(row, base), row.kept, strict=True)
    ]
    return Target(
        masses=masses,
        rest=rest,
        bucket=_bucket(row),
        total=mpmath.fsum(masses) + rest,
        rest_slack=slack,
    )


def _bucket(row: Row) -> list[bool]:
    """Return which classes a bucket gathers: those that take part and are not listed."""
    has_bucket = row.indices is not None and row.tail == "bucket"
    return [has_bucket and k and j not in (row.indices or ()) for j, k in enumerate(row.kept)]


def _mixed(row: Row) -> tuple[list[mpf], mpf, mpf]:
    soft, rest, slack = _soft(row)
    if row.label is None:
        return soft, rest, slack
    a = mpf(1) if row.hard_weight is None else mpf(row.hard_weight)
    base = [(1 - a) * b for b in soft]
    base[row.label] += a
    return base, (1 - a) * rest, (1 - a) * slack


def _soft(row: Row) -> tuple[list[mpf], mpf, mpf]:
    """Return a soft target's masses, what is left for a bucket, and how far that may be off."""
    masses, nothing = [mpf(0)] * len(row.logits), mpf(0)
    if row.probabilities is not None:
        dense = zip(row.probabilities, row.kept, strict=True)
        return [mpf(b) if keep else nothing for b, keep in dense], nothing, nothing
    if row.indices is None or row.log_probabilities is None:
        return masses, nothing, nothing
    for index, log_probability in zip(row.indices, row.log_probabilities, strict=True):
        if index >= 0 and row.kept[index]:
            masses[index] = mpmath.exp(log_probability)
    total = mpmath.fsum(masses)
    if row.tail == "renormalize" and total:
        masses = [b / total for b in masses]
    if not any(_bucket(row)):
        return masses, nothing, nothing
    others = float(total - max(masses))
    slack = mpf(REST_SLACK * float(np.spacing(others)) if others else 0.0)
    return masses, max(nothing, 1 - total), slack


def _smoothed(row: Row, base: list[mpf]) -> list[mpf]:
    """Return base with eps of it spread, over all classes or over those other than its own.

    `others` is the linear extension of a label's: mass b_i gives eps b_i / (C' - 1) to each other
    class. A single class has no others to give to, and loses eps.
    """
    eps, count = mpf(row.label_smoothing), sum(row.kept)
    if not eps:
        return base
    if row.smoothing == "all":
        return [(1 - eps) * b + eps / count for b in base]
    total = mpmath.fsum(base)
    return [(1 - eps) * b + (eps * (total - b) / (count - 1) if count > 1 else 0) for b in base]
