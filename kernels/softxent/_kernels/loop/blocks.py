"""A block of rows: what a loop calls, three forms of it.

`evaluate_rows` and `evaluate_transformed_rows` write loss, gradient, log-normaliser and
probabilities; `describe_rows` everything else, which it reads off the logits alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.exact_sum import accumulate_all
from softxent._kernels.row.record import read_task
from softxent._kernels.row.row_statistics import describe_row, write_blank
from softxent._kernels.row.rows import Scratch, evaluate_row
from softxent._kernels.row.small_rows import NARROW, evaluate_group
from softxent._kernels.row.softmax import PARTIALS
from softxent._kernels.row.targets import is_written_out
from softxent._kernels.row.task import BUCKET
from softxent._kernels.row.tiles import write_all
from softxent._kernels.row.top_k import has_target
from softxent._kernels.simd.lanes import LANES
from softxent._kernels.simd.span import as_span, element_of, hold


def _evaluate_wide(transformed: bool) -> Any:
    evaluate_one = evaluate_row[transformed]

    @inlined
    def evaluate_wide(task, first, last):
        room = make_room(task, transformed, False)
        scratch = as_scratch(room)
        for row in range(first, last):
            if is_left_out(task, row):
                write_ignored(task, row)
            else:
                evaluate_one(task, row, weight_of(task, row), scratch)
        hold(room)

    return evaluate_wide


_evaluate_wide_plain = _evaluate_wide(transformed=False)
_evaluate_wide_transformed = _evaluate_wide(transformed=True)


def evaluate_rows(record, _inner, first, last, words_out):
    """Evaluate rows first .. last of a task, and add their losses to an accumulator."""
    task = read_task(record)
    if stands_in_lanes(task):
        evaluate_groups(task, first, last)
    else:
        _evaluate_wide_plain(task, first, last)
    accumulate_losses(task, first, last, words_out)


def evaluate_transformed_rows(record, _inner, first, last, words_out):
    """Do `evaluate_rows` where a softcap, temperature, mask or bucket changes the logits."""
    task = read_task(record)
    _evaluate_wide_transformed(task, first, last)
    accumulate_losses(task, first, last, words_out)


def describe_rows(record, _inner, first, last, _words_out):
    """Write what describes rows first .. last of a task; see `descriptions`."""
    task = read_task(record)
    room = make_room(task, True, True)
    scratch = as_scratch(room)
    for row in range(first, last):
        if is_left_out(task, row):
            write_blank(task, row, 0.0)
        else:
            describe_row(task, row, weight_of(task, row), scratch)
    hold(room)


@inlined
def evaluate_groups(task, first, last):
    """Evaluate rows in lanes, sixteen at a time."""
    size = (task.classes + LANES - 1) // LANES * LANES * LANES
    room = (
        np.empty(size, element_of(task.logits)),
        np.empty(size, element_of(task.logits)),
    )
    z, e = as_span(room[0]), as_span(room[1])
    for group in range(first, last, LANES):
        evaluate_group(task, group, min(LANES, last - group), z, e)
    hold(room)


@inlined
def accumulate_losses(task, first, last, words_out):
    """Add the losses of some rows to an accumulator."""
    accumulate_all(words_out, task.loss_out, first, last)


@inlined
def stands_in_lanes(task):
    """Whether sixteen rows are evaluated side by side: the classes are few, the target a label."""
    few = task.classes <= NARROW
    return few and task.entries == 0 and task.target.size == 0 and not is_written_out(task)


@inlined
def weight_of(task, row):
    """Return the weight of a row."""
    return task.row_weights[row] if task.row_weights.size > 0 else 1.0


@inlined
def is_left_out(task, row):
    """Whether a row is ignored: it weighs nothing, its label says so, or it has no target."""
    if weight_of(task, row) == 0.0:
        return True
    if task.labels.size > 0:
        return task.ignores and task.labels[row] == task.ignore_index
    indices, log_probabilities = task.target_indices, task.target_log_probabilities
    entries = task.entries
    return entries > 0 and not has_target(indices, log_probabilities, row, entries, task.tail)


@inlined
def make_room(task, transformed, described):
    """Return the arrays that a row needs; see `Scratch`."""
    tiles, element = task.tile_weights.size, element_of(task.logits)
    written = task.classes + tiles if is_written_out(task) else 0
    outside = tiles if task.tail == BUCKET else 0
    kept = task.classes if described else 0
    return (
        np.empty(tiles * PARTIALS),
        np.empty(outside * PARTIALS),
        np.empty(task.entries + 1, np.int64),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(written),
        np.empty(task.classes if transformed else 0, element),
        np.empty(task.classes if task.softcap > 0.0 else 0, element),
        np.empty(kept, element),
        np.empty(kept if outside > 0 else 0, element),
    )


@inlined
def as_scratch(room):
    """Return the spans of the arrays of `make_room`, which must be held."""
    return Scratch(
        as_span(room[0]),
        as_span(room[1]),
        as_span(room[2]),
        as_span(room[3]),
        as_span(room[4]),
        as_span(room[5]),
        as_span(room[6]),
        as_span(room[7]),
        as_span(room[8]),
        as_span(room[9]),
        as_span(room[10]),
    )


@inlined
def write_ignored(task, row):
    """Write the zeros of a row that is ignored."""
    task.loss_out[row] = 0.0
    if task.log_normalizer_out.size > 0:
        task.log_normalizer_out[row] = 0.0
    if task.gradient_out.size > 0:
        write_all(task.gradient_out, row * task.classes, task.classes, 0.0)
    if task.probabilities_out.size > 0:
        write_all(task.probabilities_out, row * task.classes, task.classes, 0.0)
