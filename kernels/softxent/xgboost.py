"""XGBoost's multi-class objective, evaluated by softxent.

    booster = xgboost.train({"num_class": 3}, data, obj=softxent.xgboost.SoftmaxObjective())
    model = XGBClassifier(objective=SoftmaxObjective(label_smoothing=0.1))

With nothing else given it is `multi:softprob` within rounding: the same trees. As for any
objective of one's own, predictions are scores; `softxent.softmax` makes probabilities of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from softxent._boosting import Objective
from softxent._interop import refuse_missing

try:
    from xgboost.core import XGBoostError
except ImportError as error:
    refuse_missing("xgboost", error, "xgboost")

__all__ = ["SoftmaxObjective"]

_SMALLEST = np.float32(1e-16)
"""The least second derivative of XGBoost's own objective."""


class SoftmaxObjective(Objective):
    """Gradient `w (T p - t)` and second derivative `2 w T p (1 - p)`, as XGBoost defines it."""

    error = XGBoostError

    def _second(self, diagonal: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:  # noqa: ARG002
        diagonal *= 2
        np.maximum(diagonal, _SMALLEST, out=diagonal)
        return diagonal
