"""Enforcement of non_finite=error: every number returned is finite, or the refusal says why not.

Log-probabilities of classes that are masked, or whose logit is -inf, are -inf all the same.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softxent._kernels.math.exact_sum import all_finite, total
from softxent.batch import Batch
from softxent.dtypes import dtype_name
from softxent.errors import ROWS_NAMED, NonFiniteError, as_json, counted, named_rows
from softxent.evaluations import PER_LOGIT
from softxent.options import Options
from softxent.results import Arrays

SCANNED_ELEMENTS = 1 << 20
"""Elements of an output that are looked at together."""

_LARGEST = {"float64": 1.79e308, "float32": 3.4e38, "bfloat16": 3.38e38, "float16": 65504.0}

_ALWAYS_FINITE = ("loss", "probabilities", "prediction", "correct", "rank")
"""The outputs that are finite wherever the losses are, integers among them."""

Mask = npt.NDArray[np.bool_]


class Losses(NamedTuple):
    """Sum, finiteness and largest magnitude of the losses of all rows.

    Attributes:
        total: their exact sum, rounded once.
        finite: whether every one of them is.
        largest: the largest magnitude; of no meaning if they are not finite.
    """

    total: float
    finite: bool
    largest: float


def losses_of(words: npt.NDArray[np.int64], loss: npt.NDArray[Any]) -> Losses:
    """Return what losses come to, of which an accumulator has the sum."""
    largest = max(float(loss.max(initial=0.0)), -float(loss.min(initial=0.0)))
    return Losses(total(words), all_finite(words), largest)


def refuse_non_finite(
    batch: Batch, options: Options, divisor: float, arrays: Arrays, losses: Losses
) -> None:
    """Refuse outputs that are not finite, where `non_finite` is "error".

    Raises:
        NonFiniteError: there are some.
    """
    if options.non_finite != "error":
        return
    if not losses.finite:
        _refuse_losses(batch, arrays)
    for name in options.outputs:
        if name in _ALWAYS_FINITE:
            continue
        array = arrays[name]
        if name == "gradient" and _fits(batch, options, divisor, array, losses.largest):
            continue
        if name == "log_probabilities" and _replaced(batch, arrays):
            # Which logits were -inf is not known any more.
            continue
        bad = _bad_rows(name, batch, array)
        if bad.any():
            raise _refusal(name, batch, array, bad)


def _refuse_losses(batch: Batch, arrays: Arrays) -> None:
    loss = arrays["loss"].reshape(-1)
    bad = ~np.isfinite(loss)
    rows = counted(int(bad.sum()), "row")
    what = f"the loss of {rows} is not finite" if batch.kinds else f"{rows} have no softmax"
    if what.startswith("1 row have"):
        what = "1 row has no softmax"
    row = int(bad.argmax())
    raise NonFiniteError(
        f"{what}: {_cause(batch, arrays, row, loss)}; non_finite=propagate returns such rows",
        field="logits",
        **named_rows(bad, loss),
    )


def _cause(batch: Batch, arrays: Arrays, row: int, loss: npt.NDArray[Any]) -> str:
    """Return why a row's loss is not finite, as far as what is here of it tells."""
    overflow = (
        f"its loss is beyond {loss.dtype}, because logits lie too far apart for the temperature,"
        " or because weights or scale are too large"
    )
    if batch.class_mask.size and batch.logits.shape[1] == batch.classes:
        mask = batch.class_mask if batch.class_mask.ndim == 1 else batch.class_mask[row]
        if not mask.any():
            return f"class_mask leaves no class of row {row}"
    if _replaced(batch, arrays) or batch.logits.shape[1] != batch.classes:
        if not batch.kinds:
            # Finite logits always have a softmax.
            return f"in row {row} a logit is NaN or Infinity, or all of them are -Infinity"
        return f"in row {row} a logit is NaN or infinite, or {overflow}"
    x = batch.logits[row].astype(np.float64)
    if batch.class_mask.size:
        mask = batch.class_mask if batch.class_mask.ndim == 1 else batch.class_mask[row]
        x = x[mask != 0]
    if np.isnan(x).any():
        return f"a logit of row {row} is NaN"
    if np.isinf(x.max()):
        return f"the largest logit of row {row} is {as_json(float(x.max()))}"
    if np.isinf(x).any() and np.isinf(loss[row]):
        return f"in row {row} a class of the target has the logit -Infinity, or {overflow}"
    return f"in row {row} {overflow}"


def _replaced(batch: Batch, arrays: Arrays) -> bool:
    """Whether an output has taken the logits' place."""
    return any(np.may_share_memory(array, batch.logits) for array in arrays.values())


def _fits(
    batch: Batch,
    options: Options,
    divisor: float,
    array: npt.NDArray[Any],
    largest_loss: float,
) -> bool:
    """Whether no gradient can be beyond its type, as far as the losses tell.

    A row's gradient by its logits is at most 1 / ln 2 of its loss, at most the target's total of a
    bucket, and at most 2 z_loss |lse| of its z-loss. So nearly all batches need no look at it.
    """
    weights = batch.row_weights
    weight = float(weights.max(initial=0.0)) if weights.size else 1.0
    bound = 3.0 * largest_loss + (2.2 + 3.0 * options.z_loss) * weight * abs(options.scale)
    # A factor that overflows before the temperature divides it is lost.
    if not weight * abs(options.scale) / divisor < math.inf:
        return False
    bound = bound / divisor / options.temperature
    return bound < 0.99 * _LARGEST[_narrower(batch.computed, array.dtype)]


@functools.cache
def _narrower(computed: np.dtype[Any], stored: np.dtype[Any]) -> str:
    """Return the type of lesser range of the two that an output is computed and stored in."""
    return min(dtype_name(computed), dtype_name(stored), key=lambda name: _LARGEST[name])


def _bad_rows(name: str, batch: Batch, array: npt.NDArray[Any]) -> Mask:
    """Return which rows of an output hold a number that is not finite."""
    if name not in PER_LOGIT:
        return np.asarray(~np.isfinite(array.reshape(-1)))
    flat = array.reshape(batch.logits.shape)
    step = max(1, SCANNED_ELEMENTS // max(1, batch.logits.shape[1]))
    bad = np.zeros(batch.rows, np.bool_)
    for first in range(0, batch.rows, step):
        rows = slice(first, first + step)
        wrong = ~np.isfinite(flat[rows])
        if name == "log_probabilities" and wrong.any():
            wrong &= ~((batch.logits[rows] == -np.inf) | _masked(batch, rows))
        bad[rows] = wrong.any(axis=1)
    return bad


def _masked(batch: Batch, rows: slice) -> Mask:
    if not batch.class_mask.size:
        return np.zeros((1, 1), np.bool_)
    mask = batch.class_mask if batch.class_mask.ndim == 1 else batch.class_mask[rows]
    return np.asarray(mask == 0)


def _refusal(name: str, batch: Batch, array: npt.NDArray[Any], bad: Mask) -> NonFiniteError:
    rows = bad.nonzero()[0]
    flat = array.reshape(batch.rows, -1)
    first = [flat[row].astype(np.float64) for row in rows[:ROWS_NAMED]]
    narrower = _narrower(batch.computed, array.dtype)
    remedies = [_REMEDIES.get(name, "a smaller scale")]
    if narrower != "float64":
        is_computed = narrower == batch.computed.name
        remedies.append("float64 logits" if is_computed else "a wider output_dtype")
    return NonFiniteError(
        f"{name} of {counted(rows.size, 'row')} is beyond {narrower};"
        f" {' or '.join(remedies)} may keep it finite; non_finite=propagate returns it",
        field=name,
        rows=[int(row) for row in rows[:ROWS_NAMED]],
        values=[as_json(float(values[~np.isfinite(values)][0])) for values in first],
        total=int(rows.size),
    )


_REMEDIES = {
    "log_probabilities": "a higher temperature",
    "log_normalizer": "a higher temperature",
    "target_entropy": "smaller target_probabilities",
}
