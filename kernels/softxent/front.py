"""The Python face of the kernels: checks, allocates, chooses a loop, reads the sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch, check_batch, dtype_name
from softxent.combinations import refuse_illegal
from softxent.compiled import threading
from softxent.compiled.ahead import compile_all
from softxent.compiled.checks import weight_loop
from softxent.compiled.exact_sum import WORDS, all_finite, total
from softxent.compiled.loops import row_loop
from softxent.errors import NonFiniteError, OptionError, named_rows
from softxent.faults import refuse
from softxent.options import OptionKeywords, Options
from softxent.output_buffers import Outputs, bits_of, prepare_outputs
from softxent.reduction import mean_divisor, reduced_loss
from softxent.results import CrossEntropyResult
from softxent.tasks import ignored, is_transformed, make_task

PARALLEL_ELEMENTS = 32_768
"""Batches of fewer logits take the serial loop: entering a parallel one costs about as much as
evaluating this many (10 to 20 microseconds)."""

BLOCKS_A_THREAD = 16
"""Blocks of rows for each thread, so that a thread that is held up does not hold up the rest."""

_NONE = np.empty(0)
_NO_PATTERNS = np.empty(0, np.uint16)


def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    target_probabilities: npt.ArrayLike | None = None,
    target_indices: npt.ArrayLike | None = None,
    target_log_probabilities: npt.ArrayLike | None = None,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    class_mask: npt.ArrayLike | None = None,
    out: Mapping[str, npt.NDArray[Any]] | None = None,
    num_threads: int | None = None,
    **options: Unpack[OptionKeywords],
) -> CrossEntropyResult:
    """Evaluate softmax cross-entropy of logits against a target, and its gradient.

    With a target t of total T, row i gives L_i = -sum_j t_j log softmax(logits_i)_j and
    dL_i/dlogits_i = T softmax(logits_i) - t; a label is the target onehot(label). Derivation and
    the stable forms used: docs/derivation.md. Computation is in the logits' dtype, in float32 for
    those of 16 bits, with every sum in float64; the result does not depend on batch, order,
    threads or blocks.

    Args:
        logits: [..., C] float64, float32, float16, or bfloat16 of the package ml_dtypes.
            C-contiguous arrays are not copied, read-only and unaligned ones included.
        labels: [...] integers or booleans, in [0, C) or `ignore_index`.
        target_probabilities: [..., C], finite, not negative; they need not add up to 1.
        target_indices, target_log_probabilities: [..., K] a top-k target: classes, each once a
            row, or -1 for no entry, and the logarithms of their probabilities, not above 0.
        Labels beside a soft target are mixed with it by `hard_weight`.
        class_weights: [C], finite, not negative.
        row_weights: [...], finite, not negative; a row of weight 0 is ignored.
        class_mask: [C] or [..., C] booleans; a class where it is false takes no part, and its
            logit is not read.
        out: output name -> caller's C-contiguous array of the result's shape and dtype.
            `out={"gradient": logits}` evaluates in place.
        num_threads: at most this many threads; None: numba's own number.
        **options: fields of `Options`.

    Raises:
        OptionError, TensorError, LabelError, WeightError, RowsError: what was passed is
            refused, before a byte of `out` is written.
        OutputBufferError: an `out` buffer does not fit.
        NonFiniteError: a row's loss is not finite and `non_finite` is "error"; what `out`
            holds is then undefined.
        EmptyReductionError: the mean divides by 0 and `empty` is "error".
    """
    tensors = {
        "logits": logits,
        "labels": labels,
        "target_probabilities": target_probabilities,
        "target_indices": target_indices,
        "target_log_probabilities": target_log_probabilities,
        "class_weights": class_weights,
        "row_weights": row_weights,
        "class_mask": class_mask,
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
    refuse_illegal(batch, options)
    outputs = prepare_outputs(batch, options, out or {}, tensors)
    count, weight_sum = _weigh(batch, options)
    divisor = mean_divisor(options, weight_sum, count)
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
    """Check the values of targets and row weights; return `count` and `weight_sum`."""
    words = np.zeros(WORDS, np.int64)
    faults = np.zeros(batch.rows, np.uint8)
    targets = batch.target_probabilities
    stores, computed = targets.dtype.itemsize == 2, batch.row_dtype
    # With a soft target rows weigh what `row_weights` says, whatever their classes.
    class_weights = _NONE if batch.is_soft else batch.class_weights
    count = weight_loop(dtype_name(computed))(
        batch.rows,
        batch.logits.shape[1],
        batch.target_indices.shape[1] if batch.target_indices.ndim == 2 else 0,
        batch.labels,
        batch.row_weights,
        class_weights,
        np.empty(0, computed) if stores else targets.reshape(-1),
        bits_of(targets) if stores else _NO_PATTERNS,
        0x7F80 if dtype_name(targets.dtype) == "bfloat16" else 0x7C00,
        batch.target_indices.reshape(-1),
        batch.target_log_probabilities.reshape(-1),
        batch.class_mask.reshape(-1),
        batch.class_mask.ndim == 2,
        *ignored(options),
        words,
        faults,
    )
    if count < 0:
        refuse(batch, options, faults)
    weighted = batch.row_weights.size or class_weights.size
    return count, total(words) if weighted else float(count)


def _run(
    batch: Batch, options: Options, divisor: float, outputs: Outputs, threads: int
) -> npt.NDArray[np.int64]:
    """Run the row loop; return the accumulator of the losses."""
    parallel = threads > 1 and batch.rows > 1 and batch.logits.size >= PARALLEL_ELEMENTS
    blocks = min(batch.rows, threads * BLOCKS_A_THREAD) if parallel else min(batch.rows, 1)
    sums = np.zeros((blocks, WORDS), np.int64)
    kind = "half" if batch.is_half else dtype_name(batch.logits.dtype)
    loop = row_loop(kind, transformed=is_transformed(batch, options), parallel=parallel)
    task = make_task(batch, options, divisor, outputs)
    if parallel:
        with threading.parallel_loop(threads):
            loop(task, batch.rows, sums)
    else:
        loop(task, batch.rows, sums)
    merged: npt.NDArray[np.int64] = sums[0] if blocks == 1 else sums.sum(axis=0)
    return merged


def _refuse_non_finite(loss: npt.NDArray[Any]) -> None:
    bad = ~np.isfinite(loss.reshape(-1))
    raise NonFiniteError(
        f"the loss of {int(bad.sum())} rows is not finite; non_finite=propagate returns them",
        field="logits",
        **named_rows(bad, loss),
    )


def warm_up() -> None:
    """Compile, or load from the cache, every kernel there is, and start the kernel threads."""
    compile_all(threading.available_threads())
    rows = PARALLEL_ELEMENTS // 64
    for dtype in ("float16", "float32", "float64"):
        cross_entropy(np.zeros((rows, 64), dtype), np.zeros(rows, np.int64))


def threading_layer() -> str | None:
    """Return what runs parallel loops ("omp", "tbb", "workqueue"); None before the first has."""
    return threading.layer()
