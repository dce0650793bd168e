"""Every output of one row in exact arithmetic, each with the unit its error is measured in.

Formulas are the textbooks', not the kernels': with 60 + gap / 2.3 digits nothing cancels that is
looked at, gap being the largest distance of a logit from its row's maximum. Here u_j stands for
what class j is owed of the target: t_j, or rest p_j / P in a bucket whose probability is P. Every
gradient by the transformed logits z is T p_j - u_j, and z-loss adds 2 z_loss lse p_j.

Units where several terms meet are those of the largest term, and not below the result's own. A
log-normaliser is known to a unit of M = max(|m|, |lse|) only, so the term of the z-loss is taken
at the size 2 z_loss |lse| M, its derivative times M, in the loss, and with M for lse in
derivatives of the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import mpmath
import numpy as np
from mpmath import mp, mpf
from shares import Shares, shares
from targets import Row, Target, digits_of, target
from ulps import Exact


class Problem(NamedTuple):
    """A row, its softmax, its target, and what most formulas need of the three."""

    row: Row
    s: Shares
    t: Target
    bucket: mpf
    """P, the probability of the bucket."""
    inside: list[mpf]
    """Each class's share of the bucket, p_j / P; 0 outside it or where nothing is owed to it."""
    size: mpf
    """M, the size at which the log-normaliser is known."""


def problem(row: Row) -> Problem:
    """Return a row with its softmax and target; its largest unmasked logit must be finite."""
    s = shares(row)
    s = dataclasses.replace(s, digits=max(s.digits, 60 + digits_of(row)))
    with mp.workdps(s.digits):
        t = target(row)
        zero = mpf(0)
        shares_ = [a if b else zero for a, b in zip(s.probabilities, t.bucket, strict=True)]
        bucket = mpmath.fsum(shares_)
        owed = t.rest or t.rest_slack
        inside = [a / bucket if owed and a else zero for a in shares_]
        size = max(abs(s.maximum), abs(s.log_normalizer))
        return Problem(row, s, t, bucket, inside, size)


def outputs(row: Row, names: Iterable[str]) -> dict[str, Exact]:
    """Return outputs by name; `hessian_vector_product` is one of them if the row has a vector."""
    p = problem(row)
    with mp.workdps(p.s.digits):
        return {name: FORMULAS[name](p) for name in names}


def _loss(p: Problem) -> Exact:
    factor = mpf(p.row.loss_factor)
    terms = [t * (p.s.log_normalizer - z) for t, z in zip(p.t.masses, p.s.logits, strict=True) if t]
    lse, z_loss = p.s.log_normalizer, mpf(p.row.z_loss)
    tail = -mp.log(p.bucket) if p.t.rest or (p.t.rest_slack and p.bucket) else mpf(0)
    value = mpmath.fsum(terms) + p.t.rest * tail
    slack = p.t.rest_slack * (tail if mp.isfinite(tail) else 0) + _loss_slack(p)
    operand = max(value + z_loss * lse**2, 2 * z_loss * abs(lse) * p.size)
    total = value + z_loss * lse**2
    # Also a loss of 0 times a negative scale is 0, and an infinite one times 0 has no value.
    return Exact.of([factor * total], [abs(factor) * operand], [abs(factor) * slack])


def _loss_slack(p: Problem) -> mpf:
    """Return the change of the loss within the slack of the softcapped logits."""
    if p.row.softcap is None:
        return mpf(0)
    masses = mpmath.fsum(t * d for t, d in zip(p.t.masses, p.s.log_slack, strict=True))
    return masses + p.t.rest * _bucket_slack(p) + 2 * p.row.z_loss * _lse_change(p)


def _lse_slack(p: Problem) -> mpf:
    if p.row.softcap is None:
        return mpf(0)
    return mpmath.fsum(a * d for a, d in zip(p.s.probabilities, p.s.logit_slack, strict=True))


def _lse_change(p: Problem) -> mpf:
    """Return the change of lse^2 / 2."""
    slack = _lse_slack(p)
    return slack * (abs(p.s.log_normalizer) + slack)


def _bucket_slack(p: Problem) -> mpf:
    """Return the change of log P: sum of |p_i / P (bucket) - p_i| slack_i."""
    shares_ = zip(p.inside, p.s.probabilities, p.s.logit_slack, strict=True)
    return mpmath.fsum(abs(q - a) * d for q, a, d in shares_)


def _log_normalizer(p: Problem) -> Exact:
    return Exact.of([p.s.log_normalizer], [p.size], [_lse_slack(p)])


def _probabilities(p: Problem) -> Exact:
    values = p.s.probabilities
    if p.row.softcap is None:
        return Exact.of(values)
    slacks = [a * d for a, d in zip(values, p.s.log_slack, strict=True)]
    return Exact.of(values, slacks=slacks)


def _log_probabilities(p: Problem) -> Exact:
    values = [z - p.s.log_normalizer for z in p.s.logits]
    return Exact.of(values, slacks=p.s.log_slack)


def _entropy(p: Problem) -> Exact:
    lse = p.s.log_normalizer
    rows = zip(p.s.probabilities, p.s.logits, p.s.log_slack, strict=True)
    terms = [(a * (lse - z), d) for a, z, d in rows if a]
    slack = mpmath.fsum(v * d for v, d in terms)
    return Exact.of([mpmath.fsum(v for v, _ in terms)], slacks=[slack])


def _target_entropy(p: Problem) -> Exact:
    """Return -sum t log t over masses and rest: the least loss there is where T = 1.

    Masses above 1 give negative terms: the unit is that of the larger partial sum. Where masses
    are computed, log t is no better than t, so the unit is not below that of the largest mass.
    """
    masses = [t for t in p.t.masses if t] + ([p.t.rest] if p.t.rest else [])
    # Hundreds of digits, for logits far apart, are not needed.
    with mp.workdps(100 + digits_of(p.row)):
        terms = [-t * mp.log(t) for t in masses]
    sums = [mpmath.fsum(v for v in terms if v > 0), -mpmath.fsum(v for v in terms if v < 0)]
    if not p.row.is_given:
        sums.append(max(masses, default=mpf(0)))
    slack = p.t.rest_slack
    if slack:
        slack *= 1 - mp.log(max(p.t.rest, slack))
    return Exact.of([mpmath.fsum(terms)], [max(sums)], [slack])


def gradient_by_logits(p: Problem) -> list[mpf]:
    """Return dL/dz_j of the loss before its factor."""
    extra = p.t.total + 2 * p.row.z_loss * p.s.log_normalizer
    return [extra * a - u for a, u in zip(p.s.probabilities, _owed(p), strict=True)]


def _owed(p: Problem) -> list[mpf]:
    if not p.t.rest:
        return p.t.masses
    return [t + p.t.rest * q for t, q in zip(p.t.masses, p.inside, strict=True)]


def _gradient(p: Problem) -> Exact:
    factor, by_logits = mpf(p.row.gradient_factor), gradient_by_logits(p)
    values = [factor * c * g for c, g in zip(p.s.chain, by_logits, strict=True)]
    sizes = _gradient_operands(p, by_logits)
    operands = [abs(factor) * c * o for c, o in zip(p.s.chain, sizes, strict=True)]
    if p.row.softcap is None and not p.t.rest_slack:
        return Exact.of(values, operands)
    changes = zip(p.s.chain, p.s.chain_slack, _gradient_slacks(p), by_logits, strict=True)
    slacks = [abs(factor) * ((c + d) * change + d * abs(g)) for c, d, change, g in changes]
    return Exact.of(values, operands, slacks)


def _gradient_operands(p: Problem, by_logits: list[mpf]) -> Iterator[mpf]:
    """A label's is its own unit; others the larger of T p_j and u_j, or of T (1 - p_j) and T - u_j.

    Nothing is asked to be closer than the spacing at the value itself, once z-loss adds to it.
    """
    label_only = not p.row.is_soft and not p.row.label_smoothing
    z_loss = 2 * mpf(p.row.z_loss) * p.size
    for a, u, g in zip(p.s.probabilities, _owed(p), by_logits, strict=True):
        soft = abs(p.t.total * a - u) if label_only else _operand(p.t.total, a, u)
        yield max(soft, z_loss * a, abs(g))


def _operand(total: mpf, share: mpf, owed: mpf) -> mpf:
    larger = max(total * share, owed)
    return min(larger, max(total * (1 - share), total - owed)) if share > 0.5 else larger


def _gradient_slacks(p: Problem) -> Iterator[mpf]:
    lse = 2 * mpf(p.row.z_loss) * (abs(p.s.log_normalizer) + _lse_slack(p))
    of_lse = 2 * mpf(p.row.z_loss) * _lse_slack(p)
    within = mpmath.fsum(q * d for q, d in zip(p.inside, p.s.logit_slack, strict=True))
    for j, (a, q) in enumerate(zip(p.s.probabilities, p.inside, strict=True)):
        of_share = (p.t.total + lse) * a * p.s.log_slack[j] + of_lse * a
        in_bucket = p.t.rest * q * (p.s.logit_slack[j] + within)
        yield of_share + in_bucket + p.t.rest_slack * (a + q)


def _hessian_diagonal(p: Problem) -> Exact:
    """Return T p (1 - p) - rest q (1 - q) + 2 z_loss (p^2 + lse p (1 - p)), q = p / P, over tau^2.

    It is the derivative of the gradient returned: the bucket's term and the z-loss's belong to it.
    """
    factor, z_loss = mpf(p.row.gradient_factor) / mpf(p.row.temperature) ** 2, 2 * mpf(p.row.z_loss)
    values, operands, slacks = [], [], []
    for a, q in zip(p.s.probabilities, p.inside, strict=True):
        spread, inner = a * (1 - a), q * (1 - q)
        change = p.t.rest * inner
        extra = z_loss * (a * a + p.s.log_normalizer * spread)
        values.append(factor * (p.t.total * spread - change + extra))
        sizes = (p.t.total * spread, change, z_loss * a * a, z_loss * p.size * spread)
        operands.append(max(abs(factor) * max(sizes), abs(values[-1])))
        slacks.append(abs(factor) * p.t.rest_slack * (spread + inner))
    return Exact.of(values, operands, slacks)


def _hessian_vector_product(p: Problem) -> Exact:
    """Return the product of the loss's Hessian by the logits and the row's vector.

    Its units are those of T p_j, rest q_j and 2 z_loss M p_j times max |v - v_k|, k the first
    maximum, and of 2 z_loss p_j max |v|.
    """
    assert p.row.vector is not None
    factor, z_loss = mpf(p.row.gradient_factor) / mpf(p.row.temperature) ** 2, 2 * mpf(p.row.z_loss)
    v = [mpf(x) if keep else mpf(0) for x, keep in zip(p.row.vector, p.row.kept, strict=True)]
    mean = mpmath.fsum(a * x for a, x in zip(p.s.probabilities, v, strict=True))
    inner = mpmath.fsum(q * x for q, x in zip(p.inside, v, strict=True))
    width, height = vector_sizes(p.row, p.s)
    scale = p.t.total + z_loss * p.s.log_normalizer
    values, operands, slacks = [], [], []
    for a, q, x in zip(p.s.probabilities, p.inside, v, strict=True):
        centred = scale * a * (x - mean) - p.t.rest * q * (x - inner)
        values.append(factor * (centred + z_loss * a * mean))
        sizes = (p.t.total * a, p.t.rest * q, z_loss * p.size * a)
        size = abs(factor) * max(max(sizes) * width, z_loss * a * height)
        operands.append(max(size, abs(values[-1])))
        slacks.append(abs(factor) * p.t.rest_slack * (a + q) * width)
    return Exact.of(values, operands, slacks)


def vector_sizes(row: Row, s: Shares) -> tuple[mpf, mpf]:
    """Return max |v - v_k| and max |v| over unmasked classes; k is the first maximum."""
    assert row.vector is not None
    kept = [mpf(x) for x, keep in zip(row.vector, row.kept, strict=True) if keep]
    reference = mpf(row.vector[s.logits.index(s.maximum)])
    return max(abs(x - reference) for x in kept), max(abs(x) for x in kept)


FORMULAS: dict[str, Callable[[Problem], Exact]] = {
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


class Places(NamedTuple):
    """What prediction and rank may be: one value each, unless a softcap blurs near ties."""

    predictions: set[int]
    ranks: range


def places(row: Row) -> Places:
    """Return the lowest index of the maximum, and how many classes stand before the label.

    Softcapped logits may tie where the logits do not, and are within 1 ulp of the exact ones.
    """
    if row.softcap is None:
        x = [v if k else -np.inf for v, k in zip(row.logits, row.kept, strict=True)]
        return Places({x.index(max(x))}, _ranks(x, row, [0.0] * len(x)))
    s = shares(row)
    z = [float(v) for v in s.logits]
    blur = [2 * float(d) for d in s.logit_slack]
    best = max(v - d for v, d in zip(z, blur, strict=True))
    near = {j for j, (v, d) in enumerate(zip(z, blur, strict=True)) if v + d >= best}
    return Places(near, _ranks(z, row, blur))


def _ranks(z: list[float], row: Row, blur: list[float]) -> range:
    """Return every rank that the label may have."""
    if row.label is None:
        return range(0)
    own, above, near = z[row.label], 0, 0
    for j, keep in enumerate(row.kept):
        if keep and j != row.label:
            tolerance = blur[j] + blur[row.label]
            equal = abs(z[j] - own) <= tolerance if z[j] != own else True
            above += not equal and z[j] > own
            above += equal and not tolerance and j < row.label
            near += equal and tolerance > 0
    return range(above, above + near + 1)
