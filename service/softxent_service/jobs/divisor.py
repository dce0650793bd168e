"""What a mean divides by, found before the first derivative is written: one pass over labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from softxent.errors import RowsError
from softxent.parts import RowSums, weigh_part
from softxent.reduction import mean_divisor
from softxent_service.jobs.acceptance import at_rows
from softxent_service.jobs.arrays import StoredArray
from softxent_service.jobs.job import Job
from softxent_service.jobs.specification import DIVIDED

ROWS = 1 << 20
"""Labels and weights that are looked at together: 16 MB."""


def find_divisor(job: Job, arrays: Mapping[str, StoredArray]) -> float | None:
    """Return what derivatives are divided by; None where nothing that is written is divided.

    Raises:
        EmptyReductionError: it is 0, and `empty` is "error".
        RowsError: a label or a weight is refused.
        StorageError: they cannot be read.
    """
    options = job.specification.options
    if options.reduction != "mean" or not set(DIVIDED) & set(options.outputs):
        return None
    if options.denominator is not None:
        return options.denominator
    sums = RowSums.merged(_sums(job, arrays))
    if not {"labels", "row_weights"} & set(arrays):
        return mean_divisor(options, float(job.plan.rows), job.plan.rows)
    return mean_divisor(options, sums.weight_sum, sums.count)


def _sums(job: Job, arrays: Mapping[str, StoredArray]) -> Iterator[RowSums]:
    plan, options = job.plan, job.specification.options
    given = {name: arrays[name] for name in ("labels", "row_weights") if name in arrays}
    soft = {"target_probabilities", "target_indices"} & set(arrays)
    # A soft target belongs to no single class.
    weighs = "class_weights" in arrays and not soft
    whole = {"class_weights": arrays["class_weights"].read()} if weighs else {}
    if not given:
        return
    step = max(1, ROWS // max(1, plan.rows_an_entry))
    for first in range(0, plan.entries, step):
        entries = slice(first, min(first + step, plan.entries))
        some = {name: array.read(entries).reshape(-1) for name, array in given.items()}
        try:
            yield weigh_part({**some, **whole}, options, classes=plan.classes, num_threads=1)
        except RowsError as error:
            raise at_rows(error, first * plan.rows_an_entry) from None
