"""The Python face of the kernels: checks, allocates, chooses a loop, reads the sums."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch, check_batch
from softxent.combinations import refuse_illegal
from softxent.compiled import compilation, threading
from softxent.compiled.ahead import compile_all
from softxent.compiled.exact_sum import total
from softxent.errors import OptionError
from softxent.evaluations import (
    CROSS_ENTROPY,
    HESSIAN_VECTOR_PRODUCT,
    PRODUCT,
    SOFTMAX,
    Evaluation,
    given_tensors,
)
from softxent.finite import refuse_non_finite
from softxent.options import (
    OptionKeywords,
    Options,
    SoftmaxKeywords,
    check_outputs,
)
from softxent.output_buffers import prepare_outputs
from softxent.reduction import (
    mean_divisor,
    reduced_loss,
    refuse_infinite_sums,
    refuse_weights_out_of_range,
)
from softxent.results import Arrays, CrossEntropyResult, Floats
from softxent.running import PARALLEL_ELEMENTS, Sums, Turn, run
from softxent.weighing import weigh


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
        NonFiniteError: an output or a sum is not finite and `non_finite` is "error"; what
            `out` holds is then undefined.
        EmptyReductionError: the mean divides by 0 and `empty` is "error".
    """
    tensors = given_tensors(locals(), CROSS_ENTROPY)
    checked = Options.from_keywords(options)
    return CrossEntropyResult(**evaluate(tensors, checked, out=out, num_threads=num_threads))


def softmax(
    logits: npt.ArrayLike,
    *,
    class_mask: npt.ArrayLike | None = None,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    **options: Unpack[SoftmaxKeywords],
) -> Floats:
    """Return exp(z_j) / sum_k exp(z_k) of each row of logits.

    Args:
        logits: [..., C], as `cross_entropy` takes them.
        class_mask: [C] or [..., C] booleans; a class where it is false has probability 0.
        out: the caller's C-contiguous array for the result; `out=logits` evaluates in place.
        num_threads: at most this many threads; None: numba's own number.
        **options: `softcap`, `temperature`, `non_finite`, `output_dtype` of `Options`.

    Returns:
        [..., C] in the output dtype.

    Raises:
        As `cross_entropy`; NonFiniteError where a row has no softmax.
    """
    return _softmax("probabilities", locals())


def log_softmax(
    logits: npt.ArrayLike,
    *,
    class_mask: npt.ArrayLike | None = None,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    **options: Unpack[SoftmaxKeywords],
) -> Floats:
    """Return the logarithm of `softmax`, for the same arguments; -inf where a class is masked."""
    return _softmax("log_probabilities", locals())


def logsumexp(
    logits: npt.ArrayLike,
    *,
    class_mask: npt.ArrayLike | None = None,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    **options: Unpack[SoftmaxKeywords],
) -> Floats:
    """Return log sum_k exp(z_k) of each row, [...], for the arguments of `softmax`.

    It is float64 for float64 logits, else float32.
    """
    return _softmax("log_normalizer", locals())


def hessian_vector_product(
    logits: npt.ArrayLike,
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    target_probabilities: npt.ArrayLike | None = None,
    target_indices: npt.ArrayLike | None = None,
    target_log_probabilities: npt.ArrayLike | None = None,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    class_mask: npt.ArrayLike | None = None,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    **options: Unpack[OptionKeywords],
) -> Floats:
    """Return the Hessian of each row's loss by its logits, times a vector.

    For a plain target it is T p_j (v_j - p.v) / temperature^2, with `cross_entropy`'s weights,
    scale and divisor; derivation: docs/derivation.md.

    Args:
        logits: [..., C], and all else but what follows, as `cross_entropy` takes them.
        vectors: [..., C], finite; those of masked classes and ignored rows are not read.
        out: the caller's C-contiguous array for the result.
        **options: fields of `Options` but `outputs`; not `softcap`.

    Returns:
        [..., C] in the output dtype.

    Raises:
        As `cross_entropy`; RowsError where a vector is not finite.
    """
    tensors = given_tensors(locals(), HESSIAN_VECTOR_PRODUCT)
    checked = Options.for_output(PRODUCT, options, HESSIAN_VECTOR_PRODUCT)
    buffers = {} if out is None else {PRODUCT: out}
    results = evaluate(
        tensors, checked, HESSIAN_VECTOR_PRODUCT, out=buffers, num_threads=num_threads
    )
    product: Floats = results[PRODUCT]
    return product


def _softmax(output: str, given: Mapping[str, Any]) -> Floats:
    """Return one output of `SOFTMAX` for the arguments of `softmax`."""
    checked = Options.for_output(output, given["options"], SOFTMAX)
    buffers = {} if given["out"] is None else {output: given["out"]}
    tensors = given_tensors(given, SOFTMAX)
    results = evaluate(tensors, checked, SOFTMAX, out=buffers, num_threads=given["num_threads"])
    array: Floats = results[output]
    return array


def evaluate(
    tensors: Mapping[str, Any],
    options: Options,
    evaluation: Evaluation = CROSS_ENTROPY,
    *,
    out: Mapping[str, npt.NDArray[Any]] | None = None,
    num_threads: int | None = None,
    turn: Turn = contextlib.nullcontext,
) -> dict[str, Any]:
    """Evaluate tensors by name and options in one record; return outputs and sums by name.

    Whatever takes the kernels more than moments is done in turns; see `Turn`.
    """
    threads = threads_of(num_threads)
    check_outputs(options, evaluation)
    batch = check_batch(tensors, evaluation)
    refuse_illegal(batch, options)
    arrays = prepare_outputs(batch, options, out or {})
    with turn():
        count, weight_sum = weigh(batch, options, threads)
    divisor = mean_divisor(options, weight_sum, count)
    refuse_weights_out_of_range(batch, options, divisor)
    sums = run(batch, options, divisor or math.inf, arrays, threads, turn)
    return finish(batch, options, evaluation, arrays, sums, divisor, weight_sum, count)


def finish(
    batch: Batch,
    options: Options,
    evaluation: Evaluation,
    arrays: Arrays,
    sums: Sums,
    divisor: float,
    weight_sum: float,
    count: int,
) -> dict[str, Any]:
    """Return what was asked for and the sums by name, from the arrays that were written.

    Raises:
        NonFiniteError: one of them is not finite, and `non_finite` is "error".
    """
    refuse_non_finite(batch, options, divisor or math.inf, arrays, sums)
    loss_sum = total(sums)
    results: dict[str, Any] = {name: arrays[name] for name in options.outputs}
    if "loss" in results and options.reduction != "none":
        results["loss"] = reduced_loss(options, loss_sum, divisor)
    if evaluation.has_sums:
        results |= {"loss_sum": loss_sum, "weight_sum": weight_sum, "count": count}
        refuse_infinite_sums(options, results)
    return results


def threads_of(num_threads: int | None) -> int:
    """Return how many threads may be used where a caller allows `num_threads`."""
    if num_threads is None:
        return threading.available_threads()
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise OptionError(
            f"num_threads must be an integer of at least 1, not {num_threads!r}",
            field="num_threads",
        )
    return 1 if num_threads == 1 else min(num_threads, threading.available_threads())


def warm_up() -> None:
    """Compile, or load from the cache, every kernel there is, and start the kernel threads."""
    compile_all(threading.available_threads())
    rows = PARALLEL_ELEMENTS // 64
    for dtype in ("float16", "float32", "float64"):
        cross_entropy(np.zeros((rows, 64), dtype), np.zeros(rows, np.int64))


def compilations() -> int:
    """Return how many kernels this process has compiled, not found as machine code."""
    return compilation.compile_events


def threading_layer() -> str | None:
    """Return what runs parallel loops ("omp", "tbb", "workqueue"); None before the first has."""
    return threading.layer()
