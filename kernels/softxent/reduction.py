"""Reduction of exact sums to a loss; without kernels, so that clients share it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from softxent.batch import Batch
from softxent.errors import (
    EmptyReductionError,
    InputError,
    NonFiniteError,
    OptionError,
    WeightError,
    named_rows,
)
from softxent.evaluations import DERIVATIVES
from softxent.options import Options

SMALLEST_NORMAL = 2.0**-1022
"""Of float64; a divisor below it has lost digits, and its inverse overflows."""

_SMALLEST_FACTORS = {8: SMALLEST_NORMAL, 4: 2.0**-100}
"""By the bytes of a row's loss: below such factors losses lose digits before a mean's division."""


def mean_divisor(options: Options, weight_sum: float, count: int) -> float:
    """Return what loss and gradient are divided by; 0 where the mean has none.

    Raises:
        EmptyReductionError: it is 0 and `empty` is "error".
    """
    if options.reduction != "mean":
        return 1.0
    divisor = float(count) if options.mean_over == "rows" else weight_sum
    if options.denominator is not None:
        divisor = options.denominator
    if divisor == 0 and options.empty == "error":
        raise EmptyReductionError(
            "the mean divides by 0: no row is left, or none has weight", field="reduction"
        )
    return divisor


def refuse_weights_out_of_range(
    batch: Batch, options: Options, divisor: float, weight_sum: float
) -> None:
    """Refuse weights and scale with which a mean is lost in its rows, though it may be any number.

    The same holds for a denominator that no derivative can be divided by.

    Args:
        weight_sum: of the rows that count; infinite where it is not known.

    Raises:
        WeightError, OptionError: they are too small, or the weights add up to too much.
    """
    if options.reduction != "mean" or divisor == 0:
        return
    if options.denominator is not None:
        _refuse_denominator(options, options.denominator)
    elif not SMALLEST_NORMAL <= divisor < math.inf:
        size = "less than the smallest normal" if divisor < 1 else "more than the largest"
        raise _out_of_range(batch, f"the weights of the rows add up to {size} float64")
    factor = _largest_factor(batch, options, weight_sum)
    smallest = _SMALLEST_FACTORS[batch.computed.itemsize]
    if 0 < factor < smallest:
        raise _out_of_range(
            batch,
            f"weights times scale are below {smallest:.1e} in every row, where {batch.computed}"
            " losses lose digits before the mean is divided",
        )


def _refuse_denominator(options: Options, denominator: float) -> None:
    """Refuse a denominator whose inverse, a factor of derivatives, is beyond float64."""
    divided = [name for name in options.outputs if name in DERIVATIVES]
    if divided and denominator < SMALLEST_NORMAL:
        raise OptionError(
            f"denominator must be at least 2^-1022, about 2.3e-308, for {divided[0]},"
            f" not {denominator!r}",
            field="denominator",
        )


def _largest_factor(batch: Batch, options: Options, weight_sum: float) -> float:
    """Return the largest factor that the loss of a row that counts may have; 0 where there is none.

    None of them weighs more than all; of those that do not count, one may.
    """
    # In fractions, so that no product underflows itself.
    row, of_class = (
        Fraction(float(weights.max())) if weights.size else Fraction(1)
        for weights in (batch.row_weights, batch.class_weights)
    )
    largest = row * of_class
    # A sum of 0 may be one of products that underflow.
    if 0 < weight_sum < math.inf:
        # The weights of classes are in the sum, but for a soft target, which is of no one class.
        largest = min(largest, Fraction(weight_sum) * (of_class if batch.is_soft else 1))
    return _as_float(largest * Fraction(abs(options.scale)))


def _as_float(factor: Fraction) -> float:
    """Return a factor as float64; one that is not 0 stays so, and a large one may be infinite."""
    try:
        return float(factor) or (5e-324 if factor else 0.0)
    except OverflowError:
        return math.inf


def _out_of_range(batch: Batch, what: str) -> InputError:
    for field in ("row_weights", "class_weights"):
        weights = getattr(batch, field)
        if weights.size:
            return WeightError(
                f"{what}; multiply {field} by a power of two, a mean over weights is the same",
                field=field,
                **named_rows(weights > 0, weights),
            )
    return OptionError(f"{what}; choose a larger scale", field="scale")


def reduced_loss(options: Options, loss_sum: float, divisor: float) -> float:
    """Return the loss of the batch; a mean without a divisor is what `empty` says."""
    if divisor == 0:
        return math.nan if options.empty == "nan" else 0.0
    return loss_sum / divisor


def refuse_infinite_sums(options: Options, results: Mapping[str, Any]) -> None:
    """Refuse sums of finite rows that overflow float64, where `non_finite` is "error".

    Raises:
        NonFiniteError: one does.
    """
    if options.non_finite != "error":
        return
    loss_sum, weight_sum, loss = results["loss_sum"], results["weight_sum"], results.get("loss")
    finite = math.isfinite(loss_sum) and math.isfinite(weight_sum)
    if finite and not isinstance(loss, float):
        return
    for name in ("loss_sum", "weight_sum", "loss"):
        value = results.get(name)
        if isinstance(value, float) and math.isinf(value):
            what = f"the {options.reduction} of the losses" if name == "loss" else name
            raise NonFiniteError(
                f"{what} is beyond float64; smaller weights, or a smaller scale, keep it finite;"
                " non_finite=propagate returns it",
                field=name,
            )
