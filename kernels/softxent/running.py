"""Runs the row loops over a checked batch, and reads their sums."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent.batch import Batch, dtype_name
from softxent.compiled import threading
from softxent.compiled.exact_sum import WORDS
from softxent.compiled.loops import row_loop, shard_loop
from softxent.evaluations import PER_LOGIT
from softxent.options import Options
from softxent.results import Arrays
from softxent.rounding import round_into
from softxent.tasks import MAIN, ShardArrays, form_of_rows, make_shard_task, make_task

PARALLEL_ELEMENTS = 32_768
"""Batches of fewer logits take the serial loop: entering a parallel one costs about as much as
evaluating this many (10 to 20 microseconds)."""

BLOCKS_A_THREAD = 16
"""Blocks of rows for each thread, so that a thread that is held up does not hold up the rest."""

CONVERTED_ELEMENTS = 1 << 20
"""Logits converted at a time where outputs are stored in another type than logits."""

TURN_ELEMENTS = 1 << 23
"""Logits evaluated in one turn, a few milliseconds; a row is never split."""

Turn = Callable[[], contextlib.AbstractContextManager[None]]
"""Makes what is entered before and left after each stretch of work of a few milliseconds, so that
calls which share processors can take turns. It may raise; outputs are then undefined."""

Sums = npt.NDArray[np.int64]


def run(
    batch: Batch,
    options: Options,
    divisor: float,
    arrays: Arrays,
    threads: int,
    turn: Turn = contextlib.nullcontext,
) -> Sums:
    """Write the outputs of a batch to arrays by name; return the accumulator of the losses.

    The loss must be among them. A `turn` is entered for each block of rows.
    """
    stored = {array.dtype for name, array in arrays.items() if name in PER_LOGIT}
    converts = not stored <= {batch.logits.dtype}

    def run_rows(part: Batch, _: slice, pieces: Arrays) -> Sums:
        with turn():
            return _run(part, options, divisor, pieces, threads)

    if converts or batch.logits.size > TURN_ELEMENTS:
        return _by_blocks(batch, arrays, run_rows, converts=converts)
    return run_rows(batch, slice(None), arrays)


def _run(batch: Batch, options: Options, divisor: float, arrays: Arrays, threads: int) -> Sums:
    described = {name: array for name, array in arrays.items() if name not in MAIN}
    if described:
        # Before the gradient takes the logits' place.
        _loop(batch, options, divisor, described, threads, "described")
    main = {name: arrays[name] for name in MAIN if name in arrays}
    return _loop(batch, options, divisor, main, threads, form_of_rows(batch, options))


def _loop(
    batch: Batch, options: Options, divisor: float, arrays: Arrays, threads: int, form: str
) -> Sums:
    kind = "half" if batch.is_half else dtype_name(batch.logits.dtype)
    parallel = is_parallel(batch, threads)
    task = make_task(batch, options, divisor, arrays)
    return _through(row_loop(kind, form, parallel=parallel), task, batch, threads, parallel)


def is_parallel(batch: Batch, threads: int) -> bool:
    """Whether a batch is worth more threads than one."""
    return threads > 1 and batch.rows > 1 and batch.logits.size >= PARALLEL_ELEMENTS


def _through(loop: Any, task: Any, batch: Batch, threads: int, parallel: bool) -> Sums:
    sums = np.zeros((blocks_of(batch, threads, parallel), WORDS), np.int64)
    with threading.parallel_loop(threads) if parallel else contextlib.nullcontext():
        loop(task, batch.rows, sums)
    return merged(sums)


def blocks_of(batch: Batch, threads: int, parallel: bool) -> int:
    """Return into how many blocks of rows a batch is split."""
    return min(batch.rows, threads * BLOCKS_A_THREAD if parallel else 1)


def merged(sums: Sums) -> Sums:
    """Return the accumulator of a batch from those of its blocks [blocks, WORDS]."""
    whole: Sums = sums[0] if len(sums) == 1 else sums.sum(axis=0)
    return whole


def run_shard(
    batch: Batch,
    options: Options,
    divisor: float,
    arrays: Arrays,
    shard: ShardArrays,
    threads: int,
) -> Sums:
    """Do `run` for a block of columns, or write its tiles where `shard` has room for them."""

    def run_rows(part: Batch, rows: slice, pieces: Arrays) -> Sums:
        parallel = is_parallel(part, threads)
        form = form_of_rows(part, options)
        loop = shard_loop(dtype_name(part.logits.dtype), form, parallel=parallel)
        task = make_task(part, options, divisor, pieces)
        whole = make_shard_task(task, part, shard.part(rows))
        return _through(loop, whole, part, threads, parallel)

    return _by_blocks(batch, arrays, run_rows, converts=True)


def _by_blocks(
    batch: Batch,
    arrays: Arrays,
    run_rows: Callable[[Batch, slice, Arrays], Sums],
    *,
    converts: bool,
) -> Sums:
    """Evaluate some rows at a time; if it `converts`, in the type of computation, rounding once."""
    flat = {
        name: array.reshape(batch.logits.shape) if name in PER_LOGIT else array.reshape(-1)
        for name, array in arrays.items()
    }
    sums = np.zeros(WORDS, np.int64)
    step = max(1, (CONVERTED_ELEMENTS if converts else TURN_ELEMENTS) // max(1, batch.classes))
    for first in range(0, batch.rows, step):
        rows = slice(first, min(first + step, batch.rows))
        if not converts:
            sums += run_rows(batch.part(rows), rows, {name: a[rows] for name, a in flat.items()})
            continue
        part = _computed_part(batch, rows)
        pieces = {name: _piece(name, array[rows], part) for name, array in flat.items()}
        sums += run_rows(part, rows, pieces)
        for name, piece in pieces.items():
            if piece.dtype != flat[name].dtype:
                round_into(flat[name][rows], piece)
    return sums


def _piece(name: str, rows: npt.NDArray[Any], part: Batch) -> npt.NDArray[Any]:
    """Return what a block is written to: the output itself where its type is right."""
    if name in PER_LOGIT and rows.dtype != part.computed:
        return np.empty(rows.shape, part.computed)
    return rows


def _computed_part(batch: Batch, rows: slice) -> Batch:
    """Return some rows of a batch in the type of computation."""
    part = batch.part(rows)
    return replace(
        part,
        logits=part.logits.astype(batch.computed, copy=False),
        target_probabilities=part.target_probabilities.astype(batch.computed, copy=False),
    )
