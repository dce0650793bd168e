"""Checks what rows weigh and whether their targets can be any, before anything is evaluated."""

from __future__ import annotations

import contextlib

import numpy as np

from softxent.batch import Batch, dtype_name
from softxent.compiled import threading
from softxent.compiled.checks import weight_loop
from softxent.compiled.exact_sum import WORDS, total
from softxent.faults import refuse
from softxent.options import Options
from softxent.output_buffers import flat_bits
from softxent.running import blocks_of, is_parallel, merged
from softxent.tasks import ignored

PARALLEL_VALUES = 4_096
"""Values of targets and vectors from which on several threads check them."""

_NONE = np.empty(0)
_NO_PATTERNS = np.empty(0, np.uint16)


def weigh(batch: Batch, options: Options, threads: int) -> tuple[int, float]:
    """Check the values of targets and row weights; return `count` and `weight_sum`."""
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
        batch.target_log_probabilities.reshape(-1),
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
    if (counts < 0).any():
        refuse(batch, options, faults)
    weighted = batch.row_weights.size or class_weights.size
    count = int(counts.sum())
    return count, total(merged(words)) if weighted else float(count)
