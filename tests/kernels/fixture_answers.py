"""The exact answers of a published call, and the units that errors are counted in, as tensors.

    expected.X      the exact answer, rounded to float64
    expected.X_low  what is left of it, for float64 logits
    ulp.X           one unit in the last place as docs/numerics.md counts it, the floor included
    slack.X         the absolute error that counts for nothing, where there is any

An answer without a unit is exact: integers, booleans and the sum of weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cases import EVERY_OUTPUT, PER_LOGIT, PLACES, Case
from checks import floor, limit, ordinary
from mpmath import mp, mpf
from reference import outputs, places
from ulps import Array, Exact, Float64s


class Answer(NamedTuple):
    """Exact values in two parts, their units and slacks; all of one shape."""

    high: Float64s
    low: Float64s
    ulp: Float64s
    slack: Float64s

    @classmethod
    def blank(cls, shape: tuple[int, ...], case: Case) -> Answer:
        """Return zeros in the smallest unit."""
        smallest = Exact.of([mpf(0)]).units(case.computed, case.logits.shape[1])
        zeros = np.zeros((3, *shape))
        return cls(zeros[0], zeros[1], np.full(shape, smallest[0]), zeros[2])

    def at(self, i: int) -> Answer:
        """Return views of row i."""
        return Answer(*(part[i : i + 1].reshape(-1) for part in self))


def bounds(case: Case) -> dict[str, float]:
    """Return how many units each answer that is not exact may be off."""
    own = {name: limit(case, name) for name in case.outputs if name not in PLACES}
    return own | ({"loss_sum": own["loss"]} if "loss" in own else {})


def expected(case: Case, *, sums: bool) -> dict[str, Array]:
    """Return every tensor of the answers; with `sums` also loss_sum, weight_sum and count."""
    names = tuple(name for name in case.outputs if name not in PLACES)
    answers = _rows(case, names)
    if "loss" in answers:
        answers |= _sums(case, answers["loss"])
    tensors: dict[str, Array] = {}
    for name, answer in answers.items():
        if name != "loss_sum" or sums:
            tensors |= _tensors(name, answer, case)
    tensors |= {f"expected.{name}": value for name, value in _places(case).items()}
    if sums:
        weight_sum, count, _ = case.sums
        tensors["expected.weight_sum"] = np.asarray(weight_sum, np.float64)
        tensors["expected.count"] = np.asarray(count, np.int64)
    return tensors


def _tensors(name: str, answer: Answer, case: Case) -> dict[str, Array]:
    tensors: dict[str, Array] = {f"expected.{name}": answer.high, f"ulp.{name}": answer.ulp}
    if case.logits.dtype == np.float64:
        tensors[f"expected.{name}_low"] = answer.low
    if answer.slack.any():
        tensors[f"slack.{name}"] = answer.slack
    return tensors


def _rows(case: Case, names: tuple[str, ...]) -> dict[str, Answer]:
    """Return float answers a row: NaN where it is broken, 0 where it is ignored."""
    of_logits = (*PER_LOGIT, "hessian_vector_product")
    shapes = {
        name: case.logits.shape if name in of_logits else (len(case.logits),) for name in names
    }
    answers = {name: Answer.blank(shape, case) for name, shape in shapes.items()}
    for answer in answers.values():
        answer.high[case.rows.broken] = np.nan
    for i in ordinary(case):
        row = case.row(i)
        for name, exact in outputs(row, names).items():
            stored = case.stored if name in of_logits else case.computed
            _write(answers[name].at(i), exact, case, floor(case, row, name), stored)
    return answers


def _write(
    place: Answer, exact: Exact, case: Case, floor: float, stored: np.dtype[np.generic]
) -> None:
    finite = np.isfinite(exact.high)
    place.high[:], place.low[:] = exact.high, exact.low
    place.ulp[finite] = exact.units(case.computed, floor)[finite]
    place.slack[finite] = exact.allowance(stored, case.computed)[finite]


def _sums(case: Case, loss: Answer) -> dict[str, Answer]:
    """Return the sum of losses and, where it is reduced, the loss.

    A unit of the sum is all of its rows' units; the sum is rounded once, its quotient once more.
    """
    answers = {"loss_sum": _quotient(loss, 1.0)}
    if case.option("reduction") != "none":
        answers["loss"] = _quotient(loss, case.sums[2])
    return answers


def _quotient(loss: Answer, divisor: float) -> Answer:
    high, low = float(loss.high.sum()), 0.0
    ulp, slack = float(loss.ulp.sum()) / divisor, float(loss.slack.sum()) / divisor
    if np.isfinite(high):
        with mp.workdps(700):
            total = mp.fsum(map(mpf, [*loss.high.tolist(), *loss.low.tolist()])) / mpf(divisor)
            high = float(total)
            low = float(total - mpf(high))
        slack += float(np.spacing(abs(high)))
    return Answer(*(np.asarray(part, np.float64) for part in (high, low, ulp, slack)))


def _places(case: Case) -> dict[str, Array]:
    """Return prediction, correct and rank; no row may leave a choice."""
    n = len(case.logits)
    found = {"prediction": np.full(n, -1), "correct": np.zeros(n, bool), "rank": np.full(n, -1)}
    for i in ordinary(case):
        allowed = places(case.row(i))
        (found["prediction"][i],) = allowed.predictions
        if case.row(i).label is not None:
            (found["rank"][i],) = allowed.ranks
            found["correct"][i] = found["rank"][i] == 0
    return {name: found[name] for name in EVERY_OUTPUT if name in {*found} & {*case.outputs}}
