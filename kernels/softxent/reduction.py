"""From the exact sums of a batch to its reduced loss; no kernels, so that clients do it too."""

from __future__ import annotations

import math

from softxent.errors import EmptyReductionError
from softxent.options import Options


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


def reduced_loss(options: Options, loss_sum: float, divisor: float) -> float:
    """Return the loss of the batch; a mean without a divisor is what `empty` says."""
    if divisor == 0:
        return math.nan if options.empty == "nan" else 0.0
    return loss_sum / divisor
