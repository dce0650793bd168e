"""The loops over rows: one source, run serially and under prange, for every element type.

Rows go in blocks; a block adds its losses to its own accumulator, and accumulators merge exactly,
so neither the number of blocks nor of threads can change a bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, types

from softxent._kernels.build.compilation import address_of, entry_of, inlined, kernel
from softxent._kernels.loop.blocks import describe_rows, evaluate_rows, evaluate_transformed_rows
from softxent._kernels.loop.half_blocks import evaluate_half_rows
from softxent._kernels.loop.shards import evaluate_shards, evaluate_transformed_shards
from softxent._kernels.math.exact_sum import WORDS, holds_finite, rounded
from softxent._kernels.row.checks import weigh_rows
from softxent._kernels.row.record import (
    call_rows,
    call_weigh,
    filled_record,
    rows_signature,
    weigh_signature,
    write_number,
)
from softxent._kernels.row.task import (
    FIELDS,
    LEAN,
    OFFSETS,
    Record,
    ShardTask,
    Task,
    array_types,
)
from softxent._kernels.simd.lanes import from_bits
from softxent._kernels.simd.span import hold, read, write

KINDS = ("float32", "float64", "half")
"""What logits are: a float, or one of 16 bits, which is computed in float32."""

FORMS = ("plain", "transformed", "described")
"""Which of the functions of `blocks` a row goes to."""

_FUNCTIONS: dict[str, Any] = {
    "plain": evaluate_rows,
    "transformed": evaluate_transformed_rows,
    "described": describe_rows,
}
_ELEMENTS = {"float32": types.float32, "float64": types.float64, "half": types.uint16}
_DIVISOR = OFFSETS["divisor"]
_OVER_COUNT, _WEIGHS = OFFSETS["over_count"], OFFSETS["weighs"]


def evaluate_blocks(address, inner, template, first, last, sums, total_out, arrays):
    """Evaluate rows first .. last of a task, a block at a time; see `row_loop`."""
    record = filled_record(template, arrays)
    blocks, rows = sums.shape[0], last - first
    for block in prange(blocks):
        begin = first + block * rows // blocks
        end = first + (block + 1) * rows // blocks
        call_rows(address, record, inner, begin, end, sums[block])
    merge(sums)
    total_out[0] = rounded(sums[0])
    hold(arrays)


def weigh_blocks(address, template, rows, words, counts_out, faults_out, arrays):
    """Check and weigh all rows of a task, a block at a time; see `weight_loop`."""
    record = filled_record(template, arrays)
    blocks = counts_out.size
    for block in prange(blocks):
        begin, end = block * rows // blocks, (block + 1) * rows // blocks
        counts_out[block] = call_weigh(address, record, begin, end, words[block], faults_out)
    merge(words)
    hold(arrays)


def evaluate_whole(weigh, address, inner, template, rows, totals_out, losses, arrays):
    """Check, weigh and evaluate all rows of a task; see `whole_call`."""
    record = filled_record(template, arrays)
    words, no_faults = np.zeros(WORDS, np.int64), np.empty(0, np.uint8)
    count = call_weigh(weigh, record, 0, rows, words, no_faults)
    totals_out[0] = count
    if count < 0:
        return
    weight_sum = rounded(words) if template[_WEIGHS] != 0 else float(count)
    totals_out[1] = weight_sum
    totals_out[2] = float(count) if template[_OVER_COUNT] != 0 else from_bits(template[_DIVISOR])
    if totals_out[2] == 0.0:
        return
    write_number(record, _DIVISOR, totals_out[2])
    words[:] = 0
    call_rows(address, record, inner, 0, rows, words)
    totals_out[3] = rounded(words)
    totals_out[4] = holds_finite(words)
    totals_out[5] = largest_magnitude(losses, rows)
    hold(arrays)


@inlined
def largest_magnitude(values, count):
    """Return the largest magnitude of some values, NaN left out."""
    largest = 0.0
    for i in range(count):
        largest = max(largest, abs(np.float64(values[i])))
    return largest


@inlined
def merge(words):
    """Move what all accumulators of int64 [blocks, WORDS] hold to the first."""
    for block in range(1, words.shape[0]):
        for word in range(WORDS):
            words[0, word] += words[block, word]
            words[block, word] = 0


@functools.cache
def rows_function(computed: str, form: str) -> Any:
    """Return what evaluates a block of rows of float32 or float64, compiled on first use."""
    return kernel(_FUNCTIONS[form], rows_signature(Record(Task, _ELEMENTS[computed])))


@functools.cache
def _half_rows_function() -> Any:
    return kernel(evaluate_half_rows, rows_signature(Record(Task, _ELEMENTS["half"])))


@functools.cache
def weigh_function(computed: str) -> Any:
    """Return what checks and weighs a block of rows of float32 or float64."""
    return kernel(weigh_rows, weigh_signature(Record(Task, _ELEMENTS[computed])))


def _addresses(kind: str, form: str) -> tuple[int, int]:
    """Return the addresses of what evaluates a block of rows, and of what that calls."""
    if kind != "half":
        return address_of(rows_function(kind, form)), 0
    return address_of(_half_rows_function()), address_of(rows_function("float32", form))


_TEMPLATE, _SUMS, _TOTAL = read(types.int64), write(types.int64, 2), write(types.float64)


@functools.cache
def row_loop(kind: str, form: str, *, parallel: bool) -> Callable[..., None]:
    """Return the loop over blocks: (template, first, last, sums, total_out, arrays).

    `kind` and `form` are of `KINDS` and `FORMS`; `sums` [blocks, WORDS], zeroed, has an
    accumulator of the losses for each block, of which the first takes all in the end, and
    `total_out` [1] their sum.
    """
    loop = _block_loop(Task, kind, parallel=parallel)
    return functools.partial(loop, *_addresses(kind, form))


@functools.cache
def shard_loop(computed: str, form: str, *, parallel: bool) -> Callable[..., None]:
    """Return the loop over rows of which a block of columns is there, compiled on first use."""
    function = evaluate_transformed_shards if form == "transformed" else evaluate_shards
    record = Record(ShardTask, _ELEMENTS[computed])
    address = address_of(kernel(function, rows_signature(record)))
    return functools.partial(_block_loop(ShardTask, computed, parallel=parallel), address, 0)


@functools.cache
def _block_loop(kind: Any, element: str, *, parallel: bool) -> Any:
    """Return `evaluate_blocks` for a kind of task, `Task` or `ShardTask`."""
    arrays = types.Tuple(array_types(Record(kind, _ELEMENTS[element])))
    numbers = (types.intp, types.intp)
    signature = types.none(types.intp, types.intp, _TEMPLATE, *numbers, _SUMS, _TOTAL, arrays)
    return kernel(evaluate_blocks, signature, parallel=parallel)


@functools.cache
def weight_loop(kind: str, *, parallel: bool) -> Callable[..., None]:
    """Return what checks and weighs rows: (template, rows, words, counts_out, faults_out, arrays).

    `words` [blocks, WORDS] and `faults_out` [N] are zeroed; counts_out [blocks] takes how many
    rows of each block take part, -1 where some are at fault, and the first accumulator of
    `words` what all of them weigh.
    """
    arrays = types.Tuple(array_types(Record(Task, _ELEMENTS[kind])))
    counts, faults = write(types.int64), write(types.uint8)
    signature = types.none(types.intp, _TEMPLATE, types.intp, _SUMS, counts, faults, arrays)
    loop = kernel(weigh_blocks, signature, parallel=parallel)
    return functools.partial(loop, _weigh_address(kind))


@functools.cache
def whole_call(kind: str, form: str, *, lean: bool) -> Callable[..., None]:
    """Return what does all for a few rows: (template, rows, totals_out, losses, arrays).

    `arrays` are those that are named `LEAN`, or all; `losses` is one of them.

    totals_out float64 [6] takes the number of rows that take part, -1 where some are at fault,
    what they weigh, what derivatives are divided by, the sum of losses, whether all of them are
    finite, and the largest magnitude. Where there is a fault, or nothing to divide by, what
    follows is not written, and no output is.
    """
    record = Record(Task, _ELEMENTS[kind])
    arrays = types.Tuple(array_types(record, LEAN if lean else None))
    losses = write(record.dtype_of(FIELDS[Task]["loss_out"]))
    addresses = (types.intp, types.intp, types.intp)
    signature = types.none(*addresses, _TEMPLATE, types.intp, _TOTAL, losses, arrays)
    call = entry_of(kernel(evaluate_whole, signature))
    return functools.partial(call, _weigh_address(kind), *_addresses(kind, form))


def _weigh_address(kind: str) -> int:
    return address_of(weigh_function("float32" if kind == "half" else kind))
