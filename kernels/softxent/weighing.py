"""Checks what rows weigh and whether their targets can be any, before anything is evaluated."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from softxent.batch import Batch, dtype_name
from softxent.compiled import threading
from softxent.compiled.checks import weight_loop
from softxent.compiled.exact_sum import WORDS, total
from softxent.faults import Faults, refuse
from softxent.options import Options
from softxent.output_buffers import flat_bits
from softxent.running import Sums, blocks_of, is_parallel, merged
from softxent.tasks import TAILS, ignored

PARALLEL_VALUES = 4_096
"""Values of targets and vectors from which on several threads check them."""

_NONE = np.empty(0)
_NO_PATTERNS = np.empty(0, np.uint16)


@dataclass(frozen=True, eq=False)
class Weights:
    """What rows come to before they are evaluated.

    Attributes:
        counts: rows not ignored, of each block of rows; negative where one is at fault.
        sums: the accumulator of what they weigh; of zeros where every row weighs 1.
        faults: uint8 [N], 0 where nothing is wrong.
    """

    counts: list[int]
    sums: Sums
    faults: Faults

    @property
    def count(self) -> int:
        """Return how many rows are not ignored."""
        return sum(self.counts)


def weigh(batch: Batch, options: Options, threads: int) -> tuple[int, float]:
    """Check the values of targets and row weights; return `count` and `weight_sum`.

    Raises:
        WeightError, LabelError, RowsError: some rows are at fault.
    """
    weights = weigh_exactly(batch, options, threads)
    weighted = batch.row_weights.size or (batch.class_weights.size and not batch.is_soft)
    return weights.count, total(weights.sums) if weighted else float(weights.count)


def weigh_exactly(batch: Batch, options: Options, threads: int) -> Weights:
    """Do as `weigh`, and return the sum of weights before it is rounded.

    Raises:
        As `weigh`.
    """
    weights = look_at(batch, options, threads)
    if any(count < 0 for count in weights.counts):
        refuse(batch, options, weights.faults)
    return weights


def look_at(batch: Batch, options: Options, threads: int) -> Weights:
    """Weigh rows and look for faults, which are left to the caller."""
    # A label or weight a row is read faster than a second thread starts; many values are not.
    targets = batch.target_probabilities
    read = targets.size + batch.vectors.size + batch.target_indices.size
    parallel = read >= PARALLEL_VALUES and is_parallel(batch, threads)
    blocks = blocks_of(batch, threads, parallel)
    words = np.zeros((blocks, WORDS), np.int64)
    counts = np.zeros(blocks, np.int64)
    faults = np.zeros(batch.rows, np.uint8)
    stores, computed = targets.dtype.itemsize == 2, batch.computed
    # With a soft target rows weigh what `row_weights` says, whatever their classes.
    class_weights = _NONE if batch.is_soft else batch.class_weights
    loop = weight_loop(dtype_name(computed), parallel=parallel)
    arguments = (
        batch.rows,
        batch.classes,
        batch.logits.shape[1],
        batch.target_indices.shape[1] if batch.target_indices.ndim == 2 else 0,
        batch.labels,
        batch.row_weights,
        class_weights,
        np.empty(0, computed) if stores else targets.reshape(-1),
        flat_bits(targets) if stores else _NO_PATTERNS,
        0x7F80 if dtype_name(targets.dtype) == "bfloat16" else 0x7C00,
        batch.target_indices.reshape(-1),
        batch.log_probabilities.reshape(-1),
        TAILS[options.tail],
        batch.most_mass,
        batch.vectors.reshape(-1),
        batch.class_mask.reshape(-1),
        batch.class_mask.ndim == 2,
        *ignored(options),
        words,
        counts,
        faults,
    )
    with threading.parallel_loop(threads) if parallel else contextlib.nullcontext():
        loop(*arguments)
    return Weights(counts.tolist(), merged(words), faults)
