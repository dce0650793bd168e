"""The loops over rows: one source, run serially and under prange, for every element type.

Rows go in blocks; a block adds its losses to its own accumulator, and accumulators merge exactly,
so neither the number of blocks nor of threads can change a bit.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import prange, types

from softxent.compiled.blocks import describe_rows, evaluate_rows, evaluate_transformed_rows
from softxent.compiled.calls import call_rows, rows_signature
from softxent.compiled.compilation import address_of, kernel
from softxent.compiled.half_blocks import evaluate_half_rows
from softxent.compiled.shards import evaluate_shards, evaluate_transformed_shards
from softxent.compiled.task import shard_task_fields, task_fields, write

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


def evaluate_blocks(address, inner, task, rows, sums_out):
    """Evaluate every row of a task, a block at a time; see `row_loop`."""
    blocks = sums_out.shape[0]
    for block in prange(blocks):
        begin, end = block * rows // blocks, (block + 1) * rows // blocks
        call_rows(address, inner, task, begin, end, sums_out[block])


@functools.cache
def rows_function(computed: str, form: str) -> Any:
    """Return what evaluates a block of rows of float32 or float64, compiled on first use."""
    return kernel(_FUNCTIONS[form], rows_signature(task_fields(_ELEMENTS[computed])))


@functools.cache
def _half_rows_function() -> Any:
    return kernel(evaluate_half_rows, rows_signature(task_fields(_ELEMENTS["half"])))


@functools.cache
def row_loop(kind: str, form: str, *, parallel: bool) -> Any:
    """Return the loop over a batch's blocks: a function of (task, rows, sums_out).

    `kind` and `form` are of `KINDS` and `FORMS`; `sums_out` [blocks, WORDS], zeroed, takes an
    accumulator of the losses for each block.
    """
    is_half = kind == "half"
    function = address_of(rows_function("float32" if is_half else kind, form))
    address, inner = function, 0
    if is_half:
        address, inner = address_of(_half_rows_function()), function
    loop = _block_loop(kind, parallel=parallel)
    return lambda task, rows, sums: loop(address, inner, tuple(task), rows, sums)


@functools.cache
def _block_loop(kind: str, *, parallel: bool) -> Any:
    task = types.Tuple(task_fields(_ELEMENTS[kind]))
    signature = types.none(types.intp, types.intp, task, types.intp, write(types.int64, 2))
    return kernel(evaluate_blocks, signature, parallel=parallel)


@functools.cache
def shard_loop(computed: str, form: str, *, parallel: bool) -> Any:
    """Return the loop over rows of which a block of columns is there, compiled on first use."""
    fields = shard_task_fields(_ELEMENTS[computed])
    function = evaluate_transformed_shards if form == "transformed" else evaluate_shards
    address = address_of(kernel(function, rows_signature(fields)))
    task = types.Tuple(fields)
    signature = types.none(types.intp, types.intp, task, types.intp, write(types.int64, 2))
    loop = kernel(evaluate_blocks, signature, parallel=parallel)
    return lambda task, rows, sums: loop(address, 0, tuple(task), rows, sums)
