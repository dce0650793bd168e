"""Public functions of the library, with explicit signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy.typing as npt

from softxent._execute import evaluate
from softxent.evaluations import (
    HESSIAN_VECTOR_PRODUCT,
    PRODUCT,
    SOFTMAX,
)
from softxent.options import (
    OptionKeywords,
    Options,
    ProductKeywords,
    SoftmaxKeywords,
    shows_options,
)
from softxent.results import CrossEntropyResult, Floats


@shows_options(OptionKeywords)
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
            `out={"gradient": logits}` evaluates in place. A buffer that overlaps another array is
            refused by its addresses; two maps of one file have different ones and are not noticed.
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
    checked = Options.from_keywords(options)
    return CrossEntropyResult.of(evaluate(tensors, checked, out=out, num_threads=num_threads))


@shows_options(SoftmaxKeywords)
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
    tensors = {"logits": logits, "class_mask": class_mask}
    return _softmax("probabilities", tensors, out, num_threads, options)


@shows_options(SoftmaxKeywords)
def log_softmax(
    logits: npt.ArrayLike,
    *,
    class_mask: npt.ArrayLike | None = None,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    **options: Unpack[SoftmaxKeywords],
) -> Floats:
    """Return the logarithm of `softmax`, for the same arguments; -inf where a class is masked."""
    tensors = {"logits": logits, "class_mask": class_mask}
    return _softmax("log_probabilities", tensors, out, num_threads, options)


@shows_options(SoftmaxKeywords)
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
    tensors = {"logits": logits, "class_mask": class_mask}
    return _softmax("log_normalizer", tensors, out, num_threads, options)


@shows_options(ProductKeywords)
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
    **options: Unpack[ProductKeywords],
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
    tensors = {
        "logits": logits,
        "labels": labels,
        "target_probabilities": target_probabilities,
        "target_indices": target_indices,
        "target_log_probabilities": target_log_probabilities,
        "class_weights": class_weights,
        "row_weights": row_weights,
        "class_mask": class_mask,
        "vectors": vectors,
    }
    checked = Options.for_output(PRODUCT, options, HESSIAN_VECTOR_PRODUCT)
    buffers = {} if out is None else {PRODUCT: out}
    results = evaluate(
        tensors, checked, HESSIAN_VECTOR_PRODUCT, out=buffers, num_threads=num_threads
    )
    product: Floats = results[PRODUCT]
    return product


def _softmax(
    output: str,
    tensors: Mapping[str, Any],
    out: npt.NDArray[Any] | None,
    num_threads: int | None,
    options: SoftmaxKeywords,
) -> Floats:
    """Return one output of `SOFTMAX`."""
    checked = Options.for_output(output, options, SOFTMAX)
    buffers = None if out is None else {output: out}
    array: Floats = evaluate(tensors, checked, SOFTMAX, out=buffers, num_threads=num_threads)[
        output
    ]
    return array
