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
from softxent.compiled.memory import as_input, borrowed, hold, without_owner
from softxent.compiled.narrow import FIELDS, NARROW, evaluate_group
from softxent.compiled.rows import Scratch, evaluate_row
from softxent.compiled.softmax import PARTIALS
from softxent.compiled.targets import is_written_out
from softxent.compiled.task import BUCKET, Task, task_fields, write
from softxent.compiled.tiles import write_all


def _evaluate_wide(transformed: bool) -> Any:
    evaluate_one = evaluate_row[transformed]

    @inlined
    def evaluate_wide(task, first, last):
        owned = make_scratch(task, transformed)
        scratch = borrowed(owned)
        for row in range(first, last):
            row_weight = task.row_weights[row] if task.row_weights.size > 0 else 1.0
            if is_ignored(task, row) or row_weight == 0.0:
                write_ignored(task, row)
            else:
                evaluate_one(task, row, row_weight, scratch)
        hold(owned)

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
    z = np.empty(task.classes * LANES, task.logits.dtype)
    e = np.empty(task.classes * LANES, task.logits.dtype)
    fields = np.empty(FIELDS)
    taken = np.empty(LANES, np.bool_)
    for group in range(first, last, LANES):
        evaluate_group(task, group, min(LANES, last - group), z, e, fields, taken)


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
def make_scratch(task, transformed):
    """Return room for one row of a task."""
    tiles = task.tile_weights.size
    written = task.classes + tiles if is_written_out(task) else 0
    return Scratch(
        np.empty((tiles, PARTIALS)),
        np.empty((tiles if task.tail == BUCKET else 0, PARTIALS)),
        np.empty(task.entries + 1, np.int64),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(task.entries + 1),
        np.empty(written),
        np.empty(task.classes if transformed else 0, task.logits.dtype),
        np.empty(task.classes if task.softcap > 0.0 else 0, task.logits.dtype),
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
"""16-bit logits that are decoded at a time, if a row is not longer: 128 KiB of float32."""


def evaluate_half_rows(task, inner, first, last, words_out):
    """Evaluate rows of 16-bit logits, a few at a time in float32, where `inner` evaluates them."""
    classes = task.classes
    step = max(1, HALF_ELEMENTS // max(classes, 1))
    room = min(step, last - first) * classes
    x = np.empty(room, np.float32)
    p = np.empty(room if task.probabilities_out.size > 0 else 0, np.float32)
    t = np.empty(room if task.stored_target.size > 0 else 0, np.float32)
    wants_gradient = task.gradient_out.size > 0
    for begin in range(first, last, step):
        end = min(begin + step, last)
        size = (end - begin) * classes
        decode(task.logits, begin * classes, size, task.bfloat16, x)
        target = as_input(task.target[begin * classes : end * classes])
        if task.stored_target.size > 0:
            decode(task.stored_target, begin * classes, size, task.bfloat16, t)
            target = as_input(t[:size])
        mask = task.mask[begin * classes : end * classes] if task.masks_rows else task.mask
        entries = slice(begin * task.entries, end * task.entries)
        # Three tuples, because numba knows no call of more than thirty arguments.
        inputs = (
            x[:size],
            task.bfloat16,
            task.labels[begin:end],
            task.row_weights[begin:end],
            task.class_weights,
            task.other_weights,
            task.tile_weights,
            target,
            task.stored_target[:0],
            task.target_indices[entries],
            task.target_log_probabilities[entries],
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
            task.loss_out[begin:end],
            x[: size if wants_gradient else 0],
            task.log_normalizer_out[begin:end],
            p[:size],
        )
        part = inputs + options + outputs
        call_rows(inner, 0, part, 0, end - begin, words_out)
        if wants_gradient:
            encode(x, size, task.bfloat16, task.gradient_out, begin * classes)
        if task.probabilities_out.size > 0:
            encode(p, size, task.bfloat16, task.probabilities_out, begin * classes)


def rows_signature(element: Any) -> Any:
    """Return the signature of what evaluates a block of rows of this element type."""
    task = types.NamedTuple(task_fields(element), Task)
    return types.none(task, types.intp, types.intp, types.intp, write(types.int64))


def _as_wanted(context: Any, builder: Any, value: Any, have: Any, wanted: Any) -> Any:
    """Return `value` as another type; arrays are borrowed from the caller for the call."""
    if not isinstance(have, types.Array):
        return context.cast(builder, value, have, wanted)
    assert (have.dtype, have.ndim, have.layout) == (wanted.dtype, wanted.ndim, "C")
    return without_owner(context, builder, wanted, value)


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
        operands = [context.make_tuple(builder, callee.args[0], fields), args[1], *args[3:]]
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
