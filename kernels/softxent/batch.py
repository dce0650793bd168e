"""From whatever the caller passed to a checked batch: shapes, dtypes and contiguity settled."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.errors import LabelError, TensorError, WeightError, named_rows
from softxent.results import Floats

TENSORS = ("logits", "labels", "class_weights", "row_weights")
"""The tensors of a batch; the first two are required."""

DTYPES = ("float64", "float32", "float16", "bfloat16")
"""What logits may be; bfloat16 is the dtype of the package ml_dtypes."""

_NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch whose shapes and dtypes fit together; the values of labels and weights are unchecked.

    Attributes:
        logits: [N, C] of one of `DTYPES`, C-contiguous; the caller's own memory where it was so.
        labels: [N] int64.
        class_weights: [C] float64, or empty where every class weighs 1.
        row_weights: [N] float64, or empty where every row weighs 1.
        leading: the shape that [N] stands for.
    """

    logits: Floats
    labels: npt.NDArray[np.int64]
    class_weights: npt.NDArray[np.float64]
    row_weights: npt.NDArray[np.float64]
    leading: tuple[int, ...]

    @property
    def is_half(self) -> bool:
        """Whether logits have 16 bits and are computed in float32."""
        return self.logits.dtype.itemsize == 2

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """Return the dtype of results that have one value a row."""
        return np.dtype(np.float64 if self.logits.dtype == np.float64 else np.float32)


def check_batch(tensors: Mapping[str, Any]) -> Batch:
    """Check and normalise the tensors of a batch.

    Args:
        tensors: `logits` [..., C], `labels` [...], and optionally `class_weights` [C] and
            `row_weights` [...]; array-likes. None counts as absent.

    Raises:
        TensorError: a tensor is missing or unknown, or has the wrong dtype or shape.
        LabelError: an unsigned label does not fit int64.
        WeightError: a class weight is negative or not finite.
    """
    for name in tensors:
        if name not in TENSORS:
            known = ", ".join(TENSORS)
            raise TensorError(f"unknown tensor {name!r}; known are {known}", field=name)
    logits = _logits(_required(tensors, "logits"))
    leading, classes = logits.shape[:-1], logits.shape[-1]
    labels = _labels(_required(tensors, "labels"), leading)
    class_weights, row_weights = tensors.get("class_weights"), tensors.get("row_weights")
    return Batch(
        logits=logits.reshape(labels.size, classes),
        labels=labels,
        class_weights=_NONE if class_weights is None else _class_weights(class_weights, classes),
        row_weights=_NONE if row_weights is None else _weights("row_weights", row_weights, leading),
        leading=leading,
    )


def _required(tensors: Mapping[str, Any], name: str) -> Any:
    value = tensors.get(name)
    if value is None:
        raise TensorError(f"{name} is required", field=name)
    return value


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise TensorError(f"{name} is not a rectangular array: {error}", field=name) from None


def _logits(value: Any) -> Floats:
    logits = _array("logits", value)
    native = logits.dtype.newbyteorder("=")
    if native.name not in DTYPES:
        raise TensorError(
            f"logits must be one of {', '.join(DTYPES)}, not {logits.dtype}", field="logits"
        )
    if logits.ndim < 2:
        raise TensorError(
            f"logits must have at least 2 dimensions [..., C], not {logits.ndim}", field="logits"
        )
    if logits.shape[-1] == 0 and logits.shape[:-1] != (0,) * (logits.ndim - 1):
        raise TensorError(
            f"logits of shape {list(logits.shape)} have rows but no classes", field="logits"
        )
    return np.ascontiguousarray(logits, native)


def _labels(value: Any, leading: tuple[int, ...]) -> npt.NDArray[np.int64]:
    labels = _array("labels", value)
    if labels.size == 0 and not isinstance(value, np.ndarray):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iub":
        raise TensorError(f"labels must be integers, not {labels.dtype}", field="labels")
    _check_shape("labels", labels.shape, leading)
    if labels.dtype.kind == "u" and labels.dtype.itemsize == 8:
        too_large = labels.reshape(-1) > np.iinfo(np.int64).max
        if too_large.any():
            raise LabelError(
                "labels do not fit int64", field="labels", **named_rows(too_large, labels)
            )
    return np.ascontiguousarray(labels, np.int64).reshape(-1)


def _weights(name: str, value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    weights = _array(name, value)
    if weights.dtype.kind not in "fiu" or weights.dtype.itemsize > 8:
        raise TensorError(f"{name} must be real numbers, not {weights.dtype}", field=name)
    _check_shape(name, weights.shape, shape)
    return np.ascontiguousarray(weights, np.float64).reshape(-1)


def _class_weights(value: Any, classes: int) -> npt.NDArray[np.float64]:
    weights = _weights("class_weights", value, (classes,))
    refuse_bad_weights("class_weights", weights)
    return weights


def refuse_bad_weights(name: str, weights: npt.NDArray[np.float64]) -> None:
    """Raise WeightError where a weight is negative or not finite."""
    bad = ~((weights >= 0) & (weights < np.inf))
    if bad.any():
        raise WeightError(
            f"{name} must be finite and not negative", field=name, **named_rows(bad, weights)
        )


def refuse_bad_labels(batch: Batch, ignore_index: int | None) -> None:
    """Raise LabelError where a label of a row that takes part names no class."""
    classes = batch.logits.shape[1]
    bad = (batch.labels < 0) | (batch.labels >= classes)
    if ignore_index is not None:
        bad &= batch.labels != ignore_index
    if batch.row_weights.size:
        bad &= batch.row_weights > 0
    if bad.any():
        ignored = "" if ignore_index is None else f" or be {ignore_index}"
        raise LabelError(
            f"labels must lie in [0, {classes}){ignored}; {int(bad.sum())} do not",
            field="labels",
            **named_rows(bad, batch.labels),
        )


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise TensorError(
            f"{name} has shape {list(shape)}; the logits ask for {list(expected)}", field=name
        )


@functools.lru_cache(maxsize=64)
def tile_sizes(classes: int, tile: int) -> npt.NDArray[np.float64]:
    """Return how many columns each tile of a row has, as float64 [tiles]."""
    firsts = np.arange(0, classes, tile)
    sizes = np.minimum(tile, classes - firsts).astype(np.float64)
    sizes.flags.writeable = False
    return sizes
