"""The loops over rows: one source, compiled serially and with prange, for float32 and float64.

Rows go in blocks; a block adds its losses to its own accumulator, and accumulators merge exactly,
so neither the number of blocks nor of threads can change a bit.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange, types

from softxent.compiled.compilation import inlined, kernel, shared
from softxent.compiled.exact_sum import accumulate
from softxent.compiled.lanes import LANES
from softxent.compiled.narrow import FIELDS, NARROW, evaluate_group
from softxent.compiled.rows import PARTIALS, TILE, evaluate_row
from softxent.compiled.tiles import write_all


@shared
def evaluate_rows(
    x,
    labels,
    row_weights,
    class_weights,
    other_weights,
    tile_weights,
    classes,
    ignores,
    ignore_index,
    smoothing,
    scale,
    divisor,
    loss_out,
    gradient_out,
    log_normalizer_out,
    probabilities_out,
    first,
    last,
    words_out,
):
    """Evaluate rows first .. last and add up their losses; see `evaluate_blocks`."""
    if classes <= NARROW:
        z = np.empty(classes * LANES, x.dtype)
        e = np.empty(classes * LANES, x.dtype)
        fields = np.empty(FIELDS)
        taken = np.empty(LANES, np.bool_)
        for group in range(first, last, LANES):
            evaluate_group(
                x, labels, row_weights, class_weights, other_weights, classes, ignores,
                ignore_index, smoothing, scale, divisor, group, min(LANES, last - group),
                z, e, fields, taken,
                loss_out, gradient_out, log_normalizer_out, probabilities_out,
            )  # fmt: skip
    else:
        partials = np.empty((tile_weights.size, PARTIALS))
        for row in range(first, last):
            row_weight = row_weights[row] if row_weights.size > 0 else 1.0
            if (ignores and labels[row] == ignore_index) or row_weight == 0.0:
                write_ignored(
                    row, classes, loss_out, gradient_out, log_normalizer_out, probabilities_out
                )
            else:
                evaluate_row(
                    x, row * classes, classes, labels[row], row_weight, class_weights,
                    other_weights, tile_weights, smoothing, scale, divisor, partials, row,
                    loss_out, gradient_out, log_normalizer_out, probabilities_out,
                )  # fmt: skip
    for row in range(first, last):
        accumulate(words_out, np.float64(loss_out[row]))


@inlined
def write_ignored(row, classes, loss_out, gradient_out, log_normalizer_out, probabilities_out):
    """Write the zeros of a row that is ignored."""
    loss_out[row] = 0.0
    if log_normalizer_out.size > 0:
        log_normalizer_out[row] = 0.0
    if gradient_out.size > 0:
        write_all(gradient_out, row * classes, classes, 0.0)
    if probabilities_out.size > 0:
        write_all(probabilities_out, row * classes, classes, 0.0)


def evaluate_blocks(
    x,
    labels,
    row_weights,
    class_weights,
    other_weights,
    tile_weights,
    classes,
    ignores,
    ignore_index,
    smoothing,
    scale,
    divisor,
    loss_out,
    gradient_out,
    log_normalizer_out,
    probabilities_out,
    sums_out,
):
    """Evaluate every row of a batch; an empty array stands for what is not given or not wanted.

    Shapes: x, gradient_out, probabilities_out flat [N * classes]; labels, row_weights, loss_out,
    log_normalizer_out [N]; class_weights, other_weights [classes]; tile_weights [tiles];
    sums_out [blocks, WORDS], zeroed: an accumulator of the losses for each block.
    """
    rows = labels.size
    blocks = sums_out.shape[0]
    for block in prange(blocks):
        evaluate_rows(
            x, labels, row_weights, class_weights, other_weights, tile_weights, classes, ignores,
            ignore_index, smoothing, scale, divisor,
            loss_out, gradient_out, log_normalizer_out, probabilities_out,
            block * rows // blocks, (block + 1) * rows // blocks, sums_out[block],
        )  # fmt: skip


def weigh_rows(
    labels, row_weights, class_weights, classes, ignores, ignore_index, words_out, counts_out
):
    """Add the weights of the rows to an accumulator; count rows, bad labels and bad weights.

    counts_out [3]: rows not ignored, labels out of range, weights negative or not finite.
    """
    count, bad_labels, bad_weights = 0, 0, 0
    for row in range(labels.size):
        label = labels[row]
        row_weight = row_weights[row] if row_weights.size > 0 else 1.0
        if not 0.0 <= row_weight < np.inf:
            bad_weights += 1
        elif row_weight == 0.0 or (ignores and label == ignore_index):
            continue
        elif not 0 <= label < classes:
            bad_labels += 1
        else:
            count += 1
            if class_weights.size > 0:
                accumulate(words_out, row_weight * class_weights[label])
            elif row_weights.size > 0:
                accumulate(words_out, row_weight)
    counts_out[0] = count
    counts_out[1] = bad_labels
    counts_out[2] = bad_weights


def _read(dtype: Any) -> Any:
    """Take any flat array: mutable or read-only, aligned or not."""
    return types.Array(dtype, 1, "C", readonly=True, aligned=False)


def _write(dtype: Any, dimensions: int = 1) -> Any:
    return types.Array(dtype, dimensions, "C", aligned=False)


@functools.cache
def row_loop(dtype: str, *, parallel: bool) -> Any:
    """Return `evaluate_blocks` for float32 or float64, compiled on first use."""
    element = getattr(types, dtype)
    signature = types.void(
        _read(element),
        _read(types.int64),
        _read(types.float64),
        _read(types.float64),
        _read(types.float64),
        _read(types.float64),
        types.int64,
        types.boolean,
        types.int64,
        types.float64,
        types.float64,
        types.float64,
        _write(element),
        _write(element),
        _write(element),
        _write(element),
        _write(types.int64, 2),
    )
    return kernel(evaluate_blocks, signature, parallel=parallel)


@functools.cache
def weight_loop() -> Any:
    """Return `weigh_rows`, compiled on first use."""
    signature = types.void(
        _read(types.int64),
        _read(types.float64),
        _read(types.float64),
        types.int64,
        types.boolean,
        types.int64,
        _write(types.int64),
        _write(types.int64),
    )
    return kernel(weigh_rows, signature)


__all__ = ["TILE", "row_loop", "weight_loop"]
