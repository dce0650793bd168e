"""Cross-entropy in blocks of rows, to the bits of one call.

    whole = sum(weigh_part(some, options) for some in blocks)       where a mean divides
    divisor = mean_divisor(options, whole.weight_sum, whole.count)
    parts = [evaluate_part(some, options, divisor=divisor) for some in blocks]
    loss_sum = RowSums.merged(part.sums for part in parts).loss_sum

A row does not depend on other rows, but for the number that a mean divides by; sums are kept as
exact integers until all rows are added, so their order and split do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent._execute import Sums, Weights, find_row_errors, run, threads_of, weigh_exactly
from softxent._finite import losses_of, refuse_non_finite
from softxent._kernels.math.exact_sum import WORDS, total
from softxent._outputs import prepare_outputs
from softxent._plan import Plan, plan_of
from softxent.batch import Batch, check_batch
from softxent.blockwise.columns import run_columns
from softxent.blockwise.partials import SHARD, ClassPartials, check_columns, check_partials
from softxent.evaluations import CROSS_ENTROPY
from softxent.options import Options
from softxent.results import Arrays

__all__ = [
    "WORDS",
    "Part",
    "RowSums",
    "evaluate_columns",
    "evaluate_part",
    "faulty_rows",
    "weigh_part",
]

Out = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class RowSums:
    """Exact sums over some rows.

    Attributes:
        losses: int64 words of an accumulator (`softxent._kernels.math.exact_sum`) of row losses.
        weights: the same of what the rows weigh.
        count: rows that are not ignored.
    """

    losses: Sums
    weights: Sums
    count: int

    @classmethod
    def merged(cls, sums: Iterable[RowSums]) -> RowSums:
        """Return the sums of all rows; any order, any grouping."""
        losses, weights, count = np.zeros(WORDS, np.int64), np.zeros(WORDS, np.int64), 0
        for one in sums:
            losses += one.losses
            weights += one.weights
            count += one.count
        return cls(losses, weights, count)

    @property
    def loss_sum(self) -> float:
        """Return the sum of losses, rounded once."""
        return total(self.losses)

    @property
    def weight_sum(self) -> float:
        """Return the sum of weights, rounded once."""
        return total(self.weights)


@dataclass(frozen=True, eq=False)
class Part:
    """The outputs of some rows by name, a loss a row whatever the reduction, and their sums."""

    arrays: Arrays
    sums: RowSums


def weigh_part(
    tensors: Mapping[str, Any], options: Options, *, classes: int, num_threads: int | None = None
) -> RowSums:
    """Return what rows weigh, for the divisor of a mean; no logits are needed.

    Args:
        tensors: any of `labels`, `row_weights` [n], `target_indices` and
            `target_log_probabilities` [n, K], `class_weights` and `class_mask` [C]. Labels and
            top-k targets are checked as targets; of the latter rows without an entry are ignored.
        options: those of the whole batch.
        classes: C.

    Raises:
        As `cross_entropy`.
    """
    lengths = ("labels", "row_weights", "target_indices")
    rows = next(len(tensors[name]) for name in lengths if name in tensors)
    given = {"logits": np.zeros((rows, 1), np.float32), **tensors}
    weighs = _options_of_weights(tensors, options)
    if "target_indices" not in tensors:
        given.setdefault("labels", np.zeros(rows, np.int64))
    batch = check_batch(given, classes=classes)
    plan = plan_of(batch, weighs, CROSS_ENTROPY)
    weights = weigh_exactly(plan, batch, weighs, threads_of(num_threads))
    return _sums(plan, weights, np.zeros(WORDS, np.int64))


def evaluate_part(
    tensors: Mapping[str, Any],
    options: Options,
    *,
    divisor: float = 1.0,
    out: Out | None = None,
    num_threads: int | None = None,
) -> Part:
    """Evaluate some rows of a batch.

    Args:
        tensors: those of the rows, as `cross_entropy` takes them.
        options: those of the whole batch.
        divisor: what a mean divides derivatives by; 0 where it has none.
        out: as `cross_entropy` takes it.

    Raises:
        As `cross_entropy`, but for what only all rows tell: whether their weights are so small
        that the mean is lost (`refuse_weights_out_of_range`), and whether the sums are finite
        (`refuse_infinite_sums`). The rows that an error names are counted within the part.
    """
    threads, checked = threads_of(num_threads), _per_row(options)
    batch = check_batch(tensors)
    plan = plan_of(batch, checked, CROSS_ENTROPY)
    arrays = prepare_outputs(batch, plan.outputs, checked, out)
    weights = weigh_exactly(plan, batch, checked, threads)
    losses = run(plan, batch, checked, divisor or math.inf, arrays, threads)
    return _part(plan, batch, checked, divisor, arrays, weights, losses)


def evaluate_columns(
    tensors: Mapping[str, Any],
    options: Options,
    partials: ClassPartials,
    *,
    first_class: int,
    divisor: float = 1.0,
    out: Out | None = None,
    num_threads: int | None = None,
) -> Part:
    """Evaluate some columns of some rows, given the partials of all columns.

    Sums are those of the whole rows, and the same for every block of columns.

    Raises:
        As `class_cross_entropy`.
    """
    if (first_class, partials.columns) == (0, np.shape(tensors["logits"])[-1]):
        return evaluate_part(tensors, options, divisor=divisor, out=out, num_threads=num_threads)
    threads, checked = threads_of(num_threads), _per_row(options)
    batch = check_columns(tensors, checked, first_class, partials.classes)
    check_partials(partials, batch, checked, first_class)
    plan = plan_of(batch, checked, SHARD)
    arrays = prepare_outputs(batch, plan.outputs, checked, out)
    weights = weigh_exactly(plan, batch, checked, threads)
    losses = run_columns(
        batch, checked, divisor or math.inf, arrays, partials, first_class, threads
    )
    return _part(plan, batch, checked, divisor, arrays, weights, losses)


def faulty_rows(
    tensors: Mapping[str, Any],
    options: Options,
    *,
    first_class: int = 0,
    classes: int | None = None,
    num_threads: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Return which rows' labels, targets or weights would be refused.

    Args:
        first_class, classes: as for `class_partials`, where tensors are a block of columns.

    Raises:
        As `cross_entropy`, but for faults of rows.
    """
    checked = _per_row(options)
    if classes is None:
        batch, evaluation = check_batch(tensors), CROSS_ENTROPY
    else:
        batch, evaluation = check_columns(tensors, checked, first_class, classes), SHARD
    plan = plan_of(batch, checked, evaluation)
    return np.asarray(find_row_errors(plan, batch, checked, threads_of(num_threads)).faults != 0)


def _options_of_weights(tensors: Mapping[str, Any], options: Options) -> Options:
    """Return the options that weights depend on; others may not apply to some of the tensors."""
    labels, top_k = "labels" in tensors, "target_indices" in tensors
    return Options(
        ignore_index=options.ignore_index if labels else None,
        tail=options.tail if top_k else Options.tail,
        hard_weight=options.hard_weight if labels and top_k else None,
    )


def _per_row(options: Options) -> Options:
    return replace(options, reduction="none", denominator=None, mean_over="weights")


def _part(
    plan: Plan,
    batch: Batch,
    options: Options,
    divisor: float,
    arrays: Arrays,
    weights: Weights,
    losses: Sums,
) -> Part:
    found = losses_of(losses, arrays["loss"])
    refuse_non_finite(batch, options, divisor or math.inf, arrays, found)
    asked = {name: arrays[name] for name in ("loss", *options.outputs)}
    return Part(asked, _sums(plan, weights, losses))


def _sums(plan: Plan, weights: Weights, losses: Sums) -> RowSums:
    words = weights.sums if plan.weighs else _integer_words(weights.count)
    return RowSums(losses, words, weights.count)


def _integer_words(value: int) -> Sums:
    """Return the accumulator of an integer, whose unit is 2^-1074 in digits of 32 bits."""
    words = np.zeros(WORDS, np.int64)
    place, shift = divmod(1074, 32)
    scaled = value << shift
    for i in range(3):
        words[place + i] = (scaled >> (32 * i)) & 0xFFFFFFFF
    return words
