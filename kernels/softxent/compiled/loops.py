"""The loops over rows: one source, run serially and under prange, for every element type.

Rows go in blocks; a block adds its losses to its own accumulator, and accumulators merge exactly,
so neither the number of blocks nor of threads can change a bit. What evaluates a block is compiled
once a type and handed to the loops by its address: a loop is a second's work for the compiler and
a block's function ten.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange, types
from numba.core import cgutils

from softxent.compiled.compilation import address_of, inlined, kernel
from softxent.compiled.exact_sum import accumulate
from softxent.compiled.half import decode, encode
from softxent.compiled.lanes import LANES, intrinsic
from softxent.compiled.narrow import FIELDS, NARROW, evaluate_group
from softxent.compiled.rows import Scratch, evaluate_row
from softxent.compiled.softmax import PARTIALS
from softxent.compiled.span import Span, as_span, element_of, hold, part, span_of
from softxent.compiled.targets import is_written_out
from softxent.compiled.task import BUCKET, span_types, task_fields, write
from softxent.compiled.tiles import write_all


def _evaluate_wide(transformed: bool) -> Any:
    evaluate_one = evaluate_row[transformed]

    @inlined
    def evaluate_wide(task, first, last):
        room = make_room(task, transformed)
        scratch = Scratch(
            as_span(room[0]),
            as_span(room[1]),
            as_span(room[2]),
            as_span(room[3]),
            as_span(room[4]),
            as_span(room[5]),
            as_span(room[6]),
            as_span(room[7]),
            as_span(room[8]),
        )
        for row in range(first, last):
            row_weight = task.row_weights[row] if task.row_weights.size > 0 else 1.0
            if is_ignored(task, row) or row_weight == 0.0:
                write_ignored(task, row)
            else:
                evaluate_one(task, row, row_weight, scratch)
        hold(room)

    return evaluate_wide


_evaluate_wide_plain = _evaluate_wide(transformed=False)
_evaluate_wide_transformed = _evaluate_wide(transformed=True)


def evaluate_rows(task, _inner, first, last, words_out):
    """Evaluate rows first .. last of a task, and add their losses to an accumulator."""
    if stands_in_lanes(task):
        evaluate_groups(task, first, last)
    else:
        _evaluate_wide_plain(task, first, last)
    accumulate_losses(task, first, last, words_out)


def evaluate_transformed_rows(task, _inner, first, last, words_out):
    """Do `evaluate_rows` where a softcap, temperature, mask or bucket changes the logits."""
    _evaluate_wide_transformed(task, first, last)
    accumulate_losses(task, first, last, words_out)


@inlined
def evaluate_groups(task, first, last):
    """Evaluate rows in lanes, sixteen at a time."""
    element = element_of(task.logits)
    room = (
        np.empty(task.classes * LANES, element),
        np.empty(task.classes * LANES, element),
        np.empty(FIELDS),
        np.empty(LANES, np.bool_),
    )
    z, e, fields, taken = as_span(room[0]), as_span(room[1]), as_span(room[2]), as_span(room[3])
    for group in range(first, last, LANES):
        evaluate_group(task, group, min(LANES, last - group), z, e, fields, taken)
    hold(room)


@inlined
def accumulate_losses(task, first, last, words_out):
    """Add the losses of some rows to an accumulator."""
    for row in range(first, last):
        accumulate(words_out, np.float64(task.loss_out[row]))


@inlined
def stands_in_lanes(task):
    """Whether sixteen rows are evaluated side by side: the classes are few, the target a label."""
    few = task.classes <= NARROW
    return few and task.entries == 0 and task.target.size == 0 and not is_written_out(task)


@inlined
def is_ignored(task, row):
    """Whether the label of a row says that it is left out."""
    return task.ignores and task.labels.size > 0 and task.labels[row] == task.ignore_index


@inlined
def make_room(task, transformed):
    """Return the arrays that a row needs; see `Scratch`."""
    tiles, element = task.tile_weights.size, element_of(task.logits)
    written = task.classes + tiles if is_written_out(task) else 0
    return (
        np.empty(tiles * PARTIALS),
        np.empty(tiles * PARTIALS if task.tail == BUCKET else 0),
        np.empty(task.entries + 1, np.int64),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(written),
        np.empty(task.classes if transformed else 0, element),
        np.empty(task.classes if task.softcap > 0.0 else 0, element),
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


HALF_ELEMENTS = 32_768
"""16-bit logits decoded at a time, if a row is not longer: 128 KiB of float32."""


def evaluate_half_rows(task, inner, first, last, words_out):
    """Evaluate rows of 16-bit logits, a few at a time in float32, where `inner` evaluates them."""
    classes = task.classes
    step = max(1, HALF_ELEMENTS // max(classes, 1))
    size = min(step, last - first) * classes
    wants_gradient, wants_probabilities = (
        task.gradient_out.size > 0,
        task.probabilities_out.size > 0,
    )
    room = (
        np.empty(size, np.float32),
        np.empty(size if wants_probabilities else 0, np.float32),
        np.empty(size if task.stored_target.size > 0 else 0, np.float32),
    )
    x, p, t = as_span(room[0]), as_span(room[1]), as_span(room[2])
    for begin in range(first, last, step):
        end = min(begin + step, last)
        at, size = begin * classes, (end - begin) * classes
        decode(task.logits, at, size, task.bfloat16, x)
        target = part(task.target, at, at + size)
        if task.stored_target.size > 0:
            decode(task.stored_target, at, size, task.bfloat16, t)
            target = part(t, 0, size)
        mask = part(task.mask, at, at + size) if task.masks_rows else task.mask
        entries_at, entries_end = begin * task.entries, end * task.entries
        # Three tuples, because numba knows no call of more than thirty arguments.
        inputs = (
            part(x, 0, size),
            task.bfloat16,
            part(task.labels, begin, end),
            part(task.row_weights, begin, end),
            task.class_weights,
            task.other_weights,
            task.tile_weights,
            target,
            part(task.stored_target, 0, 0),
            part(task.target_indices, entries_at, entries_end),
            part(task.target_log_probabilities, entries_at, entries_end),
            mask,
            task.masks_rows,
        )
        options = (
            classes,
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
        )
        outputs = (
            part(task.loss_out, begin, end),
            part(x, 0, size if wants_gradient else 0),
            part(task.log_normalizer_out, begin, end),
            part(p, 0, size),
        )
        call_rows(inner, 0, inputs + options + outputs, 0, end - begin, words_out)
        if wants_gradient:
            encode(x, size, task.bfloat16, task.gradient_out, at)
        if wants_probabilities:
            encode(p, size, task.bfloat16, task.probabilities_out, at)
    hold(room)


def rows_signature(element: Any) -> Any:
    """Return the signature of what evaluates a block of rows of this element type."""
    words = Span(types.int64)
    return types.none(span_types(element), types.intp, types.intp, types.intp, words)


def _as_wanted(context: Any, builder: Any, value: Any, have: Any, wanted: Any) -> Any:
    """Return `value` as another type; arrays, which the caller holds, as spans."""
    if not isinstance(have, types.Array):
        return context.cast(builder, value, have, wanted)
    assert (Span(have.dtype), have.layout) == (wanted, "C")
    return span_of(context, builder, have, value)


@intrinsic
def call_rows(
    typing: Any, address: Any, inner: Any, task: Any, first: Any, last: Any, words: Any
) -> Any:
    """Call a function of `rows_signature` by its address; `task` is a tuple of its fields."""
    callee = rows_signature(task.types[0].dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = context.call_conv.get_function_type(types.none, callee.args)
        pointer = builder.inttoptr(args[0], function.as_pointer())
        fields = [
            _as_wanted(context, builder, value, have, wanted)
            for value, have, wanted in zip(
                cgutils.unpack_tuple(builder, args[2]),
                task.types,
                callee.args[0].types,
                strict=True,
            )
        ]
        words_out = _as_wanted(context, builder, args[5], words, callee.args[4])
        task_value = context.make_tuple(builder, callee.args[0], fields)
        operands = [task_value, args[1], args[3], args[4], words_out]
        context.call_conv.call_function(builder, pointer, types.none, callee.args, operands)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, task, types.intp, types.intp, words), build


def evaluate_blocks(address, inner, task, rows, sums_out):
    """Evaluate every row of a task, a block at a time; see `row_loop`."""
    blocks = sums_out.shape[0]
    for block in prange(blocks):
        begin, end = block * rows // blocks, (block + 1) * rows // blocks
        call_rows(address, inner, task, begin, end, sums_out[block])


_ELEMENTS = {"float32": types.float32, "float64": types.float64, "half": types.uint16}


@functools.cache
def rows_function(kind: str, *, transformed: bool) -> Any:
    """Return what evaluates a block of rows, compiled on first use."""
    function = evaluate_transformed_rows if transformed else evaluate_rows
    if kind == "half":
        function = evaluate_half_rows
    return kernel(function, rows_signature(_ELEMENTS[kind]))


@functools.cache
def row_loop(kind: str, *, transformed: bool, parallel: bool) -> Any:
    """Return the loop over a batch's blocks: a function of (task, rows, sums_out).

    `kind` is float32, float64 or half, for 16 bits; `sums_out` [blocks, WORDS], zeroed, takes an
    accumulator of the losses for each block.
    """
    is_half = kind == "half"
    address = address_of(rows_function(kind, transformed=transformed and not is_half))
    inner = address_of(rows_function("float32", transformed=transformed)) if is_half else 0
    loop = _block_loop(kind, parallel=parallel)
    return lambda task, rows, sums: loop(address, inner, tuple(task), rows, sums)


@functools.cache
def _block_loop(kind: str, *, parallel: bool) -> Any:
    task = types.Tuple(task_fields(_ELEMENTS[kind]))
    signature = types.none(types.intp, types.intp, task, types.intp, write(types.int64, 2))
    return kernel(evaluate_blocks, signature, parallel=parallel)
