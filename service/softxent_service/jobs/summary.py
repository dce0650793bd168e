"""Attributes of a result: its sums, means and provenance."""

from __future__ import annotations

import math
from typing import Any

import softxent
from softxent import Options
from softxent.blockwise.rows import RowSums
from softxent.errors import as_json
from softxent.reduction import mean_divisor, reduced_loss
from softxent_service.jobs.block_result import Tally
from softxent_service.jobs.job import Job

SOFT = ("target_probabilities", "target_indices")


def attributes_of(job: Job, tally: Tally, lost: str | None = None) -> dict[str, Any]:
    """Return what a result says about itself; numbers that JSON lacks are words.

    Args:
        lost: why the mean over weights cannot be told from the sums; None where it can be.
    """
    options, sums = job.specification.options, tally.sums
    as_mean = options if options.reduction == "mean" else Options(reduction="mean")
    loss_sum, weight_sum = sums.loss_sum, sums.weight_sum
    mean = reduced_loss(as_mean, loss_sum, mean_divisor(as_mean, weight_sum, sums.count))
    # A mean that was asked for is checked before, or divides by what the caller chose.
    no_mean = None if options.reduction == "mean" else lost
    reason = _no_perplexity(job, sums) or lost or _overflown(job, sums)
    counted = tally.correct is not None and sums.count
    return {
        "softxent": softxent.__version__,
        "numerics": softxent.NUMERICS_VERSION,
        "id": job.result_id,
        **job.asked,
        "versions": dict(job.versions),
        "rows": job.plan.rows,
        "blocks": job.plan.blocks,
        "count": sums.count,
        "skipped": len(tally.skipped),
        "loss_sum": as_json(loss_sum),
        "weight_sum": as_json(weight_sum),
        "mean": None if no_mean else as_json(mean),
        "mean_reason": no_mean,
        "perplexity": None if reason else as_json(_perplexity(sums, options.scale)),
        "perplexity_reason": reason,
        "loss_histogram": tally.histogram.to_json(),
        "accuracy": (tally.correct or 0) / sums.count if counted else None,
    }


def _no_perplexity(job: Job, sums: RowSums) -> str | None:
    """Return why the losses are not those of labels alone, times one factor; None where they are.

    Softcap, temperature and mask make the probabilities that are judged, and are no reason.
    """
    options = job.specification.options
    soft = [name for name, _ in job.specification.tensors if name in SOFT]
    if soft:
        return f"{soft[0]}: perplexity is of labels"
    for name in ("label_smoothing", "z_loss"):
        if getattr(options, name):
            return f"{name} is part of the loss"
    if options.scale == 0:
        return "scale is 0"
    return None if sums.weight_sum else "no row counts, or none has weight"


def _overflown(job: Job, sums: RowSums) -> str | None:
    """Return why infinite losses may be finite ones, made larger; None where they are not."""
    options = job.specification.options
    given = {name for name, _ in job.specification.tensors}
    enlarged = abs(options.scale) > 1 or {"row_weights", "class_weights"} & given
    if math.isinf(sums.loss_sum) and enlarged:
        return "loss_sum is infinite, which weights or scale may have made it"
    return None


def _perplexity(sums: RowSums, scale: float) -> float:
    """Return exp of the mean loss, rows weighted, before it was scaled."""
    try:
        return math.exp(sums.loss_sum / sums.weight_sum / scale)
    except OverflowError:
        return math.inf
