"""Denominator of a mean, found before the first derivative is written, and its range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from softxent import Options
from softxent.batch import Batch, check_batch
from softxent.blockwise.rows import RowSums, weigh_part
from softxent.errors import InputError, RowsError
from softxent.reduction import mean_divisor, refuse_weights_out_of_range
from softxent_service.jobs.acceptance import at_rows
from softxent_service.jobs.arrays import StoredArray
from softxent_service.jobs.job import PER_CLASS, Job
from softxent_service.jobs.specification import DIVIDED

VALUES = 1 << 20
"""Labels or entries of targets that are read together, with as many weights: 16 MB."""

TOP_K = ("target_indices", "target_log_probabilities")


def find_divisor(job: Job, arrays: Mapping[str, StoredArray]) -> float | None:
    """Return what derivatives are divided by; None where nothing that is written is divided.

    Raises:
        EmptyReductionError: it is 0, and `empty` is "error".
        RowsError: a label, an entry or a weight is refused.
        StorageError: they cannot be read.
    """
    options = job.specification.options
    if options.reduction != "mean" or not set(DIVIDED) & set(options.outputs):
        return None
    if options.denominator is not None:
        return options.denominator
    weighed = _weighed(arrays)
    if not weighed:
        return mean_divisor(options, float(job.plan.rows), job.plan.rows)
    sums = RowSums.merged(_sums(job, weighed, arrays))
    return mean_divisor(options, sums.weight_sum, sums.count)


def _weighed(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays that say which rows count, and how much.

    Beside labels a top-k target makes no row count less: one without entries has its label.
    """
    names = ("labels", "row_weights") if "labels" in arrays else ("row_weights", *TOP_K)
    return {name: arrays[name] for name in names if name in arrays}


def _sums(
    job: Job, weighed: Mapping[str, StoredArray], arrays: Mapping[str, StoredArray]
) -> Iterator[RowSums]:
    plan, options = job.plan, job.specification.options
    # A soft target belongs to no single class.
    weighs = "class_weights" in arrays and not _is_soft(arrays)
    whole = {"class_weights": arrays["class_weights"].read()} if weighs else {}
    for entries in _pieces(weighed, plan.entries):
        some = {name: _by_row(name, array, entries) for name, array in weighed.items()}
        try:
            yield weigh_part({**some, **whole}, options, classes=plan.classes, num_threads=1)
        except RowsError as error:
            raise at_rows(error, entries.start * plan.rows_an_entry) from None


def _is_soft(arrays: Mapping[str, StoredArray]) -> bool:
    return bool({"target_probabilities", "target_indices"} & set(arrays))


def _pieces(arrays: Mapping[str, StoredArray], entries: int) -> Iterator[slice]:
    """Yield the entries of some arrays that are read together."""
    values = max(math.prod(array.shape[1:]) for array in arrays.values())
    step = max(1, VALUES // max(1, values))
    for first in range(0, entries, step):
        yield slice(first, min(first + step, entries))


def _by_row(name: str, array: StoredArray, entries: slice) -> Any:
    """Return some values as [n], those of a top-k target as [n, K]."""
    values = array.read(entries)
    return values.reshape(-1, values.shape[-1]) if name in TOP_K else values.reshape(-1)


def check_weights(
    job: Job, arrays: Mapping[str, StoredArray], divisor: float, weight_sum: float = math.inf
) -> None:
    """Refuse weights with which the mean is lost, as the library does: by all rows together.

    Args:
        weight_sum: of the rows that count; infinite where it is not known yet.

    Raises:
        WeightError, OptionError: weights and scale are too small, or add up to too much.
        StorageError: the weights cannot be read.
    """
    options = job.specification.options
    if options.reduction == "mean":
        _check_weights(job, arrays, options, (divisor, weight_sum))


def _check_weights(
    job: Job, arrays: Mapping[str, StoredArray], options: Options, divided: tuple[float, float]
) -> None:
    batch, heaviest = _heaviest_row(job, arrays)
    try:
        refuse_weights_out_of_range(batch, options, *divided)
    except RowsError as error:
        raise at_rows(error, heaviest) from None


def why_mean_is_lost(job: Job, arrays: Mapping[str, StoredArray], weight_sum: float) -> str | None:
    """Return why the mean over weights cannot be told from the sum of losses; None where it can.

    Raises:
        StorageError: the weights cannot be read.
    """
    options = Options(reduction="mean", scale=job.specification.options.scale)
    try:
        _check_weights(job, arrays, options, (weight_sum, weight_sum))
    except InputError as error:
        return error.message
    return None


def _heaviest_row(job: Job, arrays: Mapping[str, StoredArray]) -> tuple[Batch, int]:
    """Return a batch of one row, which weighs what the heaviest one does, and which row that is."""
    classes, heaviest = job.plan.classes, 0
    given = {name: arrays[name].read() for name in PER_CLASS if name in arrays}
    if _is_soft(arrays):
        given["target_probabilities"] = np.full((1, classes), 1 / classes)
    else:
        given["labels"] = np.zeros(1, np.int64)
    if "row_weights" in arrays:
        heaviest, weight = _heaviest_weight(arrays["row_weights"], job.plan.entries)
        given["row_weights"] = np.array([weight])
    return check_batch({"logits": np.zeros((1, classes), job.computed), **given}), heaviest


def _heaviest_weight(weights: StoredArray, entries: int) -> tuple[int, float]:
    """Return the row of the largest weight, and that; 0 stands for what is no weight."""
    row, largest, passed = 0, 0.0, 0
    for piece in _pieces({"row_weights": weights}, entries):
        values = weights.read(piece).reshape(-1).astype(np.float64)
        values[~np.isfinite(values)] = 0.0
        if values.size and values.max() > largest:
            row, largest = passed + int(values.argmax()), float(values.max())
        passed += values.size
    return row, largest
