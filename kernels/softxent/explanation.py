"""The derivation of the gradient, step by step, on one small row.

softmax -> its Jacobian -> cross entropy -> its derivative by the softmax -> the chain-rule product
of the two, beside the fused gradient that replaces the last two steps, and what the textbook forms
give. Plain float64 NumPy, meant to be read next to `docs/derivation.md`; the compiled kernels use
the fused form alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.errors import (
    ROWS_NAMED,
    LabelError,
    NonFiniteError,
    OptionError,
    RowsError,
    TensorError,
    WeightError,
    as_json,
    counted,
)
from softxent.naive import NaiveForms, naive_forms

Vector = npt.NDArray[np.float64]

MAX_CLASSES = 256
"""The longest row explained; its Jacobian is half a megabyte."""

SUM_TOLERANCE = 1e-6
"""How far target probabilities may sum from 1: what float32 rounding of 256 of them can cost."""

_SMALLEST_NORMAL = float(np.finfo(np.float64).smallest_normal)


@dataclass(frozen=True, eq=False)
class StableForm:
    """Intermediates of the stable forms, under the symbols of `docs/derivation.md`.

    Attributes:
        m: the largest logit.
        e: [C], exp(x - m), 1 at a maximum.
        S: the sum of all e but one maximum's, so the softmax is e / (1 + S).
        log1p: log(1 + S), the loss of a label that is a maximum.
    """

    m: float
    e: Vector
    S: float
    log1p: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Every step of one row under its own name, all float64.

    Attributes:
        softmax_out: [C], s.
        softmax_jacobian: [C, C], ds_n / dlogits_m = s_n (delta_nm - s_m).
        target: [C], y: one-hot at the label, or the target probabilities as given.
        loss: -sum y log s in nats, in its stable form and never through log of `softmax_out`.
        loss_by_softmax_out: [C], dL/ds = -y / s, and 0 where y is 0, as the loss does not depend
            on s there. None where the quotient does not exist in float64; `notes` says so.
        chain_rule_product: [C], sum_m dL/ds_m * Jacobian_mn. None where the step before is.
        fused_gradient: [C], s - y in its stable form (T s - y where y sums to T, which is 1 up to
            rounding). Defined always.
        largest_difference: between `chain_rule_product` and `fused_gradient`; None with the former.
        notes: a sentence for each step that is not defined, naming it and the classes at fault.
        stable: what `softmax_out`, `loss` and `fused_gradient` are made of.
        naive: what the textbook forms give in float32 and float64, for comparison.
    """

    softmax_out: Vector
    softmax_jacobian: Vector
    target: Vector
    loss: float
    loss_by_softmax_out: Vector | None
    chain_rule_product: Vector | None
    fused_gradient: Vector
    largest_difference: float | None
    notes: tuple[str, ...]
    stable: StableForm
    naive: NaiveForms

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from softxent._notebook import explanation_html

        return explanation_html(self)


def explain(
    logits: npt.ArrayLike,
    label: int | np.integer[Any] | None = None,
    *,
    target_probabilities: npt.ArrayLike | None = None,
) -> Explanation:
    """Return every step from one row of logits to the gradient of its loss.

    Args:
        logits: [C] finite numbers, C from 1 to 256, taken as float64.
        label: the class in [0, C) that is right. Exactly one of this and the next is given.
        target_probabilities: [C] non-negative numbers that sum to 1 within 1e-6.

    Raises:
        OptionError: both targets are given, or neither.
        TensorError: a dtype, rank or length is wrong.
        LabelError: the label lies outside [0, C).
        WeightError: a target probability is negative or not finite; `rows` are classes.
        RowsError: the target probabilities do not sum to 1.
        NonFiniteError: a logit is not finite (`rows` are classes), or the loss overflows.
    """
    z = _checked_logits(logits)
    y = _checked_target(z.size, label, target_probabilities)
    shifted = _Shifted.of(z)
    s = shifted.softmax()
    loss = _loss(shifted, y)
    jacobian = _jacobian(s, shifted.complement(s))
    fused = _fused_gradient(shifted, s, y)
    by_softmax, notes = _loss_by_softmax(s, y)
    product = None if by_softmax is None else by_softmax @ jacobian
    difference = None if product is None else float(np.max(np.abs(product - fused)))
    return Explanation(
        softmax_out=s,
        softmax_jacobian=jacobian,
        target=y,
        loss=loss,
        loss_by_softmax_out=by_softmax,
        chain_rule_product=product,
        fused_gradient=fused,
        largest_difference=difference,
        notes=notes,
        stable=shifted.form(float(np.max(z))),
        naive=naive_forms(z, y),
    )


@dataclass(frozen=True, eq=False)
class _Shifted:
    """A row relative to its maximum: S leaves out exactly one maximum and so keeps every digit."""

    gaps: Vector
    exponentials: Vector
    S: float
    D: float

    @classmethod
    def of(cls, z: Vector) -> _Shifted:
        gaps, lost = _gaps(z)
        e = np.exp(-gaps) * (1 - lost)
        ties = np.count_nonzero(gaps == 0) - 1
        S = math.fsum(e[gaps != 0]) + ties
        return cls(gaps, e, S, 1 + S)

    def form(self, m: float) -> StableForm:
        return StableForm(m, self.exponentials, float(self.S), math.log1p(self.S))

    def softmax(self) -> Vector:
        return self.exponentials / self.D

    def complement(self, s: Vector) -> Vector:
        """Return 1 - s, exact to the last digits where s is almost 1."""
        return np.where(self.gaps == 0, self.S / self.D, 1.0 - s)


def _gaps(z: Vector) -> tuple[Vector, Vector]:
    """Return max z - z, and what rounding took from it: alone, it costs exp up to gap / 2 ulp."""
    m = np.max(z)
    # 1e308 beside -1e308: the gap is infinite, its exponential 0, as it should be.
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = m - z
        back = gaps - m
        lost = (m - (gaps - back)) - (z + back)
    return gaps, np.where(np.isfinite(gaps), lost, 0.0)


def _loss(shifted: _Shifted, y: Vector) -> float:
    counted = y > 0
    with np.errstate(over="ignore"):
        terms = y[counted] * shifted.gaps[counted]
    loss = float(np.sum(terms)) + math.fsum(y) * math.log1p(shifted.S)
    if not math.isfinite(loss):
        raise NonFiniteError(
            "the loss overflows float64: the logits are too far apart",
            field="logits",
            rows=(0,),
            values=(as_json(math.inf),),
            total=1,
        )
    return loss


def _jacobian(s: Vector, complement: Vector) -> Vector:
    # + 0.0 turns the -0.0 of an underflown product into 0.0.
    jacobian = -np.outer(s, s) + 0.0
    np.fill_diagonal(jacobian, s * complement)
    return jacobian


def _loss_by_softmax(s: Vector, y: Vector) -> tuple[Vector | None, tuple[str, ...]]:
    # Below the smallest normal number s has lost digits, or all of them, and y / s may overflow.
    lost = np.flatnonzero((y > 0) & (s < _SMALLEST_NORMAL))
    if lost.size:
        return None, _undefined(lost)
    quotient = np.zeros_like(y)
    np.divide(-y, s, out=quotient, where=y > 0)
    return quotient, ()


def _undefined(lost: npt.NDArray[np.intp]) -> tuple[str, ...]:
    classes = ", ".join(str(n) for n in lost[:ROWS_NAMED])
    more = f" and {lost.size - ROWS_NAMED} more" if lost.size > ROWS_NAMED else ""
    return (
        "loss_by_softmax_out is not defined: softmax_out underflows float64 where the target is "
        f"positive (class {classes}{more}), so -y / s cannot be formed",
        "chain_rule_product is not defined, because loss_by_softmax_out is not; fused_gradient "
        "does not divide and is exact",
    )


def _fused_gradient(shifted: _Shifted, s: Vector, y: Vector) -> Vector:
    total = math.fsum(y)
    gradient = total * s - y
    if shifted.S < 1:
        # T s - y would cancel at the maximum: the same number, from what the others hold.
        top = int(np.argmin(shifted.gaps))
        others = math.fsum(np.delete(y, top))
        gradient[top] = others - total * (shifted.S / shifted.D)
    return gradient


def _checked_logits(logits: npt.ArrayLike) -> Vector:
    z = _vector(logits, "logits")
    if not 1 <= z.size <= MAX_CLASSES:
        raise TensorError(
            f"logits have {counted(z.size, 'class')}; explain takes 1 to {MAX_CLASSES}",
            field="logits",
        )
    _refuse(~np.isfinite(z), z, "logits", "not finite", NonFiniteError)
    return z


def _checked_target(
    classes: int, label: object, target_probabilities: npt.ArrayLike | None
) -> Vector:
    if (label is None) == (target_probabilities is None):
        raise OptionError("give exactly one of label and target_probabilities", field="label")
    if target_probabilities is None:
        return _one_hot(classes, label)
    return _checked_probabilities(classes, target_probabilities)


def _one_hot(classes: int, label: object) -> Vector:
    if isinstance(label, bool) or not isinstance(label, Integral):
        raise TensorError(f"label must be an integer, not {label!r}", field="label")
    index = int(label)
    if not 0 <= index < classes:
        raise LabelError(
            f"label {index} lies outside [0, {classes})",
            field="label",
            rows=(0,),
            values=(index,),
            total=1,
        )
    target = np.zeros(classes)
    target[index] = 1.0
    return target


def _checked_probabilities(classes: int, target_probabilities: npt.ArrayLike) -> Vector:
    field = "target_probabilities"
    y = _vector(target_probabilities, field)
    if y.size != classes:
        raise TensorError(
            f"{field} have shape [{y.size}]; the logits ask for [{classes}]", field=field
        )
    _refuse(~(np.isfinite(y) & (y >= 0)), y, field, "negative or not finite", WeightError)
    total = _sum(y)
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise RowsError(
            f"{field} must sum to 1 within {SUM_TOLERANCE}, not to {total!r}",
            field=field,
            rows=(0,),
            values=(as_json(total),),
            total=1,
        )
    return y + 0.0


def _sum(y: Vector) -> float:
    """Return the exact sum, rounded once; infinity where it overflows."""
    try:
        return math.fsum(y)
    except OverflowError:
        return math.inf


def _vector(values: npt.ArrayLike, field: str) -> Vector:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TensorError(f"{field} is not an array of numbers: {error}", field=field) from None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TensorError(f"{field} must hold real numbers, not {array.dtype}", field=field)
    if array.ndim != 1:
        raise TensorError(f"{field} must have rank 1, not {array.ndim}", field=field)
    return array.astype(np.float64)


def _refuse(
    refused: npt.NDArray[np.bool_],
    values: Vector,
    field: str,
    why: str,
    error: Callable[..., RowsError],
) -> None:
    at = np.flatnonzero(refused)
    if at.size:
        raise error(
            f"{field} are {why} in {at.size} of {counted(values.size, 'class')},"
            f" first in class {at[0]}",
            field=field,
            rows=at[:ROWS_NAMED].tolist(),
            values=[as_json(value) for value in values[at[:ROWS_NAMED]].tolist()],
            total=int(at.size),
        )
