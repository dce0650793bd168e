"""A block of rows of 16-bit logits: decoded a few at a time, evaluated in float32, encoded."""

from __future__ import annotations

import numpy as np

from softxent._kernels.math.half import decode, encode
from softxent._kernels.row.record import address_of_words, call_rows, move_record, point, read_task
from softxent._kernels.row.task import OFFSETS, Task, words_of
from softxent._kernels.simd.span import as_span, hold, part

HALF_ELEMENTS = 32_768
"""16-bit logits decoded at a time, if a row is not longer: 128 KiB of float32."""

_WORDS = words_of(Task)
_LOGITS, _TARGET = OFFSETS["logits"], OFFSETS["target"]
_STORED_TARGET = OFFSETS["stored_target"]
_GRADIENT, _PROBABILITIES = OFFSETS["gradient_out"], OFFSETS["probabilities_out"]
_LOG_PROBABILITIES = OFFSETS["log_probabilities_out"]
_DIAGONAL = OFFSETS["hessian_diagonal_out"]
_PRODUCT = OFFSETS["hessian_vector_product_out"]


def evaluate_half_rows(record, inner, first, last, words_out):
    """Evaluate rows of 16-bit logits, a few at a time in float32, where `inner` evaluates them."""
    task = read_task(record)
    classes = task.classes
    step = max(1, HALF_ELEMENTS // max(classes, 1))
    size = min(step, last - first) * classes
    stores = task.stored_target.size > 0
    room = (
        np.empty(size, np.float32),
        np.empty(size if stores else 0, np.float32),
        np.empty(size if task.probabilities_out.size > 0 else 0, np.float32),
        np.empty(size if task.log_probabilities_out.size > 0 else 0, np.float32),
        np.empty(size if task.hessian_diagonal_out.size > 0 else 0, np.float32),
        np.empty(size if task.hessian_vector_product_out.size > 0 else 0, np.float32),
        np.empty(_WORDS, np.int64),
    )
    x, t, p = as_span(room[0]), as_span(room[1]), as_span(room[2])
    log_p, diagonal, product = as_span(room[3]), as_span(room[4]), as_span(room[5])
    words = room[6]
    for begin in range(first, last, step):
        end = min(begin + step, last)
        at, size = begin * classes, (end - begin) * classes
        decode(task.logits, at, size, task.bfloat16, x)
        move_record(record, begin, end - begin, words)
        point(words, _LOGITS, part(x, 0, size))
        if stores:
            decode(task.stored_target, at, size, task.bfloat16, t)
            point(words, _TARGET, part(t, 0, size))
            point(words, _STORED_TARGET, part(task.stored_target, 0, 0))
        # The gradient takes the logits' place.
        point(words, _GRADIENT, part(x, 0, size if task.gradient_out.size > 0 else 0))
        point(words, _PROBABILITIES, part(p, 0, size))
        point(words, _LOG_PROBABILITIES, part(log_p, 0, size))
        point(words, _DIAGONAL, part(diagonal, 0, size))
        point(words, _PRODUCT, part(product, 0, size))
        call_rows(inner, address_of_words(words), 0, 0, end - begin, words_out)
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
