"""The tasks of a job: one block read, evaluated by the serial kernels, written, committed.

They know kernels and storage. A task does not raise what is wrong with a block: it returns a
`Fault`, which the engine reports.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

import softxent
from softxent import ClassPartials
from softxent.blockwise.columns import class_partials, combine_partials
from softxent.blockwise.rows import Part, evaluate_columns, evaluate_part, faulty_rows
from softxent.errors import RowsError, SoftxentError
from softxent_service.jobs.acceptance import at_rows
from softxent_service.jobs.arrays import StoredArray
from softxent_service.jobs.block_result import Finished
from softxent_service.jobs.errors import InputChangedError, NumericsError
from softxent_service.jobs.histogram import Histogram, counted_rows
from softxent_service.jobs.job import Job, rows_of
from softxent_service.jobs.result import Result

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

logger = logging.getLogger("softxent.jobs")


@dataclass(frozen=True)
class Fault:
    """Fault of a block: the type of problem, its text, and its rows.

    Attributes:
        details: field, rows of the whole, values and their total within the block.
    """

    block: int
    rows: tuple[int, int]
    slug: str
    message: str
    details: dict[str, object]


Outcome = Finished | Fault


def evaluate_blocks(job: Job, blocks: list[int], numerics: int) -> list[Outcome]:
    """Evaluate blocks of whole rows one after the other, up to the first that has a fault."""
    outcomes: list[Outcome] = []
    for block in blocks:
        try:
            outcomes.append(evaluate_block(job, block, numerics))
        except Exception as error:
            # Raised, it would not be known of which block.
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            rows = job.plan.rows_of(block)
            outcomes.append(Fault(block, rows, "internal-error", f"not computed: {text}", {}))
        if isinstance(outcomes[-1], Fault):
            break
    return outcomes


def evaluate_block(job: Job, block: int, numerics: int) -> Outcome:
    """Evaluate a block of whole rows, unless it is committed already."""
    try:
        result = _begin(job, numerics)
        if committed := result.is_committed(block):
            return committed
        logger.debug("%s block %d begins", job.output.url, block)
        tensors = _read(job, block)
        part, skipped = _evaluate(job, tensors)
        _check_unchanged(job)
        result.write(part.arrays, block)
        first = job.plan.rows_of(block)[0]
        rows = tuple(int(row) + first for row in skipped)
        histogram = _histogram(job, part, tensors, skipped)
        finished = Finished(block, part.sums, histogram, _correct(part, tensors), rows)
        result.commit(finished)
        logger.debug("%s block %d committed", job.output.url, block)
        return finished
    except SoftxentError as error:
        return fault_of(job, block, error)


def partials_of_columns(
    job: Job, block: int, columns: slice, numerics: int
) -> ClassPartials | Fault | None:
    """Return the partials of some columns of a block; None where the block is committed."""
    try:
        if _begin(job, numerics).is_committed(block):
            return None
        if not columns.start:
            logger.debug("%s block %d begins", job.output.url, block)
        given: dict[str, Any] = {**_read(job, block, columns), **_keywords(job)}
        return class_partials(
            first_class=columns.start, classes=job.plan.classes, num_threads=1, **given
        )
    except SoftxentError as error:
        return fault_of(job, block, error)


def combine(parts: list[ClassPartials | Fault | None]) -> ClassPartials | Fault | None:
    """Return the partials of all columns of a block, or what stands in their way."""
    for part in parts:
        if not isinstance(part, ClassPartials):
            return part
    return combine_partials([part for part in parts if isinstance(part, ClassPartials)])


def evaluate_block_columns(
    job: Job, block: int, columns: slice, partials: ClassPartials | Fault | None
) -> Finished | Fault | None:
    """Write the results of some columns of a block; the first columns return what it comes to."""
    if not isinstance(partials, ClassPartials):
        return partials
    try:
        tensors = _read(job, block, columns)
        options = job.specification.options
        if columns.start:
            # All but values a logit is the same from every block of columns: the first writes it.
            own = tuple(n for n in options.outputs if n in ("gradient", "probabilities"))
            if not own:
                return None
            options = replace(options, outputs=own)
        part = evaluate_columns(
            tensors,
            options,
            partials,
            first_class=columns.start,
            divisor=1.0 if job.divisor is None else job.divisor,
            num_threads=1,
        )
        wanted = {name: part.arrays[name] for name in options.outputs}
        _check_unchanged(job)
        Result(job).write(wanted, block, columns.start)
        if columns.start:
            return None
        return Finished(block, part.sums, _histogram(job, part, tensors))
    except SoftxentError as error:
        return fault_of(job, block, error)


def commit(job: Job, block: int, parts: list[Finished | Fault | None]) -> list[Outcome]:
    """Say that a block is finished, all of whose columns are."""
    try:
        result = Result(job)
        if committed := result.is_committed(block):
            return [committed]
        for part in parts:
            if isinstance(part, Fault):
                return [part]
        finished = parts[0]
        assert isinstance(finished, Finished)
        result.commit(finished)
        logger.debug("%s block %d committed", job.output.url, block)
        return [finished]
    except SoftxentError as error:
        return [fault_of(job, block, error)]


def fault_of(job: Job, block: int, error: SoftxentError) -> Fault:
    """Return an error of a block as what is told about it: that inputs changed, if they did."""
    rows = job.plan.rows_of(block)
    try:
        _check_unchanged(job)
    except InputChangedError as change:
        error = change
    except SoftxentError:
        # What it stands for is that error, or follows from it.
        pass
    if isinstance(error, RowsError):
        error = at_rows(error, rows[0])
    return Fault(block, rows, error.slug, error.message, error.details())


def _begin(job: Job, numerics: int) -> Result:
    if numerics != softxent.NUMERICS_VERSION:
        raise NumericsError(
            f"this worker has numerics {softxent.NUMERICS_VERSION}, the runner {numerics}; run"
            " releases of the same numerics"
        )
    return Result(job)


@lru_cache(maxsize=8)
def _arrays(job: Job) -> Mapping[str, StoredArray]:
    return job.open()


def _check_unchanged(job: Job) -> None:
    """Look whether the files that were read are those of the job, before they make a result.

    Raises:
        InputChangedError, StorageError.
    """
    for array in _arrays(job).values():
        array.check_unchanged()


def _read(job: Job, block: int, columns: slice | None = None) -> Tensors:
    """Read the tensors of a block; of values a logit only some columns."""
    arrays, entries = _arrays(job), job.plan.entries_of(block)
    tensors: Tensors = rows_of(arrays, job, entries)
    middle = (slice(None),) * (len(job.shape) - 2)
    for name in ("logits", "target_probabilities"):
        if name in arrays:
            tensors[name] = arrays[name].read(entries, *middle, columns or slice(None))
    return tensors


def _evaluate(job: Job, tensors: Tensors) -> tuple[Part, Array]:
    """Return the results of whole rows, and which rows were left out."""
    if job.specification.on_error == "fail":
        return _part(job, tensors, _in_place(job, tensors)), np.empty(0, np.int64)
    options = job.specification.options
    bad = faulty_rows(tensors, options, num_threads=1)
    part = _part(job, _without(tensors, bad), {}, non_finite="propagate")
    if options.non_finite == "error":
        infinite = ~np.isfinite(part.arrays["loss"].reshape(-1))
        if infinite.any():
            bad |= infinite
            part = _part(job, _without(tensors, bad), {})
    return part, bad.nonzero()[0]


def _part(job: Job, tensors: Tensors, out: Tensors, **changed: Any) -> Part:
    options = replace(job.specification.options, **changed)
    divisor = 1.0 if job.divisor is None else job.divisor
    return evaluate_part(tensors, options, divisor=divisor, out=out, num_threads=1)


def _in_place(job: Job, tensors: Tensors) -> Tensors:
    """Return the logits as the place for the gradient, where they can be: no second block."""
    logits = tensors["logits"]
    fits = logits.flags.writeable and logits.flags.c_contiguous
    same = job.output_form("gradient")[1] == logits.dtype
    asked = "gradient" in job.specification.options.outputs
    return {"gradient": logits} if asked and fits and same else {}


def _without(tensors: Tensors, bad: Array) -> Tensors:
    """Return tensors in which rows weigh nothing, and so are as ignored ones."""
    if not bad.any():
        return tensors
    leading = tensors["logits"].shape[:-1]
    weights = tensors.get("row_weights", np.ones(leading)).astype(np.float64).reshape(-1)
    weights[bad] = 0.0
    return {**tensors, "row_weights": weights.reshape(leading)}


def _histogram(job: Job, part: Part, tensors: Tensors, skipped: Array | None = None) -> Histogram:
    """Return the histogram of the losses of rows that are neither ignored nor skipped."""
    losses, options = part.arrays["loss"].reshape(-1), job.specification.options
    counted = counted_rows(
        tensors, rows=losses.size, ignore_index=options.ignore_index, tail=options.tail
    )
    if skipped is not None:
        counted[skipped] = False
    return Histogram.of(losses[counted])


def _correct(part: Part, tensors: Tensors) -> int | None:
    """Return how many rows are predicted right, where that is among what was evaluated."""
    arrays = part.arrays
    if "labels" not in tensors:
        return None
    if "correct" in arrays:
        return int(arrays["correct"].sum())
    if "rank" in arrays:
        return int((arrays["rank"] == 0).sum())
    if "prediction" in arrays:
        taken = arrays["prediction"] >= 0
        return int((taken & (arrays["prediction"] == tensors["labels"])).sum())
    return None


def _keywords(job: Job) -> dict[str, Any]:
    """Return the options that the partials of columns depend on."""
    options = job.specification.options
    names = ("ignore_index", "label_smoothing", "softcap", "temperature", "tail", "hard_weight")
    return {name: getattr(options, name) for name in names}
