"""Validation of labels, targets and row weights, before anything is evaluated."""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import exp_scaled
from softxent._kernels.math.exact_sum import accumulate
from softxent._kernels.math.lane_reductions import any_lane
from softxent._kernels.row.record import read_task
from softxent._kernels.row.task import RENORMALIZE
from softxent._kernels.row.top_k import has_target
from softxent._kernels.simd.lanes import LANES, to_int32
from softxent._kernels.simd.memory import first_lanes, load_first

(
    ROW_WEIGHT,
    LABEL_RANGE,
    LABEL_MASKED,
    PROBABILITY,
    INDEX_RANGE,
    INDEX_TWICE,
    INDEX_MASKED,
    LOG_PROBABILITY,
    EXCESS_MASS,
    VECTOR,
) = range(1, 11)
"""What may be wrong with a row."""


def weigh_rows(record, first, last, words_out, faults_out):
    """Add the weights of the rows that take part to an accumulator; return how many, -1 for faults.

    A row weighs its own weight, times that of its label's class if `weighs_classes`. faults_out
    uint8 [N], zeroed, takes one of the numbers above for each of the rows first .. last that is at
    fault; without elements it takes none.
    """
    task = read_task(record)
    labels, row_weights, mask = task.labels, task.row_weights, task.mask
    targets = task.entries + task.target.size + task.stored_target.size
    weighted = task.weighs_classes or row_weights.size > 0
    if targets == 0 and not weighted and task.vectors.size + mask.size == 0 and labels.size > 0:
        count = count_labels(labels, first, last, task.all_classes, task.ignores, task.ignore_index)
        if count >= 0:
            return count
    classes, entries = task.all_classes, task.entries
    columns, infinity = task.classes, 0x7F80 if task.bfloat16 else 0x7C00
    count, found = 0, False
    seen = np.zeros(classes if entries > 1 and last > first else 0, np.int64)
    for row in range(first, last):
        weight = row_weights[row] if row_weights.size > 0 else 1.0
        fault = 0
        label = labels[row] if labels.size > 0 else 0
        masked_from = row * classes if task.masks_rows else 0
        if not 0.0 <= weight < np.inf:
            fault = ROW_WEIGHT
        elif weight == 0.0 or (task.ignores and labels.size > 0 and label == task.ignore_index):
            continue
        elif not 0 <= label < classes:
            fault = LABEL_RANGE
        elif labels.size > 0 and mask.size > 0 and mask[masked_from + label] == 0:
            fault = LABEL_MASKED
        elif entries > 0:
            fault = check_entries(
                row, classes, entries, task.target_indices, task.target_log_probabilities,
                task.tail, task.most_mass, mask, masked_from, seen,
            )  # fmt: skip
            if (
                fault == 0
                and labels.size == 0
                and not has_target(
                    task.target_indices, task.target_log_probabilities, row, entries, task.tail
                )
            ):
                continue
        elif (
            task.target.size > 0 and not are_probabilities(task.target, row * columns, columns)
        ) or (
            task.stored_target.size > 0
            and not are_stored(task.stored_target, row * columns, columns, infinity)
        ):
            fault = PROBABILITY
        if fault == 0 and task.vectors.size > 0:
            fault = check_vector(task.vectors, row * classes, classes, mask, masked_from)
        if fault != 0:
            if faults_out.size > 0:
                faults_out[row] = fault
            found = True
            continue
        count += 1
        if task.weighs_classes:
            accumulate(words_out, weight * task.class_weights[label])
        elif row_weights.size > 0:
            accumulate(words_out, weight)
    return -1 if found else count


@inlined
def count_labels(labels, first, last, classes, ignores, ignore_index):
    """Return how many labels are not ignored, or -1 if one of those is no class."""
    count, bad = 0, 0
    for row in range(first, last):
        label = labels[row]
        taken = not (ignores and label == ignore_index)
        good = (label >= 0) & (label < classes)
        count += taken
        bad += taken & (not good)
    return count if bad == 0 else -1


@inlined
def check_entries(
    row, classes, entries, indices, log_probabilities, tail, most_mass, mask, masked_from, seen
):
    """Return what is wrong with the entries of a row, 0 for nothing."""
    total = 0.0
    for i in range(row * entries, (row + 1) * entries):
        k = indices[i]
        if k == -1:
            continue
        if not 0 <= k < classes:
            return INDEX_RANGE
        if mask.size > 0 and mask[masked_from + k] == 0:
            return INDEX_MASKED
        if seen.size > 0:
            if seen[k] == row + 1:
                return INDEX_TWICE
            seen[k] = row + 1
        if not log_probabilities[i] < np.inf:
            return LOG_PROBABILITY
        if tail != RENORMALIZE:
            # Above 1 the sum is too large without an exponential, which may overflow.
            total += exp_scaled(min(log_probabilities[i], 1.0), 0.0, 0.0)
    return EXCESS_MASS if total > most_mass else 0


@inlined
def check_vector(vectors, begin, count, mask, masked_from):
    """Return VECTOR if a class that takes part has a value that is not finite, else 0."""
    bad = first_lanes(0)
    for j in range(0, count, LANES):
        v = load_first(vectors, begin + j, count - j, 0.0)
        unfit = (v != v) | (v == np.inf) | (v == -np.inf)
        if mask.size > 0:
            unfit = unfit & (load_first(mask, masked_from + j, count - j, 0) != 0)
        bad = bad | unfit
    return VECTOR if any_lane(bad) else 0


@inlined
def are_probabilities(values, begin, count):
    """Whether all are finite and none is negative."""
    bad = first_lanes(0)
    for j in range(0, count, LANES):
        v = load_first(values, begin + j, count - j, 0.0)
        bad = bad | (v < 0.0) | (v != v) | (v == np.inf)
    return not any_lane(bad)


@inlined
def are_stored(values, begin, count, infinity):
    """Do `are_probabilities` for the patterns of 16-bit floats; -0 is a probability."""
    bad = first_lanes(0)
    for j in range(0, count, LANES):
        v = to_int32(load_first(values, begin + j, count - j, 0))
        bad = bad | ((v > infinity - 1) & (v != 0x8000))
    return not any_lane(bad)
