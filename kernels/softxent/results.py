"""Results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossEntropyResult:
    """Loss, gradient and sums of one batch; what was not asked for is None.

    Attributes:
        loss: [N] with reduction "none", float64 for float64 logits, else float32; otherwise one
            float64. Units: nats.
        gradient: [N, C] in the output dtype, the exact derivative of `loss` by the logits
            (row by row with reduction "none").
        log_normalizer: [N] in the dtype of row losses, log of a row's sum of exponentials.
        probabilities: [N, C] in the output dtype, the softmax of the logits.
        log_probabilities: [N, C] in the output dtype, the logarithm of the softmax.
        entropy: [N] in the dtype of row losses, of the softmax, in nats.
        target_entropy: [N], the same of the target; loss less it is the divergence of the softmax
            from the target.
        prediction: [N] int64, the class of the largest logit, the lowest of equals.
        correct: [N] bool, whether that is the label.
        rank: [N] int64, how many classes stand above the label, or are equal and before it.
        hessian_diagonal: [N, C] in the output dtype, the diagonal of the second derivative of
            `loss` by a row's logits.
        loss_sum: the exact sum of the row losses, rounded once.
        weight_sum: the exact sum over rows of row weight times class weight of the label.
        count: rows that are not ignored.

    For logits of shape [..., C], N stands for the leading dimensions.
    """

    loss: Floats | float | None = None
    gradient: Floats | None = None
    log_normalizer: Floats | None = None
    probabilities: Floats | None = None
    log_probabilities: Floats | None = None
    entropy: Floats | None = None
    target_entropy: Floats | None = None
    prediction: npt.NDArray[np.int64] | None = None
    correct: npt.NDArray[np.bool_] | None = None
    rank: npt.NDArray[np.int64] | None = None
    hessian_diagonal: Floats | None = None
    loss_sum: float
    weight_sum: float
    count: int

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> CrossEntropyResult:
        """Return a result with these fields; the others are None.

        The constructor of a frozen dataclass sets each field on its own, which takes 4 us.
        """
        result = cls.__new__(cls)
        members = vars(result)
        members.update(_NOTHING)
        members.update(results)
        return result

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from softxent._notebook import result_html

        return result_html(self)


_NOTHING = {field.name: None for field in fields(CrossEntropyResult)}
