"""One row's softmax in exact arithmetic, and what one ulp of a softcapped logit does to it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mp, mpf
from targets import Row

MOST_GAP = 2000
"""Beyond exp(-2000) nothing is left of a float64, times any weight of these tests."""

NOTHING = mpf("-inf")


@dataclass(frozen=True)
class Shares:
    """The softmax of the transformed logits, and its derivatives' common factor.

    Attributes:
        digits: decimal digits that every formula on this row needs.
        logits: z_j; -inf where masked.
        exponentials: exp(z_j - maximum); 0 where masked.
        probabilities: p_j; 0 where masked.
        maximum: the largest z_j.
        log_normalizer: log of the sum of exp(z_j).
        chain: dz_j / dx_j.
        logit_slack: how far each z_j may be off: 1 ulp of the softcap's result, over tau.
        chain_slack: what that does to `chain`, which is (1 - (tau z_j / s)^2) / tau of that z_j.
        log_slack: what it does to each log p_j.
    """

    digits: int
    logits: list[mpf]
    exponentials: list[mpf]
    probabilities: list[mpf]
    maximum: mpf
    log_normalizer: mpf
    chain: list[mpf]
    logit_slack: list[mpf]
    chain_slack: list[mpf]
    log_slack: list[mpf]


def shares(row: Row) -> Shares:
    """Return the softmax of a row whose largest logit is finite."""
    return _shares(row.logits, row.mask, row.softcap, row.temperature, row.dtype)


@functools.lru_cache(maxsize=4096)
def _shares(
    logits: tuple[float, ...],
    mask: tuple[bool, ...] | None,
    softcap: float | None,
    temperature: float,
    dtype: str,
) -> Shares:
    """mp.exp is called once a distinct value, which makes rows of few values cheap."""
    kept = [True] * len(logits) if mask is None else mask
    values = {x for x, keep in zip(logits, kept, strict=True) if keep}
    finite = [x for x in values if x > -np.inf]
    gap = (max(finite) - min(finite)) / temperature
    digits = 60 + int(min(gap, MOST_GAP) / 2.3)
    with mp.workdps(digits):
        tau = mpf(temperature)
        capped = {x: _capped(x, softcap) for x in values}
        maximum = max(capped[x] for x in finite) / tau
        exponential = {x: mp.exp(y / tau - maximum) for x, y in capped.items()}
        exps = [exponential[x] if k else mpf(0) for x, k in zip(logits, kept, strict=True)]
        total = mpmath.fsum(exps)
        z = [capped[x] / tau if k else NOTHING for x, k in zip(logits, kept, strict=True)]
        p = [e / total for e in exps]
        zeros = [mpf(0)] * len(p)
        slack, chain, chain_slack = zeros, [1 / tau if k else mpf(0) for k in kept], zeros
        if softcap is not None:
            y = [capped[x] if k else mpf(0) for x, k in zip(logits, kept, strict=True)]
            slack = [_ulp(v, dtype) / tau for v in y]
            parts = [v / softcap for v in y]
            chain = [(1 - t * t) * c for t, c in zip(parts, chain, strict=True)]
            steps = [d * tau / softcap for d in slack]
            chain_slack = [(2 * abs(t) + d) * d / tau for t, d in zip(parts, steps, strict=True)]
        return Shares(
            digits=digits,
            logits=z,
            exponentials=exps,
            probabilities=p,
            maximum=maximum,
            log_normalizer=maximum + mp.log(total),
            chain=chain,
            logit_slack=slack,
            chain_slack=chain_slack,
            log_slack=_log_slack(p, slack) if softcap is not None else zeros,
        )


def _capped(x: float, softcap: float | None) -> mpf:
    return mpf(x) if softcap is None else softcap * mp.tanh(mpf(x) / softcap)


def _ulp(value: mpf, dtype: str) -> mpf:
    return mpf(float(np.spacing(np.abs(np.dtype(dtype).type(float(value))))))


def _log_slack(p: list[mpf], slack: list[mpf]) -> list[mpf]:
    """Return sum_i |delta_ij - p_i| slack_i: log p_j's change to first order.

    The second order is exp(2 slack) - 1 over 2 slack at most, and is added.
    """
    mean = mpmath.fsum(a * d for a, d in zip(p, slack, strict=True))
    more = mp.exp(2 * max(slack))
    return [more * ((1 - 2 * a) * d + mean) for a, d in zip(p, slack, strict=True)]
