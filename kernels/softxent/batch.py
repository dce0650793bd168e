"""Batch: arrays whose shapes, dtypes and contiguity are checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softxent._interop import as_numpy
from softxent._tensors import (
    NO_INTEGERS,
    NO_MASK,
    NONE,
    as_array,
    as_class_weights,
    as_labels,
    as_logits,
    as_mask,
    as_top_k,
    as_vectors,
    as_weights,
    count_failures,
    per_class,
)
from softxent.dtypes import computed_dtype, dtype_name
from softxent.errors import LabelError, TensorError, named_rows
from softxent.evaluations import CROSS_ENTROPY, PRODUCT, Evaluation
from softxent.hints import unknown
from softxent.results import Floats

PER_ROW = (
    "logits",
    "labels",
    "target_probabilities",
    "target_indices",
    "target_log_probabilities",
    "row_weights",
    "class_mask",
    "vectors",
)
"""The tensors that are cut with the rows; of class masks those of two dimensions."""

_MOST_MASS = 1.0 + 2.0**-7

_TARGETS = frozenset({"labels", "target_probabilities", "target_indices"})


class Layout(NamedTuple):
    """Layout of a batch, from which a plan follows: all but its rows and values.

    Attributes:
        dtype: of the logits.
        columns: how many the logits have; 0 without rows.
        classes: C; more than columns where the logits are a block of them.
        entries: K of a top-k target, else 0.
        given: the tensors that are given, in order.
        masks_rows: whether each row has a mask of its own.
        most_mass: what the probabilities of a top-k row may add up to, for all their rounding.
    """

    dtype: np.dtype[Any]
    columns: int
    classes: int
    entries: int
    given: tuple[str, ...]
    masks_rows: bool
    most_mass: float

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the dtype of computation."""
        return computed_dtype(self.dtype)

    @property
    def kinds(self) -> frozenset[str]:
        """Return which targets are given."""
        return _TARGETS.intersection(self.given)

    @property
    def is_soft(self) -> bool:
        """Whether there is a target beside or instead of labels."""
        return self.kinds != {"labels"}


@dataclass(eq=False, slots=True)
class Batch:
    """A batch whose shapes and dtypes fit together; values of targets and weights are unchecked.

    What is not given is empty.

    Attributes:
        logits: [N, C] of one of `DTYPES`, C-contiguous; the caller's own memory where it was so.
        labels: [N] int64.
        target_probabilities: [N, C], of the logits' dtype where that has 16 bits and they have
            it too, else of the dtype of computation.
        target_indices: [N, K] int64, -1 for no entry.
        target_log_probabilities: [N, K] of one of `DTYPES`, as they are stored.
        class_weights: [C] float64, or empty where every class weighs 1.
        row_weights: [N] float64, or empty where every row weighs 1.
        class_mask: uint8 [C], the same for every row, or [N, C]; 0 where a class takes no part.
        vectors: [N, C] in the dtype of computation.
        classes: C; more than logits have columns where they are a block of them.
        leading: the shape that [N] stands for.
        given: the tensors as arrays before they were converted, views of the caller's own memory
            wherever NumPy can see into it.
    """

    logits: Floats
    labels: npt.NDArray[np.int64]
    target_probabilities: Floats
    target_indices: npt.NDArray[np.int64]
    target_log_probabilities: Floats
    class_weights: npt.NDArray[np.float64]
    row_weights: npt.NDArray[np.float64]
    class_mask: npt.NDArray[np.uint8]
    vectors: Floats
    classes: int
    leading: tuple[int, ...]
    given: Mapping[str, npt.NDArray[Any]]

    @property
    def rows(self) -> int:
        """Return N."""
        return len(self.logits)

    def part(self, rows: slice) -> Batch:
        """Return some rows, as a batch of [n, C]."""
        cut = {
            name: array[rows]
            for name in PER_ROW
            if (array := getattr(self, name)).size and (name != "class_mask" or array.ndim == 2)
        }
        return replace(self, **cut, leading=(rows.stop - rows.start,))

    @property
    def is_half(self) -> bool:
        """Whether logits have 16 bits and are computed in float32."""
        return self.logits.dtype.itemsize == 2

    @property
    def computed(self) -> np.dtype[Any]:
        """Return the dtype of computation, which results of one value a row have."""
        return computed_dtype(self.logits.dtype)

    @property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """Return those of a top-k target in the type they are evaluated in."""
        return self.target_log_probabilities.astype(np.float64, copy=False)

    @property
    def most_mass(self) -> float:
        """Return what the probabilities of a top-k row may add up to, for all their rounding."""
        if not self.target_log_probabilities.size:
            return _MOST_MASS
        stored = dtype_name(self.target_log_probabilities.dtype)
        return 1.0 + 2.0**-5 if stored == "bfloat16" else _MOST_MASS

    def lacks_target(self, tail: str) -> npt.NDArray[np.bool_]:
        """Return which rows [N] are ignored because their top-k target has no entry.

        With `tail=renormalize` an entry must be above -inf; a label is a target.
        """
        if self.kinds != {"target_indices"}:
            return np.zeros(self.rows, np.bool_)
        entries = self.target_indices != -1
        if tail == "renormalize":
            entries = entries & (self.log_probabilities > -np.inf)
        return np.asarray(~entries.any(axis=1))

    @property
    def kinds(self) -> frozenset[str]:
        """Return which targets were given."""
        return _TARGETS.intersection(self.given)

    @property
    def is_soft(self) -> bool:
        """Whether there is a target beside or instead of labels."""
        return self.kinds != {"labels"}

    def layout(self) -> Layout:
        """Return what a plan depends on."""
        rows, columns = self.logits.shape
        if not rows:
            # Without rows, the number of classes costs no bytes and bounds nothing.
            columns = classes = entries = 0
        else:
            classes = self.classes
            entries = self.target_indices.shape[1] if self.target_indices.ndim == 2 else 0
        masks_rows, given = self.class_mask.ndim == 2, tuple(self.given)
        return Layout(
            self.logits.dtype, columns, classes, entries, given, masks_rows, self.most_mass
        )


def check_batch(
    tensors: Mapping[str, Any],
    evaluation: Evaluation = CROSS_ENTROPY,
    *,
    classes: int | None = None,
) -> Batch:
    """Check and normalise the tensors of a batch.

    Args:
        tensors: array-likes by name. `logits` [..., C]; a target: `labels` [...],
            `target_probabilities` [..., C], or `target_indices` and `target_log_probabilities`
            [..., K], or labels and one of the others; optionally `class_weights` [C],
            `row_weights` [...] and `class_mask` [C] or [..., C]; `vectors` [..., C] for a
            Hessian-vector product. None counts as absent.
        evaluation: says which of them there may be.
        classes: C, where `logits` are a block of columns; class weights and mask are whole.

    Raises:
        TensorError: a tensor is missing or unknown, or has the wrong dtype or shape.
        LabelError: an unsigned label does not fit int64.
        WeightError: a class weight is negative or not finite.
    """
    given = {
        name: value if type(value) is np.ndarray else as_array(name, as_numpy(name, value))
        for name, value in tensors.items()
        if value is not None
    }
    _check_names(tuple(tensors), tuple(given), evaluation)
    logits = as_logits(given["logits"])
    leading, columns = logits.shape[:-1], logits.shape[-1]
    classes = columns if classes is None else classes
    others = _others(given, logits, classes)
    return Batch(
        logits=logits if len(leading) == 1 else logits.reshape(math.prod(leading), columns),
        labels=as_labels(given["labels"], logits.shape) if "labels" in given else NO_INTEGERS,
        **others,
        classes=classes,
        leading=leading,
        given=given,
    )


@functools.lru_cache(maxsize=256)
def _check_names(names: tuple[str, ...], given: tuple[str, ...], evaluation: Evaluation) -> None:
    """Refuse tensors that an evaluation does not have, and the lack of those that it needs."""
    for name in names:
        if name not in evaluation.tensors:
            raise TensorError(unknown("tensor", name, evaluation.tensors), field=name)
    if "logits" not in given:
        raise TensorError("the tensor logits is required", field="logits")
    if evaluation.name == PRODUCT and "vectors" not in given:
        raise TensorError("the tensor vectors is required", field="vectors")
    _check_kinds(given, evaluation)


def _others(given: Mapping[str, npt.NDArray[Any]], logits: Floats, classes: int) -> dict[str, Any]:
    """Return all arrays of a batch but logits and labels, empty where they are not given."""
    empty = empties(computed_dtype(logits.dtype))
    if given.keys() <= {"logits", "labels"}:
        return empty
    leading = logits.shape[:-1]
    indices, log_probabilities = as_top_k(given, leading)
    return {
        "target_probabilities": per_class("target_probabilities", given, logits),
        "target_indices": indices,
        "target_log_probabilities": log_probabilities,
        "class_weights": as_class_weights(given, classes),
        "row_weights": as_weights("row_weights", given, leading),
        "class_mask": as_mask(given, (*leading, classes)),
        "vectors": as_vectors(given, logits),
    }


@functools.lru_cache(maxsize=2)
def empties(computed: np.dtype[Any]) -> dict[str, Any]:
    """Return what stands for each array of a batch that is not given."""
    return {
        "target_probabilities": np.empty(0, computed),
        "target_indices": NO_INTEGERS,
        "target_log_probabilities": NONE,
        "class_weights": NONE,
        "row_weights": NONE,
        "class_mask": NO_MASK,
        "vectors": np.empty(0, computed),
    }


def _check_kinds(given: tuple[str, ...], evaluation: Evaluation) -> None:
    kinds = _TARGETS.intersection(given)
    missing = {"target_indices", "target_log_probabilities"}.difference(given)
    if len(missing) == 1:
        (name,) = missing
        raise TensorError(f"the tensor {name} is required for a top-k target", field=name)
    if not kinds and evaluation.has_target:
        raise TensorError(
            "a target is required: labels, target_probabilities, or target_indices with"
            " target_log_probabilities",
            field="labels",
        )
    if kinds >= {"target_probabilities", "target_indices"}:
        raise TensorError(
            "target_indices cannot stand beside target_probabilities", field="target_indices"
        )


def refuse_bad_labels(batch: Batch, ignore_index: int | None) -> None:
    """Raise LabelError where a label of a row that takes part names no class."""
    classes = batch.classes
    bad = (batch.labels < 0) | (batch.labels >= classes)
    if ignore_index is not None:
        bad &= batch.labels != ignore_index
    if batch.row_weights.size:
        bad &= batch.row_weights > 0
    if bad.any():
        ignored = "" if ignore_index is None else f" or be {ignore_index}"
        failures = count_failures(int(bad.sum()), "do")
        raise LabelError(
            f"labels must lie in [0, {classes}){ignored}; {failures} not",
            field="labels",
            **named_rows(bad, batch.labels),
        )
