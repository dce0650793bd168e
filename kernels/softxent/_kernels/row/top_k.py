"""Top-k targets: the masses of the classes that are named, and what they leave to a bucket."""

from __future__ import annotations

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import exp_pair, expm1_pair, two_sum
from softxent._kernels.row.task import BUCKET, RENORMALIZE


@inlined
def has_target(indices, log_probabilities, row, entries, tail):
    """Return whether a top-k row has an entry; `renormalize` asks for one above -inf.

    A row without one is ignored, unless a label stands beside it.
    """
    for i in range(row * entries, (row + 1) * entries):
        if indices[i] >= 0 and (tail != RENORMALIZE or log_probabilities[i] > -np.inf):
            return True
    return False


@inlined
def soft_entries(task, row, indices, masses):
    """Write the entries of a top-k target and, mixed with it, of a label, before smoothing."""
    begin, end = row * task.entries, (row + 1) * task.entries
    soft = 1.0 if task.labels.size == 0 else 1.0 - task.hard_weight
    highest, largest = find_largest(task.target_indices, task.target_log_probabilities, begin, end)
    # Shares of the sum are the same relative to the largest, which cannot underflow.
    centre = highest if task.tail == RENORMALIZE and highest > -np.inf else 0.0
    others, low, count = 0.0, 0.0, 0
    for i in range(begin, end):
        if task.target_indices[i] >= 0:
            below, below_low = two_sum(task.target_log_probabilities[i], 0.0 - centre)
            power, power_low = exp_pair(below, below_low, 0.0)
            indices[count] = task.target_indices[i]
            masses[count] = power + power_low
            count += 1
            if i != largest:
                others, error = two_sum(others, power)
                low += error + power_low
    named, rest, share = count, 0.0, soft
    if task.tail == BUCKET and leaves_classes(task, row, named):
        rest = soft * remainder(highest, others, low)
    if task.tail == RENORMALIZE:
        whole, error = two_sum(1.0, others)
        share = soft / (whole + (error + low)) if highest > -np.inf else 0.0
    for i in range(count):
        masses[i] *= share
    if task.labels.size > 0:
        count = mix_label(task.hard_weight, task.labels[row], count, indices, masses)
    return count, named, rest


@inlined
def find_largest(indices, log_probabilities, begin, end):
    """Return the largest log-probability of a row's entries and its place; (-inf, -1) for none."""
    highest, largest = -np.inf, -1
    for i in range(begin, end):
        if indices[i] >= 0 and (largest < 0 or log_probabilities[i] > highest):
            highest, largest = log_probabilities[i], i
    return highest, largest


@inlined
def remainder(highest, others, others_low):
    """Return 1 - exp(highest) - others, or 0 if that is negative.

    1 - exp(highest) comes from expm1: a single entry at -1e-13 leaves 1e-13 with all its digits.
    With several the error is that of `others`, at most 1/8 of their float64 ulp.
    """
    named, named_low = expm1_pair(highest, 0.0)
    rest, error = two_sum(0.0 - named, 0.0 - others)
    return max(0.0, rest + (error - (named_low + others_low)))


@inlined
def leaves_classes(task, row, named):
    """Return whether any class takes part that none of the `named` entries is of."""
    if task.mask.size == 0:
        return task.classes > named
    taking_part = 0
    begin = row * task.classes if task.masks_rows else 0
    for j in range(begin, begin + task.classes):
        taking_part += task.mask[j]
        if taking_part > named:
            return True
    return False


@inlined
def mix_label(mass, label, count, indices, masses):
    """Add a label's mass to the entry of its class, or as one more; return how many there are."""
    for i in range(count):
        if indices[i] == label:
            masses[i] += mass
            return count
    indices[count] = label
    masses[count] = mass
    return count + 1
