"""What an evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class CrossEntropyResult:
    """Loss, gradient and sums of one batch; what was not asked for is None.

    Attributes:
        loss: [N] with reduction "none", float64 for float64 logits, else float32; otherwise one
            float64. Units: nats.
        gradient: [N, C] in the logits' dtype, the exact derivative of `loss` by the logits
            (row by row with reduction "none").
        log_normalizer: [N] in the dtype of row losses, log of a row's sum of exponentials.
        probabilities: [N, C] in the logits' dtype, the softmax of the logits.
        loss_sum: the exact sum of the row losses, rounded once.
        weight_sum: the exact sum over rows of row weight times class weight of the label.
        count: rows that are not ignored.

    For logits of shape [..., C], N stands for the leading dimensions.
    """

    loss: Floats | float | None
    gradient: Floats | None
    log_normalizer: Floats | None
    probabilities: Floats | None
    loss_sum: float
    weight_sum: float
    count: int
