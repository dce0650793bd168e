"""scikit-learn's log_loss, of logits and exact.

    from softxent.sklearn import log_loss

`sklearn.metrics.log_loss` takes probabilities and clips them, which hides how wrong a confident
mistake is; logits need no clipping.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

import softxent
from softxent._interop import ErrorsAlso, Evaluator, check_service, refuse_missing
from softxent._tensors import count_failures
from softxent.errors import LabelError, SoftxentError, TensorError, counted, named_rows
from softxent.options import OptionKeywords

try:
    from sklearn.utils import check_consistent_length
except ImportError as error:
    refuse_missing("sklearn", error, "scikit-learn")

__all__ = ["log_loss"]

Array = npt.NDArray[Any]


def log_loss(
    y_true: Any,
    logits: Any,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
    service: Evaluator | None = None,
    **options: Unpack[OptionKeywords],
) -> float:
    """Return the cross-entropy of logits in nats, with the conventions of `log_loss` there.

    Args:
        y_true: [n] labels of any kind that sorts, or [n, classes] an indicator matrix or
            probabilities.
        logits: [n, classes], columns in the order of the sorted labels, such as the logarithms
            of probabilities; or [n] or [n, 1], of the second of two classes, such as what
            `decision_function` returns.
        normalize: return the weighted mean; otherwise the sum.
        sample_weight: [n], not negative.
        labels: the classes there are; those in `y_true` unless given.
        service: a `softxent_client.Client` that evaluates in the place of this process.
        **options: fields of `softxent.Options` but `outputs` and `reduction`.

    Raises:
        SoftxentError: what the library raises; always a ValueError too, as scikit-learn's are.
    """
    with ErrorsAlso({SoftxentError: ValueError}):
        check_service(service)
        check_consistent_length(logits, y_true, sample_weight)
        scores = _two_classes(np.asarray(logits))
        evaluator: Any = softxent if service is None else service
        result = evaluator.cross_entropy(
            scores,
            **_target(np.asarray(y_true), labels, scores.shape[1]),
            row_weights=sample_weight,
            **{
                "ignore_index": None,
                "empty": "error",
                **options,
                "outputs": ("loss",),
                "reduction": "mean" if normalize else "sum",
            },
        )
    return float(result.loss)


def _two_classes(logits: Array) -> Array:
    """Return logits [n, classes]; one column stands for the second of two classes."""
    floats = logits.astype(np.float64) if logits.dtype.kind in "iu" else logits
    columns = floats[:, None] if floats.ndim == 1 else floats
    if columns.ndim != 2:
        raise TensorError(
            f"logits have shape {list(logits.shape)}, not [n, classes] or [n]", field="logits"
        )
    if columns.shape[1] != 1:
        return columns
    return np.hstack([np.zeros_like(columns), columns])


def _target(y_true: Array, labels: Any, classes: int) -> dict[str, Array]:
    """Return labels as indices into the sorted classes, or probabilities as they are."""
    if y_true.ndim == 2 and y_true.shape[1] > 1:
        return {"target_probabilities": y_true}
    flat = y_true.reshape(-1)
    known = np.unique(flat if labels is None else np.asarray(labels))
    if known.size != classes:
        source = "y_true holds" if labels is None else "labels are"
        raise TensorError(
            f"{source} {counted(known.size, 'class')}, and logits have"
            f" {counted(classes, 'column')}; say which classes they are with labels",
            field="labels",
        )
    places = np.searchsorted(known, flat).clip(max=known.size - 1)
    bad = known[places] != flat
    if bad.any():
        raise LabelError(
            "every label of y_true must be among labels;"
            f" {count_failures(int(bad.sum()), 'are')} not",
            field="y_true",
            **named_rows(bad, np.asarray(flat.tolist())),
        )
    return {"labels": places}
