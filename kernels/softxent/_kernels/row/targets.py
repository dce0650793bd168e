"""The target of a row, in the one form that all targets have.

    t_j = u w_j + (a mass for each of a few entries)

A label is one entry, a top-k target K of them, and smoothing the mass u = eps / C' on all classes
by their weights w. What has no such form (probabilities, or smoothing that differs from row to
row) is written out as w itself, with u = 1 and no entry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import two_sum
from softxent._kernels.math.lane_reductions import fold_sum
from softxent._kernels.row.tiles import TILE, total_weight
from softxent._kernels.row.top_k import mix_label, soft_entries
from softxent._kernels.simd.lanes import LANES, select, spread, to_float64
from softxent._kernels.simd.memory import first_lanes, load_first, store_first
from softxent._kernels.simd.span import part


class Target(NamedTuple):
    """The target of one row; the entries themselves stand in scratch."""

    count: Any
    """Entries, that of the label last where there is one beside others."""
    named: Any
    """Those among them that a bucket's tail leaves out."""
    mass: Any
    """T, the sum of all t_j."""
    entry_mass: Any
    """The sum of the entries' masses."""
    rest: Any
    """What is left for the classes outside a top-k target that is a bucket; 0 without a class."""
    u: Any


@inlined
def is_written_out(task):
    """Whether every t_j is written to scratch."""
    if task.target.size > 0:
        return True
    return task.spread_mass != 0.0 and (task.spares_label or task.masks_rows)


@inlined
def label_weight(class_weights, k):
    """Return the weight of a class."""
    return class_weights[k] if class_weights.size > 0 else 1.0


@inlined
def label_entry(task, label, indices, masses):
    """Write the one entry of a label; return the target, the form that rows in lanes have too."""
    weight = label_weight(task.class_weights, label)
    weighted = task.class_weights.size > 0
    others = task.other_weights[label] if weighted else task.classes - 1.0
    own = weight * (1.0 - task.smoothing)
    mass = own + (task.spread_mass * weight + task.spread_mass * others) if weighted else 1.0
    indices[0] = label
    masses[0] = own
    return Target(1, 0, mass, own, 0.0, task.spread_mass)


@inlined
def weigh_entries(task, count, named, rest, indices, masses):
    """Give entries their weights and smoothing's share; return the target."""
    for i in range(count):
        masses[i] *= (1.0 - task.smoothing) * label_weight(task.class_weights, indices[i])
    entry_mass = sum_but(masses, count, -1)
    spread = 0.0
    if task.spread_mass != 0.0:
        spread = task.spread_mass * sum_but(task.tile_weights, task.tile_weights.size, -1)
    return Target(count, named, entry_mass + rest + spread, entry_mass, rest, task.spread_mass)


@inlined
def sum_but(values, count, left_out):
    """Return the sum of the first `count` values without one of them, to the last bit."""
    total, low = 0.0, 0.0
    for i in range(count):
        if i != left_out:
            total, error = two_sum(total, values[i])
            low += error
    return total + low


@inlined
def write_out(task, row, first_class, count, indices, masses, written):
    """Write every t_j of a row, and the sum of each tile's after the classes; return the target.

    The entries are what is given beside `task.target`, before smoothing and weights. Where the
    classes are a block of columns from `first_class` on, so are what is written and what is summed.
    """
    classes = task.classes
    begin = row * classes
    soft = 1.0 if task.labels.size == 0 else 1.0 - task.hard_weight
    given = task.target.size > 0
    for j in range(0, classes, LANES):
        n = classes - j
        v = spread(0.0)
        if given:
            v = soft * to_float64(load_first(task.target, begin + j, n, 0.0))
        store_first(written, j, n, v)
    for i in range(count):
        if 0 <= indices[i] - first_class < classes:
            written[indices[i] - first_class] += masses[i]
    smoothing, share = task.smoothing, 0.0
    if smoothing > 0.0:
        share = row_spread(task, row)
        if task.spares_label:
            spare_label(task, row, share, written)
            smoothing, share = 0.0, 0.0
    for first in range(0, classes, TILE):
        end = min(first + TILE, classes)
        written[classes + (first_class + first) // TILE] = weigh_tile(
            task, row, first_class, first, end, smoothing, share, written
        )
    return written_target(classes, written)


@inlined
def written_target(classes, written):
    """Return the target that is written out, with the sum of each of its tiles."""
    tiles = part(written, classes, written.size)
    return Target(0, 0, sum_but(tiles, tiles.size, -1), 0.0, 0.0, 1.0)


@inlined
def weigh_tile(task, row, first_class, first, end, smoothing, share, written):
    """Give a tile of a written target mask, smoothing and class weights; return its sum."""
    masked, weighted = task.mask.size > 0, task.class_weights.size > 0
    mask_begin = row * task.classes if task.masks_rows else 0
    acc, low = spread(0.0), spread(0.0)
    for j in range(first, end, LANES):
        n = end - j
        v = load_first(written, j, n, 0.0)
        if smoothing > 0.0:
            v = (1.0 - smoothing) * v + share
        if weighted:
            v = v * load_first(task.class_weights, first_class + j, n, 0.0)
        if masked:
            v = select(load_first(task.mask, mask_begin + j, n, 0) != 0, v, 0.0)
        v = select(first_lanes(n), v, 0.0)
        store_first(written, j, n, v)
        acc, error = two_sum(acc, v)
        low = low + error
    return fold_sum(acc, low)


@inlined
def spare_label(task, row, share, written):
    """Write (1 - eps) b_j + eps (B - b_j) / (C' - 1), where B is the sum of all b_j.

    For the largest b_j the sum of the others is added up, not subtracted.
    """
    top = 0
    begin = row * task.classes if task.masks_rows else 0
    for j in range(task.classes):
        if task.mask.size > 0 and task.mask[begin + j] == 0:
            written[j] = 0.0
        if written[j] > written[top]:
            top = j
    others = sum_but(written, task.classes, top)
    whole = others + written[top]
    largest = written[top]
    for j in range(task.classes):
        written[j] = (1.0 - task.smoothing) * written[j] + share * (whole - written[j])
    written[top] = (1.0 - task.smoothing) * largest + share * others


@inlined
def row_spread(task, row):
    """Return eps over the number of classes that take part in a row, or of those but one."""
    if not task.masks_rows:
        return task.spread_mass
    taking_part = 0
    for j in range(row * task.classes, (row + 1) * task.classes):
        taking_part += task.mask[j]
    if task.spares_label:
        return task.smoothing / (taking_part - 1) if taking_part > 1 else 0.0
    return task.smoothing / taking_part if taking_part > 0 else 0.0


@inlined
def read_target(task, row, first_class, indices, masses, written):
    """Return the target of a row, its entries or all of it written to scratch.

    `first_class` is that of the first column there is.
    """
    if task.entries == 0 and task.target.size == 0 and written.size == 0:
        if task.labels.size == 0:
            return Target(0, 0, 0.0, 0.0, 0.0, 0.0)
        return label_entry(task, task.labels[row], indices, masses)
    count, named, rest = 0, 0, 0.0
    if task.entries > 0:
        count, named, rest = soft_entries(task, row, indices, masses)
    elif task.labels.size > 0:
        share = task.hard_weight if task.target.size > 0 else 1.0
        count = mix_label(share, task.labels[row], 0, indices, masses)
    if written.size > 0:
        return write_out(task, row, first_class, count, indices, masses, written)
    return weigh_entries(task, count, named, rest, indices, masses)


@inlined
def mass_but(classes, first_class, target, masses, entry, w, k):
    """Return T - t_k, summed over the other classes; `entry` is that of class k, or -1.

    Of a target that is written out, what is written begins at `first_class`.
    """
    rest = sum_but(masses, target.count, entry)
    if target.u == 0.0:
        return rest
    if w.written_out:
        tile = k // TILE
        first = tile * TILE - first_class
        end = min((tile + 1) * TILE, classes) - first_class
        own = k - first_class
        rest += sum_but(w.tile_weights, w.tile_weights.size, tile)
        rest += total_weight(w.weights, first, own - first)
        return rest + total_weight(w.weights, own + 1, end - own - 1)
    if w.weights.size > 0:
        return rest + target.u * w.other_weights[k]
    return rest + target.u * (classes - 1.0)
