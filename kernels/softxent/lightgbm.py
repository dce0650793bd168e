"""LightGBM's multi-class objective, evaluated by softxent.

    booster = lightgbm.train({"objective": SoftmaxObjective(), "num_class": 3}, data)
    model = LGBMClassifier(objective=SoftmaxObjective(label_smoothing=0.1))

With nothing else given it is `multiclass` within rounding: the same trees, if
`boost_from_average` is off there. As for any objective of one's own, predictions are scores;
`softxent.softmax` makes probabilities of them.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from softxent._boosting import Objective
from softxent._interop import refuse_missing

try:
    from lightgbm.basic import LightGBMError
except ImportError as error:
    refuse_missing("lightgbm", error, "lightgbm")

__all__ = ["SoftmaxObjective"]


class SoftmaxObjective(Objective):
    """Gradient `w (T p - t)` and second derivative `w T p (1 - p) C / (C - 1)`, as LightGBM has."""

    error = LightGBMError

    def _second(self, diagonal: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:
        diagonal *= classes / max(classes - 1, 1)
        return diagonal
