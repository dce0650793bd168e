"""The multi-class objective that the adapters of gradient boosting libraries share.

A library calls an objective as `objective(scores, dataset)` from its own `train`, and as
`objective(labels, scores)`, with weights where there are some, from its scikit-learn classes. It
wants the gradient and the Hessian's diagonal, [rows, classes] each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

import softxent
from softxent._interop import ErrorsAlso, Evaluator, check_service
from softxent._tensors import count_failures
from softxent.errors import LabelError, SoftxentError, TensorError, named_rows
from softxent.options import OptionKeywords

Array = npt.NDArray[Any]


class Objective(ABC):
    """Softmax cross-entropy for boosting; calls are pure and objects of it can be pickled."""

    error: type[Exception] = ValueError
    """What the library raises itself; refusals here are that too."""

    def __init__(
        self,
        *,
        target_probabilities: npt.ArrayLike | None = None,
        class_weights: npt.ArrayLike | None = None,
        service: Evaluator | None = None,
        **options: Unpack[OptionKeywords],
    ) -> None:
        """Take what stands beside scores and labels.

        Args:
            target_probabilities: [rows, classes] of the training data, instead of its labels.
            class_weights: [classes], finite, not negative.
            service: a `softxent_client.Client` that evaluates in the place of this process.
            **options: fields of `softxent.Options`, such as `label_smoothing`.
        """
        check_service(service)
        self.target_probabilities = target_probabilities
        self.class_weights = class_weights
        self.service = service
        self.options = options

    def __call__(self, first: Any, second: Any, sample_weight: Any = None) -> tuple[Array, Array]:
        """Return gradient and Hessian diagonal [rows, classes] of the scores."""
        if hasattr(second, "get_label"):
            scores, labels, weights = first, second.get_label(), second.get_weight()
        else:
            labels, scores, weights = first, second, sample_weight
        with ErrorsAlso({SoftxentError: self.error}):
            return self._evaluate(_matrix(scores), labels, _weights(weights))

    def _evaluate(self, scores: Array, labels: Any, weights: Array | None) -> tuple[Array, Array]:
        evaluator: Any = softxent if self.service is None else self.service
        soft = self.target_probabilities
        result = evaluator.cross_entropy(
            scores,
            _integers(labels) if soft is None else None,
            target_probabilities=soft,
            class_weights=self.class_weights,
            row_weights=weights,
            **{**self.options, "outputs": ("gradient", "hessian_diagonal")},
        )
        return result.gradient, self._second(result.hessian_diagonal, scores.shape[1])

    @abstractmethod
    def _second(self, diagonal: Array, classes: int) -> Array:
        """Return what the library takes for the second derivative, in the diagonal's memory."""


def _matrix(scores: Any) -> Array:
    array = np.asarray(scores)
    if array.ndim != 2:
        raise TensorError(
            f"scores have shape {list(array.shape)}, not [rows, classes]: set num_class",
            field="logits",
        )
    return array


def _weights(weights: Any) -> Array | None:
    """Return weights, None where the library's array of them is empty."""
    return None if weights is None or not np.size(weights) else np.asarray(weights)


def _integers(labels: Any) -> Array:
    """Return labels, which these libraries keep as floats, as integers.

    Raises:
        LabelError: some are not whole.
    """
    array = np.asarray(labels)
    if array.dtype.kind != "f":
        return array
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    bad = whole != array
    if bad.any():
        raise LabelError(
            f"labels must be whole numbers; {count_failures(int(bad.sum()), 'are')} not",
            field="labels",
            **named_rows(bad.reshape(-1), array),
        )
    return whole
