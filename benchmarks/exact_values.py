"""Softmax cross-entropy in exact arithmetic, and errors in the units of docs/numerics.md.

A row counts as its distinct pairs of logit and target, each with how often it occurs: sums over
the classes become sums over pairs, and nothing is approximated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mpmath
import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

Array = npt.NDArray[Any]

MOST_GAP = 2_000.0
"""Beyond exp(-2000) nothing is left of a float64."""


class Exact(NamedTuple):
    """Values as unevaluated sums of two float64, and the magnitudes that set their units."""

    high: Array
    low: Array
    operand: Array

    @classmethod
    def of(cls, values: Sequence[mpf], operands: Sequence[mpf] | None = None) -> Exact:
        """Split exact values; without operands each sets its own unit."""
        high = [float(v) for v in values]
        low = [float(v - h) for v, h in zip(values, high, strict=True)]
        sizes = high if operands is None else [float(o) for o in operands]
        return cls(np.array(high), np.array(low), np.abs(np.array(sizes)))

    def spread(self, place: Array) -> Exact:
        """Return distinct values in their places."""
        return Exact(*(field[place] for field in self))

    def worst(self, got: Array, classes: int) -> float:
        """Return the largest error of `got` in ulp; infinite where it is not finite."""
        info = np.finfo(got.dtype)
        size = np.maximum(self.operand, classes * float(info.tiny))
        unit = np.ldexp(1.0, np.frexp(size)[1] - info.nmant - 1)
        with np.errstate(invalid="ignore"):
            errors = np.abs((got.astype(np.float64) - self.high) - self.low) / unit
        return float(np.where(np.isfinite(errors), errors, np.inf).max())


class Softmax(NamedTuple):
    """A row's distinct logits over the temperature; `place` says where they stand."""

    digits: int
    logits: list[mpf]
    probabilities: list[mpf]
    log_normalizer: mpf
    place: Array


@functools.lru_cache(maxsize=4)
def softmax(row: bytes, dtype: str, temperature: float) -> Softmax:
    """Return the softmax of a row of finite logits, given as bytes."""
    values, place, counts = np.unique(
        np.frombuffer(row, dtype), return_inverse=True, return_counts=True
    )
    numbers: list[float] = values.astype(np.float64).tolist()
    gap = min((numbers[-1] - numbers[0]) / temperature, MOST_GAP)
    with mp.workdps(60 + int(gap / 2.3)):
        logits = [mpf(v) / mpf(temperature) for v in numbers]
        exponentials = [mp.exp(v - logits[-1]) for v in logits]
        total = mpmath.fsum(n * e for n, e in zip(counts.tolist(), exponentials, strict=True))
        shares = [e / total for e in exponentials]
        return Softmax(mp.dps, logits, shares, logits[-1] + mp.log(total), place)


@dataclass(frozen=True, eq=False)
class Target:
    """A target that has a number for each class, and how the exact one follows from it.

    `exact` turns the number into t_j, in exact arithmetic; `is_label` says that the gradient is
    measured at its own size.
    """

    numbers: Array
    exact: Callable[[float], mpf]
    is_label: bool = False


class Pairs(NamedTuple):
    """A row's distinct pairs of logit and target."""

    s: Softmax
    logits: list[mpf]
    probabilities: list[mpf]
    targets: list[mpf]
    counts: list[int]
    place: Array
    """Which pair stands at each class."""
    is_label: bool
    tau: mpf
    vector: list[mpf]

    def total(self, terms: Sequence[mpf]) -> mpf:
        """Return the sum over all classes."""
        return mpmath.fsum(n * v for n, v in zip(self.counts, terms, strict=True))


def exact(
    row: Array, target: Target, temperature: float, vector: Array, names: Sequence[str]
) -> dict[str, Exact]:
    """Return exact outputs of one row by name; `vector` depends on the logit alone."""
    s = softmax(row.tobytes(), row.dtype.name, temperature)
    numbers, which = np.unique(target.numbers, return_inverse=True)
    pairs, first, place, counts = np.unique(
        s.place.astype(np.int64) * len(numbers) + which,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    with mp.workdps(s.digits):
        given = [target.exact(float(v)) for v in numbers]
        own = (pairs // len(numbers)).tolist()
        p = Pairs(
            s,
            [s.logits[i] for i in own],
            [s.probabilities[i] for i in own],
            [given[i] for i in (pairs % len(numbers)).tolist()],
            counts.tolist(),
            place,
            target.is_label,
            mpf(temperature),
            [mpf(float(x)) for x in vector[first]],
        )
        found = {}
        for name in names:
            values = FORMULAS[name](p)
            found[name] = values if len(values.high) == 1 else values.spread(place)
        return found


def _loss(p: Pairs) -> Exact:
    lse = p.s.log_normalizer
    terms = [t * (lse - x) if t else t for t, x in zip(p.targets, p.logits, strict=True)]
    return Exact.of([p.total(terms)])


def _gradient(p: Pairs) -> Exact:
    """T p - t; other than a label's at the larger operand, or that of the complements."""
    mass = p.total(p.targets)
    both = list(zip(p.probabilities, p.targets, strict=True))
    values = [(mass * a - t) / p.tau for a, t in both]
    if p.is_label:
        return Exact.of(values)
    sizes = []
    for a, t in both:
        size = max(mass * a, t)
        size = min(size, max(mass * (1 - a), mass - t)) if a > 0.5 else size
        sizes.append(size / p.tau)
    return Exact.of(values, [max(s, abs(g)) for s, g in zip(sizes, values, strict=True)])


def _log_normalizer(p: Pairs) -> Exact:
    lse = p.s.log_normalizer
    return Exact.of([lse], [max(abs(p.s.logits[-1]), abs(lse))])


def _probabilities(p: Pairs) -> Exact:
    return Exact.of(p.probabilities)


def _log_probabilities(p: Pairs) -> Exact:
    return Exact.of([x - p.s.log_normalizer for x in p.logits])


def _entropy(p: Pairs) -> Exact:
    lse = p.s.log_normalizer
    terms = [a * (lse - x) for a, x in zip(p.probabilities, p.logits, strict=True)]
    return Exact.of([p.total(terms)])


def _target_entropy(p: Pairs) -> Exact:
    return Exact.of([p.total([-t * mp.log(t) if t else t for t in p.targets])])


def _hessian_diagonal(p: Pairs) -> Exact:
    mass = p.total(p.targets)
    return Exact.of([mass * a * (1 - a) / p.tau**2 for a in p.probabilities])


def _hessian_vector_product(p: Pairs) -> Exact:
    """Differences of the vector from its entry at the top: equal entries give exactly zero."""
    mass, at_top = p.total(p.targets), p.vector[p.logits.index(max(p.logits))]
    v = [x - at_top for x in p.vector]
    mean = p.total([a * x for a, x in zip(p.probabilities, v, strict=True)])
    values = [mass * a * (x - mean) / p.tau**2 for a, x in zip(p.probabilities, v, strict=True)]
    width = max(abs(x) for x in v)
    sizes = [mass * a * width / p.tau**2 for a in p.probabilities]
    return Exact.of(values, [max(s, abs(g)) for s, g in zip(sizes, values, strict=True)])


FORMULAS: dict[str, Callable[[Pairs], Exact]] = {
    "loss": _loss,
    "gradient": _gradient,
    "log_normalizer": _log_normalizer,
    "probabilities": _probabilities,
    "log_probabilities": _log_probabilities,
    "entropy": _entropy,
    "target_entropy": _target_entropy,
    "hessian_diagonal": _hessian_diagonal,
    "hessian_vector_product": _hessian_vector_product,
}
