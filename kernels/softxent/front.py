"""The Python face of the kernels: checks, allocates, chooses a loop, reads the sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from softxent import TILE
from softxent.batch import (
    Batch,
    check_batch,
    refuse_bad_labels,
    refuse_bad_weights,
    tile_sizes,
)
from softxent.compiled import threading
from softxent.compiled.exact_sum import WORDS, all_finite, total
from softxent.compiled.loops import half_row_loop, row_loop, weight_loop
from softxent.errors import NonFiniteError, OptionError, named_rows
from softxent.options import OptionKeywords, Options
from softxent.output_buffers import Outputs, bits_of, prepare_outputs
from softxent.reduction import mean_divisor, reduced_loss
from softxent.results import CrossEntropyResult

PARALLEL_ELEMENTS = 32_768
"""Batches of fewer logits take the serial loop: entering a parallel one costs about as much as
evaluating this many (10 to 20 microseconds)."""

BLOCKS_A_THREAD = 16
"""Blocks of rows for each thread, so that a thread that is held up does not hold up the rest."""

SCRATCH_ELEMENTS = 32_768
"""Half-precision logits that a thread decodes at a time, if a row is not longer: 128 KiB."""

_NONE = np.empty(0)


def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    out: Mapping[str, npt.NDArray[Any]] | None = None,
    num_threads: int | None = None,
    **options: Unpack[OptionKeywords],
) -> CrossEntropyResult:
    """Evaluate softmax cross-entropy of logits against labels, and its gradient.

    Row i gives L_i = -log softmax(logits_i)[labels_i] and dL_i/dlogits_i = softmax(logits_i) -
    onehot(labels_i); derivation and the stable forms used: docs/derivation.md. Computation is in
    the logits' dtype, in float32 for those of 16 bits, with every sum in float64; the result does
    not depend on batch, order, threads or blocks.

    Args:
        logits: [..., C] float64, float32, float16, or bfloat16 of the package ml_dtypes.
            C-contiguous arrays are not copied, read-only and unaligned ones included.
        labels: [...] integers or booleans, in [0, C) or `ignore_index`.
        class_weights: [C], finite, not negative.
        row_weights: [...], finite, not negative; a row of weight 0 is ignored.
        out: output name -> caller's C-contiguous array of the result's shape and dtype.
            `out={"gradient": logits}` evaluates in place.
        num_threads: at most this many threads; None: numba's own number.
        **options: fields of `Options`: outputs, reduction, ignore_index, label_smoothing,
            denominator, scale, non_finite, empty.

    Raises:
        OptionError, TensorError, LabelError, WeightError: what was passed is refused, before a
            byte of `out` is written.
        OutputBufferError: an `out` buffer does not fit.
        NonFiniteError: a row's loss is not finite and `non_finite` is "error"; what `out`
            holds is then undefined.
        EmptyReductionError: the mean divides by 0 and `empty` is "error".
    """
    tensors = {
        "logits": logits,
        "labels": labels,
        "class_weights": class_weights,
        "row_weights": row_weights,
    }
    return evaluate(tensors, Options.from_keywords(options), out=out, num_threads=num_threads)


def evaluate(
    tensors: Mapping[str, Any],
    options: Options,
    *,
    out: Mapping[str, npt.NDArray[Any]] | None = None,
    num_threads: int | None = None,
) -> CrossEntropyResult:
    """Do `cross_entropy` for tensors by name and options in one record."""
    threads = _threads(num_threads)
    batch = check_batch(tensors)
    outputs = prepare_outputs(batch, options, out or {}, tensors)
    count, weight_sum = _weigh(batch, options)
    divisor = mean_divisor(options, weight_sum)
    sums = _run(batch, options, divisor or math.inf, outputs, threads)
    if options.non_finite == "error" and not all_finite(sums):
        _refuse_non_finite(outputs.loss)
    loss_sum = total(sums)
    return outputs.result(
        options, reduced_loss(options, loss_sum, divisor), loss_sum, weight_sum, count
    )


def _threads(num_threads: int | None) -> int:
    available = threading.available_threads()
    if num_threads is None:
        return available
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise OptionError(
            f"num_threads must be an integer of at least 1, not {num_threads!r}",
            field="num_threads",
        )
    return min(num_threads, available)


def _weigh(batch: Batch, options: Options) -> tuple[int, float]:
    """Check the values of labels and row weights; return `count` and `weight_sum`."""
    words = np.zeros(WORDS, np.int64)
    counts = np.zeros(3, np.int64)
    classes = batch.logits.shape[1]
    ignores, ignore_index = _ignored(options)
    weight_loop()(
        batch.labels,
        batch.row_weights,
        batch.class_weights,
        classes,
        ignores,
        ignore_index,
        words,
        counts,
    )
    count, bad_labels, bad_weights = counts.tolist()
    if bad_weights:
        refuse_bad_weights("row_weights", batch.row_weights)
    if bad_labels:
        refuse_bad_labels(batch, options.ignore_index)
    weighted = batch.row_weights.size or batch.class_weights.size
    return count, total(words) if weighted else float(count)


def _ignored(options: Options) -> tuple[bool, int]:
    index = options.ignore_index
    return (False, 0) if index is None else (True, index)


def _run(
    batch: Batch, options: Options, divisor: float, outputs: Outputs, threads: int
) -> npt.NDArray[np.int64]:
    """Run the row loop; return the accumulator of the losses."""
    rows, classes = batch.logits.shape
    parallel = threads > 1 and rows > 1 and batch.logits.size >= PARALLEL_ELEMENTS
    blocks = min(rows, threads * BLOCKS_A_THREAD) if parallel else min(rows, 1)
    sums = np.zeros((blocks, WORDS), np.int64)
    other_weights, tile_weights = _spread_weights(batch, options)
    arguments = (
        batch.labels,
        batch.row_weights,
        batch.class_weights,
        other_weights,
        tile_weights,
        classes,
        *_ignored(options),
        options.label_smoothing,
        options.scale,
        divisor,
        *outputs.flat(batch.logits.dtype),
        sums,
    )
    loop = _loop(batch, threads if parallel else 1, arguments)
    if parallel:
        with threading.parallel_loop(threads):
            loop()
    else:
        loop()
    merged: npt.NDArray[np.int64] = sums[0] if blocks == 1 else sums.sum(axis=0)
    return merged


def _loop(batch: Batch, threads: int, arguments: tuple[Any, ...]) -> Callable[[], None]:
    """Return the row loop for the logits' dtype, bound to its arguments."""
    logits = bits_of(batch.logits)
    if not batch.is_half:
        loop = row_loop(batch.logits.dtype.name, parallel=threads > 1)
        return lambda: loop(logits, *arguments)
    half_loop = half_row_loop(parallel=threads > 1)
    classes = batch.logits.shape[1]
    room = max(1, SCRATCH_ELEMENTS // max(classes, 1)) * classes
    scratch = np.empty((threads, min(2 * room, 2 * batch.logits.size)), np.float32)
    bfloat16 = batch.logits.dtype.name == "bfloat16"
    return lambda: half_loop(logits, bfloat16, *arguments, scratch, scratch)


def _spread_weights(
    batch: Batch, options: Options
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return for each class the sum of the other class weights, and the sum of each tile's.

    Only smoothing asks for them. The total is kept in two parts, so that a weight that
    dominates leaves the sum of the others its digits.
    """
    weights = batch.class_weights
    if not batch.labels.size:
        # Without rows, the number of classes costs no bytes and bounds nothing.
        return _NONE, _NONE
    sizes = tile_sizes(batch.logits.shape[1], TILE)
    if not weights.size:
        return _NONE, sizes
    if options.label_smoothing == 0:
        return weights, sizes
    high = math.fsum(weights)
    low = math.fsum([-high, *weights])
    others = high - weights
    part = others - high
    error = (high - (others - part)) - (weights + part)
    tiles = [math.fsum(weights[i : i + TILE]) for i in range(0, weights.size, TILE)]
    return others + (error + low), np.array(tiles)


def _refuse_non_finite(loss: npt.NDArray[Any]) -> None:
    bad = ~np.isfinite(loss.reshape(-1))
    raise NonFiniteError(
        f"the loss of {int(bad.sum())} rows is not finite; non_finite=propagate returns them",
        field="logits",
        **named_rows(bad, loss),
    )


def warm_up() -> None:
    """Compile, or load from the cache, every kernel there is, and start the kernel threads."""
    half_row_loop(parallel=False)
    for dtype in ("float32", "float64"):
        row_loop(dtype, parallel=False)
    rows = PARALLEL_ELEMENTS // 64
    for dtype in ("float16", "float32", "float64"):
        cross_entropy(np.zeros((rows, 64), dtype), np.zeros(rows, np.int64))


def threading_layer() -> str | None:
    """Return what runs parallel loops ("omp", "tbb", "workqueue"); None before the first has."""
    return threading.layer()
