"""Blocks of columns: their tiles, and then their outputs.

A row's tiles are the same whoever computes them. Once all are known, every block finds the same
softmax, the same loss, and the gradient of its own columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softxent._kernels.build.compilation import inlined
from softxent._kernels.loop.blocks import (
    accumulate_losses,
    as_scratch,
    is_left_out,
    make_room,
    weight_of,
    write_ignored,
)
from softxent._kernels.math.elementary import format_of
from softxent._kernels.row.record import read_task
from softxent._kernels.row.rows import (
    entry_gradient,
    find_maximum,
    is_entry_maximum,
    pass_b,
    row_loss,
    spread_of,
    times_factor,
    write_invalid,
)
from softxent._kernels.row.softmax import (
    MAXIMUM,
    PARTIALS,
    combine,
    fill_shares,
    inv_temperature_of,
    pass_a,
    penalty,
    share_of,
    tempered,
)
from softxent._kernels.row.targets import mass_but, read_target, sum_but, written_target
from softxent._kernels.row.tiles import TILE, total_weight
from softxent._kernels.row.transform import apply_slope, transform_row
from softxent._kernels.simd.lanes import cast_down
from softxent._kernels.simd.span import hold, part

KEPT = 3
"""Values of a tile that blocks exchange: m, c, S."""


def _evaluate_shards(transformed: bool) -> Any:
    first_pass = pass_a[transformed]
    second_pass = pass_b[transformed]
    fill = fill_shares[transformed]

    @inlined
    def write_gradient(task, row_weight, x, s, target, w, own, own_weights, scratch, out):
        first, columns, first_tile = task.first_class, task.classes, task.first_tile
        inv_temperature = inv_temperature_of(task)
        lift = 2.0 ** -format_of(x).headroom
        for i in range(target.count):
            k = scratch.indices[i]
            if first <= k < first + columns:
                share, low = share_of(scratch.partials, first_tile + (k - first) // TILE)
                scratch.powers[i] = (np.float64(out[k - first]) * lift) * (share + low)
        top = -1
        alone = target.u > 0.0 and s.S < 1.0 and holds_maximum(own, s.m)
        if alone and not is_entry_maximum(target.count, s.m, scratch):
            top = find_maximum(columns, s.m, own, out)
        factor = tempered(inv_temperature, row_weight * task.scale / task.divisor)
        extra = 2.0 * task.z_loss * s.lse if task.z_loss > 0.0 else 0.0
        second_pass(
            x, columns, inv_temperature, s, own, factor * (target.mass + extra),
            factor * target.u, own_weights, out, out,
        )  # fmt: skip
        classes = task.all_classes
        for i in range(target.count):
            k = scratch.indices[i]
            if first <= k < first + columns:
                at_entry = entry_gradient(classes, target, i, s, w, scratch)
                if extra != 0.0:
                    at_entry = at_entry + extra * scratch.powers[i]
                out[k - first] = cast_down(factor * at_entry + 0.0, out)
        if top >= 0:
            if w.written_out:
                at_top = written_mass_but(columns, first_tile, w, top)
            else:
                at_top = mass_but(classes, first, target, scratch.masses, -1, w, first + top)
            at_top = at_top - target.mass * (s.S / s.D)
            if extra != 0.0:
                at_top = at_top + extra * (1.0 / s.D)
            out[top] = cast_down(factor * at_top + 0.0, out)
        if transformed and task.softcap > 0.0:
            apply_slope(out, scratch.slope, columns)

    @inlined
    def evaluate_shard(task, row, row_weight, scratch):
        columns, inv_temperature = task.classes, inv_temperature_of(task)
        begin, end = row * columns, (row + 1) * columns
        x = part(task.logits, begin, end)
        gradient_out = part(task.gradient_out, begin, end)
        probabilities_out = part(task.probabilities_out, begin, end)
        if transformed:
            transform_row(task, row, x, scratch.z, scratch.slope)
            x = scratch.z
        target = read_target(
            task, row, task.first_class, scratch.indices, scratch.masses, scratch.written
        )
        w = spread_of(task, scratch)
        first_tile = task.first_tile
        last_tile = first_tile + (columns + TILE - 1) // TILE
        if w.written_out:
            move_sums(w.tile_weights, task.first_class // TILE, first_tile, last_tile)
        read_entry_logits(task, row, target.count, x, scratch)
        own = part(scratch.partials, first_tile * PARTIALS, last_tile * PARTIALS)
        # A target that is written out is that of the block's columns alone.
        first_weight = 0 if w.written_out else task.first_class
        own_weights = part(w.weights, first_weight, first_weight + columns)
        wants_gradient, wants_probabilities = gradient_out.size > 0, probabilities_out.size > 0
        e_out = gradient_out if wants_gradient else probabilities_out
        first_pass(
            x, columns, inv_temperature, own_weights,
            part(w.tile_weights, first_tile, last_tile), target.u, own, e_out,
            wants_gradient or wants_probabilities,
        )  # fmt: skip
        if task.tiles_out.size > 0:
            write_tiles(task, row, own)
            if w.written_out:
                write_sums(task, row, w.tile_weights, first_tile, last_tile)
            for i in range(target.count):
                task.entry_logits_out[row * (task.entries + 1) + i] = scratch.logits[i]
            return
        if differs(task, row, scratch.partials, w, first_tile, last_tile):
            task.differs_out[row] = 1.0
        read_tiles(task, row, scratch.partials, first_tile, last_tile)
        if w.written_out:
            read_sums(task, row, w.tile_weights, first_tile, last_tile)
            target = written_target(columns, scratch.written)
        s = combine(scratch.partials, inv_temperature)
        if not (abs(s.m) < np.inf and s.S >= 0.0):
            write_invalid(task, row)
            return
        if wants_gradient or wants_probabilities:
            fill(scratch.partials, s, inv_temperature, x)
        loss = row_loss(inv_temperature, target, s, w, scratch)
        if task.z_loss > 0.0:
            loss = loss + penalty(task.z_loss, s.lse)
        loss = times_factor(task, loss, row_weight, target, s, scratch)
        task.loss_out[row] = cast_down(loss + 0.0, task.loss_out)
        if task.log_normalizer_out.size > 0:
            task.log_normalizer_out[row] = cast_down(s.lse, task.log_normalizer_out)
        if wants_probabilities:
            second_pass(
                x, columns, inv_temperature, s, own, 1.0, 0.0, own_weights, e_out,
                probabilities_out,
            )  # fmt: skip
        if wants_gradient:
            write_gradient(
                task, row_weight, x, s, target, w, own, own_weights, scratch, gradient_out
            )

    @inlined
    def evaluate(task, first, last):
        room = make_room(task, transformed, False)
        scratch = as_scratch(room)
        for row in range(first, last):
            if not is_left_out(task, row):
                evaluate_shard(task, row, weight_of(task, row), scratch)
            elif task.tiles_out.size == 0:
                write_ignored(task, row)
        hold(room)

    return evaluate


_evaluate_plain = _evaluate_shards(transformed=False)
_evaluate_transformed = _evaluate_shards(transformed=True)


def evaluate_shards(record, _inner, first, last, words_out):
    """Evaluate rows first .. last of a shard task; of its tiles alone if those are wanted."""
    task = read_task(record)
    _evaluate_plain(task, first, last)
    if task.tiles_out.size == 0:
        accumulate_losses(task, first, last, words_out)


def evaluate_transformed_shards(record, _inner, first, last, words_out):
    """Do `evaluate_shards` where a softcap, temperature or mask changes the logits."""
    task = read_task(record)
    _evaluate_transformed(task, first, last)
    if task.tiles_out.size == 0:
        accumulate_losses(task, first, last, words_out)


@inlined
def read_entry_logits(task, row, count, x, scratch):
    """Read the logits of a target's entries, from the block or from what was found elsewhere."""
    begin = row * (task.entries + 1)
    for i in range(count):
        k = scratch.indices[i] - task.first_class
        if 0 <= k < task.classes:
            scratch.logits[i] = x[k]
        else:
            known = task.entry_logits.size > 0
            scratch.logits[i] = task.entry_logits[begin + i] if known else np.nan


@inlined
def holds_maximum(partials, m):
    """Whether one of these tiles has the row's maximum."""
    found = False
    for t in range(partials.size // PARTIALS):
        found = found or partials[t * PARTIALS + MAXIMUM] == m
    return found


@inlined
def write_tiles(task, row, own):
    """Write what the block's tiles came to."""
    count = own.size // PARTIALS
    for t in range(count):
        for i in range(KEPT):
            task.tiles_out[(row * count + t) * KEPT + i] = own[t * PARTIALS + i]
        if task.shortfalls_out.size > 0:
            task.shortfalls_out[row * count + t] = own[t * PARTIALS + KEPT]


@inlined
def differs(task, row, partials, w, first_tile, last_tile):
    """Whether the block's own tiles are other ones than were exchanged, to the bit."""
    count = partials.size // PARTIALS
    found = False
    for t in range(first_tile, last_tile):
        for i in range(KEPT):
            here = partials[t * PARTIALS + i]
            given = task.tiles[(row * count + t) * KEPT + i]
            found = found or not (here == given or (here != here and given != given))
        if w.written_out:
            found = found or w.tile_weights[t] != task.target_sums[row * count + t]
    return found


@inlined
def read_tiles(task, row, partials, first_tile, last_tile):
    """Read the tiles of the other blocks."""
    count = partials.size // PARTIALS
    for t in range(count):
        if not first_tile <= t < last_tile:
            for i in range(KEPT):
                partials[t * PARTIALS + i] = task.tiles[(row * count + t) * KEPT + i]
            if task.shortfalls.size > 0:
                partials[t * PARTIALS + KEPT] = task.shortfalls[row * count + t]


@inlined
def move_sums(sums, found, first_tile, last_tile):
    """Move the sums of a written target's tiles to where the block's tiles stand.

    They are written as if every block began on a tile; `found` is the first one's place.
    """
    for t in range(last_tile - 1, first_tile - 1, -1):
        sums[t] = sums[t - first_tile + found]


@inlined
def written_mass_but(columns, first_tile, w, k):
    """Return T - t_k of a target that is written out, k being a column of the block."""
    tile = k // TILE
    first, end = tile * TILE, min((tile + 1) * TILE, columns)
    rest = sum_but(w.tile_weights, w.tile_weights.size, first_tile + tile)
    rest += total_weight(w.weights, first, k - first)
    return rest + total_weight(w.weights, k + 1, end - k - 1)


@inlined
def write_sums(task, row, sums, first_tile, last_tile):
    """Write what the written target adds up to in the block's tiles."""
    for t in range(first_tile, last_tile):
        task.target_sums_out[row * (last_tile - first_tile) + t - first_tile] = sums[t]


@inlined
def read_sums(task, row, sums, first_tile, last_tile):
    """Read what the target adds up to in the tiles of the other blocks."""
    for t in range(sums.size):
        if not first_tile <= t < last_tile:
            sums[t] = task.target_sums[row * sums.size + t]
