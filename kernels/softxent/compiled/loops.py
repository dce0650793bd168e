"""The loops over rows: one source, compiled serially and with prange, for float32 and float64.

Rows go in blocks; a block adds its losses to its own accumulator, and accumulators merge exactly,
so neither the number of blocks nor of threads can change a bit.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange, types
from numba.np.ufunc.parallel import get_thread_id

from softxent.compiled.compilation import inlined, kernel, shared
from softxent.compiled.exact_sum import accumulate
from softxent.compiled.half import decode, encode
from softxent.compiled.lanes import LANES
from softxent.compiled.narrow import FIELDS, NARROW, evaluate_group
from softxent.compiled.rows import PARTIALS, TILE, evaluate_row
from softxent.compiled.threading import available_threads
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


def evaluate_half_blocks(
    stored,
    bfloat16,
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
    scratch,
    scratch_out,
):
    """Do `evaluate_blocks` for float16 or bfloat16 in uint16, a few rows at a time in float32.

    `scratch` and `scratch_out` [threads, size] are one array, read through the one and written
    through the other; a thread's part holds the logits of a few rows, in which their gradient or
    probabilities are computed, and the probabilities apart where both are wanted.
    """
    rows = labels.size
    blocks = sums_out.shape[0]
    wants_gradient = gradient_out.size > 0
    wants_probabilities = probabilities_out.size > 0
    both = wants_gradient and wants_probabilities
    room = scratch.shape[1] // 2 if both else scratch.shape[1]
    step = room // max(classes, 1)
    for block in prange(blocks):
        thread = get_thread_id()
        x, e = scratch[thread, :room], scratch_out[thread, :room]
        p = scratch_out[thread, room:] if both else e
        for first in range(block * rows // blocks, (block + 1) * rows // blocks, step):
            last = min(first + step, (block + 1) * rows // blocks)
            size = (last - first) * classes
            decode(stored, first * classes, size, bfloat16, e)
            evaluate_rows(
                x[:size], labels[first:last], row_weights[first:last], class_weights,
                other_weights, tile_weights, classes, ignores, ignore_index, smoothing, scale,
                divisor, loss_out[first:last], e[: size if wants_gradient else 0],
                log_normalizer_out[first:last], p[: size if wants_probabilities else 0],
                0, last - first, sums_out[block],
            )  # fmt: skip
            if wants_gradient:
                encode(e, size, bfloat16, gradient_out, first * classes)
            if wants_probabilities:
                encode(p, size, bfloat16, probabilities_out, first * classes)


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


def _read(dtype: Any, dimensions: int = 1) -> Any:
    """Take any C-contiguous array: mutable or read-only, aligned or not."""
    return types.Array(dtype, dimensions, "C", readonly=True, aligned=False)


def _write(dtype: Any, dimensions: int = 1) -> Any:
    return types.Array(dtype, dimensions, "C", aligned=False)


def _batch_types() -> tuple[Any, ...]:
    """Return the types of labels .. divisor, which all row loops share."""
    weights = _read(types.float64)
    flags = (types.int64, types.boolean, types.int64)
    factors = (types.float64,) * 3
    return (_read(types.int64), weights, weights, weights, weights, *flags, *factors)


@functools.cache
def row_loop(dtype: str, *, parallel: bool) -> Any:
    """Return `evaluate_blocks` for float32 or float64, compiled on first use."""
    element = getattr(types, dtype)
    outputs = (_write(element),) * 4
    signature = types.void(_read(element), *_batch_types(), *outputs, _write(types.int64, 2))
    return kernel(evaluate_blocks, signature, parallel=parallel)


@functools.cache
def half_row_loop(*, parallel: bool) -> Any:
    """Return `evaluate_half_blocks`, compiled on first use."""
    # Machine code that asks for a thread's number loads only after numba's threads have started.
    available_threads()
    stored, row_values = _write(types.uint16), _write(types.float32)
    signature = types.void(
        _read(types.uint16),
        types.boolean,
        *_batch_types(),
        row_values,
        stored,
        row_values,
        stored,
        _write(types.int64, 2),
        _read(types.float32, 2),
        _write(types.float32, 2),
    )
    return kernel(evaluate_half_blocks, signature, parallel=parallel)


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


__all__ = ["TILE", "half_row_loop", "row_loop", "weight_loop"]
