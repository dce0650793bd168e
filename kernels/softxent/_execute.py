"""Execution of plans over the rows of a batch: in one compiled call, or in steps by turns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent._finite import Losses, losses_of, refuse_non_finite
from softxent._kernels.loop.loops import row_loop, weight_loop, whole_call
from softxent._kernels.loop.threads import available_threads, parallel_loop
from softxent._kernels.math.exact_sum import WORDS, total
from softxent._outputs import prepare_outputs
from softxent._plan import MAIN, Plan, Words, arrays_of, lean_arrays_of, plan_of, set_numbers
from softxent._row_errors import Faults, refuse
from softxent.batch import Batch, check_batch
from softxent.errors import OptionError
from softxent.evaluations import CROSS_ENTROPY, PER_LOGIT, Evaluation
from softxent.options import Options
from softxent.reduction import (
    mean_divisor,
    reduced_loss,
    refuse_infinite_sums,
    refuse_weights_out_of_range,
)
from softxent.results import Arrays
from softxent.rounding import round_into

PARALLEL_ELEMENTS = 32_768
"""Batches of fewer logits are evaluated in one compiled call on one thread: entering a parallel
loop costs about as much as evaluating this many (10 to 20 microseconds)."""

PARALLEL_VALUES = 4_096
"""Values of targets and vectors from which on several threads check them."""

BLOCKS_A_THREAD = 16
"""Blocks of rows for each thread, so that a thread that is held up does not hold up the rest."""

CONVERTED_ELEMENTS = 1 << 20
"""Logits converted at a time where outputs are stored in another type than logits."""

TURN_ELEMENTS = 1 << 23
"""Logits evaluated in one turn, a few milliseconds; a row is never split."""

Turn = Callable[[], contextlib.AbstractContextManager[None]]
"""Makes what is entered before and left after each stretch of work of a few milliseconds, so that
calls which share processors can take turns. It may raise; outputs are then undefined."""

Loop = Callable[..., None]
Sums = npt.NDArray[np.int64]
Buffers = Mapping[str, npt.NDArray[Any]]


def evaluate(
    tensors: Mapping[str, Any],
    options: Options,
    evaluation: Evaluation = CROSS_ENTROPY,
    *,
    out: Buffers | None = None,
    num_threads: int | None = None,
    turn: Turn = contextlib.nullcontext,
) -> dict[str, Any]:
    """Evaluate tensors by name and options in one record; return outputs and sums by name.

    Whatever takes the kernels more than moments is done in turns; see `Turn`.
    """
    check_threads(num_threads)
    batch = check_batch(tensors, evaluation)
    plan = plan_of(batch, options, evaluation)
    outputs = prepare_outputs(batch, plan.outputs, options, out)
    if plan.fits_one_call and 0 < batch.logits.size < PARALLEL_ELEMENTS:
        with turn():
            found = _call_once(plan, batch, options, outputs)
        if found is not None:
            return finish(batch, options, evaluation, outputs, *found)
    threads = threads_of(num_threads)
    with turn():
        count, weight_sum = weigh(plan, batch, options, threads)
    divisor = mean_divisor(options, weight_sum, count)
    refuse_weights_out_of_range(batch, options, divisor, weight_sum)
    sums = run(plan, batch, options, divisor or math.inf, outputs, threads, turn)
    losses = losses_of(sums, outputs["loss"])
    return finish(batch, options, evaluation, outputs, losses, divisor, weight_sum, count)


def _call_once(
    plan: Plan, batch: Batch, options: Options, outputs: Arrays
) -> tuple[Losses, float, float, int] | None:
    """Evaluate a few rows in one compiled call; return losses, divisor, weight sum and count.

    Return None where a row is at fault or there is nothing to divide by; then no output is written.
    """
    template, arrays = plan.template, lean_arrays_of(plan, batch, outputs)
    lean = arrays is not None
    if arrays is None:
        template, arrays = arrays_of(plan, batch, options, outputs)
    totals, losses = np.empty(6), outputs["loss"].reshape(-1)
    call = whole_call(plan.kind, plan.form, lean=lean)
    call(template, batch.rows, totals, losses, arrays)
    count, weight_sum, divisor, loss_sum, finite, largest = totals.tolist()
    if count < 0 or divisor == 0:
        return None
    return Losses(loss_sum, bool(finite), largest), divisor, weight_sum, int(count)


def finish(
    batch: Batch,
    options: Options,
    evaluation: Evaluation,
    outputs: Arrays,
    losses: Losses,
    divisor: float,
    weight_sum: float,
    count: int,
) -> dict[str, Any]:
    """Return what was asked for and the sums by name, from the outputs that were written.

    Raises:
        NonFiniteError: one of them is not finite, and `non_finite` is "error".
    """
    refuse_non_finite(batch, options, divisor or math.inf, outputs, losses)
    results: dict[str, Any] = {name: outputs[name] for name in options.outputs}
    if "loss" in results and options.reduction != "none":
        results["loss"] = reduced_loss(options, losses.total, divisor)
    if evaluation.has_sums:
        results |= {"loss_sum": losses.total, "weight_sum": weight_sum, "count": count}
        refuse_infinite_sums(options, results)
    return results


@dataclass(frozen=True, eq=False)
class Weights:
    """Count and weights of rows, before they are evaluated.

    Attributes:
        count: rows that are not ignored; less than 0 where some are at fault.
        sums: the accumulator of what they weigh; of zeros where every row weighs 1.
        faults: uint8 [N], 0 where nothing is wrong.
    """

    count: int
    sums: Sums
    faults: Faults


def weigh(plan: Plan, batch: Batch, options: Options, threads: int) -> tuple[int, float]:
    """Check the values of targets and row weights; return `count` and `weight_sum`.

    Raises:
        WeightError, LabelError, RowsError: some rows are at fault.
    """
    weights = weigh_exactly(plan, batch, options, threads)
    return weights.count, total(weights.sums) if plan.weighs else float(weights.count)


def weigh_exactly(plan: Plan, batch: Batch, options: Options, threads: int) -> Weights:
    """Do as `weigh`, and return the sum of weights before it is rounded.

    Raises:
        As `weigh`.
    """
    weights = find_row_errors(plan, batch, options, threads)
    if weights.count < 0:
        refuse(batch, options, weights.faults)
    return weights


def find_row_errors(plan: Plan, batch: Batch, options: Options, threads: int) -> Weights:
    """Weigh rows and look for faults, which are left to the caller."""
    # A label or weight a row is read faster than a second thread starts; many values are not.
    values = batch.target_probabilities.size + batch.vectors.size + batch.target_indices.size
    parallel = values >= PARALLEL_VALUES and is_parallel(batch, threads)
    blocks = blocks_of(batch, threads, parallel)
    words = np.zeros((blocks, WORDS), np.int64)
    counts, faults = np.zeros(blocks, np.int64), np.zeros(batch.rows, np.uint8)
    if blocks:
        template, arrays = arrays_of(plan, batch, options, {})
        loop = weight_loop(plan.kind, parallel=parallel)
        with parallel_loop(threads) if parallel else contextlib.nullcontext():
            loop(template, batch.rows, words, counts, faults, arrays)
    count = -1 if (counts < 0).any() else int(counts.sum())
    return Weights(count, words[0] if blocks else np.zeros(WORDS, np.int64), faults)


def run(
    plan: Plan,
    batch: Batch,
    options: Options,
    divisor: float,
    outputs: Arrays,
    threads: int,
    turn: Turn = contextlib.nullcontext,
) -> Sums:
    """Write the outputs of a batch; return the accumulator of the losses.

    A `turn` is entered for each stretch of rows.
    """
    if plan.converted is not None:
        return _run_converted(plan.converted, batch, options, divisor, outputs, threads, turn)
    parallel = is_parallel(batch, threads)
    passes = []
    for form, names in _passes(plan, outputs):
        written = {name: outputs[name] for name in names}
        template, arrays = arrays_of(plan, batch, options, written)
        words = with_numbers(template, divisor=divisor)
        passes.append((row_loop(plan.kind, form, parallel=parallel), words, arrays))
    return run_passes(passes, batch, threads, turn, parallel=parallel)


def _passes(plan: Plan, outputs: Arrays) -> list[tuple[str, list[str]]]:
    """Return the form of each pass over the logits, and what it writes."""
    described = [name for name in outputs if name not in MAIN]
    main = (plan.form, [name for name in outputs if name in MAIN])
    # Before the gradient takes the logits' place.
    return [("described", described), main] if described else [main]


def run_passes(
    passes: Sequence[tuple[Loop, Words, tuple[npt.NDArray[Any], ...]]],
    batch: Batch,
    threads: int,
    turn: Turn = contextlib.nullcontext,
    *,
    parallel: bool,
) -> Sums:
    """Make each pass over some rows at a time; return the accumulator of the losses."""
    sums = np.zeros((max(1, blocks_of(batch, threads, parallel)), WORDS), np.int64)
    step, loss_sum = max(1, TURN_ELEMENTS // max(1, batch.logits.shape[1])), np.empty(1)
    for first in range(0, batch.rows, step):
        last = min(first + step, batch.rows)
        with turn(), parallel_loop(threads) if parallel else contextlib.nullcontext():
            for loop, words, arrays in passes:
                loop(words, first, last, sums, loss_sum, arrays)
    whole: Sums = sums[0]
    return whole


def with_numbers(template: Words, **numbers: float) -> Words:
    """Return a copy of the words of a task with other numbers."""
    words = template.copy()
    set_numbers(words, numbers)
    return words


def is_parallel(batch: Batch, threads: int) -> bool:
    """Whether a batch is worth more threads than one."""
    return threads > 1 and batch.rows > 1 and batch.logits.size >= PARALLEL_ELEMENTS


def blocks_of(batch: Batch, threads: int, parallel: bool) -> int:
    """Return into how many blocks of rows a batch is split."""
    return min(batch.rows, threads * BLOCKS_A_THREAD if parallel else 1)


def _run_converted(
    plan: Plan,
    batch: Batch,
    options: Options,
    divisor: float,
    outputs: Arrays,
    threads: int,
    turn: Turn,
) -> Sums:
    """Evaluate some rows at a time in the type of computation, rounding outputs once."""

    def run_rows(part: Batch, _: slice, pieces: Arrays) -> Sums:
        return run(plan, part, options, divisor, pieces, threads, turn)

    return by_converted_rows(batch, outputs, run_rows)


def by_converted_rows(
    batch: Batch, outputs: Arrays, run_rows: Callable[[Batch, slice, Arrays], Sums]
) -> Sums:
    """Call `run_rows` for some rows at a time, in the type of computation; round outputs once."""
    flat = {
        name: array.reshape(batch.logits.shape) if name in PER_LOGIT else array.reshape(-1)
        for name, array in outputs.items()
    }
    sums = np.zeros(WORDS, np.int64)
    step = max(1, CONVERTED_ELEMENTS // max(1, batch.classes))
    for first in range(0, batch.rows, step):
        rows = slice(first, min(first + step, batch.rows))
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


def check_threads(num_threads: int | None) -> None:
    """Refuse a number of threads that is none.

    Raises:
        OptionError: it is not an integer of at least 1.
    """
    if num_threads is None:
        return
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise OptionError(
            f"num_threads must be an integer of at least 1, not {num_threads!r}",
            field="num_threads",
        )


def threads_of(num_threads: int | None) -> int:
    """Return how many threads may be used where a caller allows `num_threads`."""
    check_threads(num_threads)
    if num_threads == 1:
        return 1
    available = available_threads()
    return available if num_threads is None else min(num_threads, available)
