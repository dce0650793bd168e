"""A block of rows of 16-bit logits: decoded a few at a time, evaluated in float32, encoded."""

from __future__ import annotations

import numpy as np

from softxent.compiled.calls import call_rows
from softxent.compiled.compilation import inlined
from softxent.compiled.half import decode, encode
from softxent.compiled.span import as_span, hold, part

HALF_ELEMENTS = 32_768
"""16-bit logits decoded at a time, if a row is not longer: 128 KiB of float32."""


def evaluate_half_rows(task, inner, first, last, words_out):
    """Evaluate rows of 16-bit logits, a few at a time in float32, where `inner` evaluates them."""
    classes = task.classes
    step = max(1, HALF_ELEMENTS // max(classes, 1))
    size = min(step, last - first) * classes
    room = (
        np.empty(size, np.float32),
        np.empty(size if task.stored_target.size > 0 else 0, np.float32),
        np.empty(size if task.probabilities_out.size > 0 else 0, np.float32),
        np.empty(size if task.log_probabilities_out.size > 0 else 0, np.float32),
        np.empty(size if task.hessian_diagonal_out.size > 0 else 0, np.float32),
        np.empty(size if task.hessian_vector_product_out.size > 0 else 0, np.float32),
    )
    x, t, p = as_span(room[0]), as_span(room[1]), as_span(room[2])
    log_p, diagonal, product = as_span(room[3]), as_span(room[4]), as_span(room[5])
    for begin in range(first, last, step):
        end = min(begin + step, last)
        at, size = begin * classes, (end - begin) * classes
        decode(task.logits, at, size, task.bfloat16, x)
        if task.stored_target.size > 0:
            decode(task.stored_target, at, size, task.bfloat16, t)
        # The gradient takes the logits' place.
        gradient = part(x, 0, size if task.gradient_out.size > 0 else 0)
        outputs = (
            part(task.loss_out, begin, end),
            gradient,
            part(task.log_normalizer_out, begin, end),
            part(p, 0, size),
            part(log_p, 0, size),
            part(task.entropy_out, begin, end),
            part(task.target_entropy_out, begin, end),
            part(task.prediction_out, begin, end),
            part(task.correct_out, begin, end),
            part(task.rank_out, begin, end),
            part(diagonal, 0, size),
            part(product, 0, size),
        )
        rows = inputs(task, begin, end, part(x, 0, size), part(t, 0, size)) + outputs
        call_rows(inner, 0, rows, 0, end - begin, words_out)
        if task.gradient_out.size > 0:
            encode(x, size, task.bfloat16, task.gradient_out, at)
        if task.probabilities_out.size > 0:
            encode(p, size, task.bfloat16, task.probabilities_out, at)
        if task.log_probabilities_out.size > 0:
            encode(log_p, size, task.bfloat16, task.log_probabilities_out, at)
        if task.hessian_diagonal_out.size > 0:
            encode(diagonal, size, task.bfloat16, task.hessian_diagonal_out, at)
        if task.hessian_vector_product_out.size > 0:
            encode(product, size, task.bfloat16, task.hessian_vector_product_out, at)
    hold(room)


@inlined
def inputs(task, begin, end, logits, stored_target):
    """Return the inputs of some rows, of which logits and 16-bit targets are decoded."""
    at, last = begin * task.classes, end * task.classes
    stores = task.stored_target.size > 0
    # Two tuples, because numba knows no call of more than thirty arguments.
    tensors = (
        logits,
        task.bfloat16,
        part(task.labels, begin, end),
        part(task.row_weights, begin, end),
        task.class_weights,
        task.other_weights,
        task.tile_weights,
        stored_target if stores else part(task.target, at, last),
        part(task.stored_target, 0, 0),
        part(task.target_indices, begin * task.entries, end * task.entries),
        part(task.target_log_probabilities, begin * task.entries, end * task.entries),
        part(task.mask, at, last) if task.masks_rows else task.mask,
        task.masks_rows,
    )
    options = (
        task.classes,
        task.entries,
        task.ignores,
        task.ignore_index,
        task.smoothing,
        task.spread_mass,
        task.spares_label,
        task.hard_weight,
        task.tail,
        task.z_loss,
        task.softcap,
        task.inverse,
        task.inverse_low,
        task.scale,
        task.divisor,
        part(task.vectors, at, last),
    )
    return tensors + options
