"""Cross-entropy in blocks of columns, to the bits of whole rows.

    parts = [class_partials(x, labels, first_class=i, classes=C) for i, x in blocks]
    whole = combine_partials(parts)
    results = [class_cross_entropy(x, labels, whole, first_class=i) for i, x in blocks]

Where columns are split on tile boundaries, the bits are those of the whole rows; any other split is
as accurate, and gives the same bits each time. What blocks exchange is three numbers a tile and
row, five with a target of probabilities, and the logits of the classes that labels and top-k
targets name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Unpack

import numpy as np
import numpy.typing as npt

from softxent import TILE
from softxent._execute import (
    Sums,
    by_converted_rows,
    evaluate,
    finish,
    is_parallel,
    run_passes,
    threads_of,
    weigh,
    with_numbers,
)
from softxent._finite import losses_of
from softxent._kernels.loop.loops import shard_loop
from softxent._kernels.row.task import ARRAYS, ShardTask, Task
from softxent._outputs import prepare_outputs
from softxent._plan import SLOTS, arrays_of, plan_of
from softxent.batch import Batch
from softxent.blockwise.origin import made_from, refuse_other_origin
from softxent.blockwise.partials import SHARD, ClassPartials, check_columns, check_partials
from softxent.dtypes import dtype_name
from softxent.errors import TensorError, counted
from softxent.options import OptionKeywords, Options
from softxent.reduction import mean_divisor, refuse_weights_out_of_range
from softxent.results import Arrays, CrossEntropyResult

Array = npt.NDArray[Any]


def class_partials(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    first_class: int,
    classes: int,
    target_probabilities: npt.ArrayLike | None = None,
    target_indices: npt.ArrayLike | None = None,
    target_log_probabilities: npt.ArrayLike | None = None,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    class_mask: npt.ArrayLike | None = None,
    num_threads: int | None = None,
    **options: Unpack[OptionKeywords],
) -> ClassPartials:
    """Return what a block of columns comes to; the first of two steps.

    Args:
        logits: [..., columns], those of the classes from `first_class` on.
        first_class: a multiple of the tile, `softxent.TILE`, as the number of columns is, where
            the bits of whole rows are wanted.
        classes: C of the whole rows.
        target_probabilities: [..., columns], those of the block.
        class_weights, class_mask: [C], of all classes.
        Others, and options: as `cross_entropy` takes them, the same for every block and step. Not
        tail=bucket, nor label_smoothing with smoothing=others.

    Raises:
        As `cross_entropy`.
    """
    checked = Options.from_keywords(options, SHARD)
    tensors = {
        "logits": logits,
        "labels": labels,
        "target_probabilities": target_probabilities,
        "target_indices": target_indices,
        "target_log_probabilities": target_log_probabilities,
        "class_weights": class_weights,
        "row_weights": row_weights,
        "class_mask": class_mask,
    }
    batch = check_columns(tensors, checked, first_class, classes)
    plan, threads = plan_of(batch, checked, SHARD), threads_of(num_threads)
    weigh(plan, batch, checked, threads)
    end = first_class + batch.logits.shape[1]
    starts = tuple(range(first_class, end, TILE))
    tiles = len(starts)
    written = batch.target_probabilities.size > 0
    entries = batch.target_indices.shape[1] if batch.target_indices.ndim == 2 else 0
    found = ClassPartials(
        first_class=first_class,
        columns=batch.logits.shape[1],
        classes=classes,
        tile_starts=starts,
        made_from=made_from(batch, checked),
        tiles=np.zeros((batch.rows, tiles, 3)),
        shortfalls=np.zeros((batch.rows, tiles if checked.label_smoothing or written else 0)),
        target_sums=np.zeros((batch.rows, tiles if written else 0)),
        entry_logits=np.full((batch.rows, entries + 1), np.nan),
    )
    names = ("tiles", "shortfalls", "target_sums", "entry_logits")
    exchange = _Exchange(
        first_class=first_class,
        first_tile=first_class // TILE,
        bounds=(*range(0, first_class - TILE + 1, TILE), *starts, end),
        arrays={f"{name}_out": getattr(found, name) for name in names},
    )
    _run_shard(batch, checked, math.inf, {}, exchange, threads)
    return found


def combine_partials(parts: Sequence[ClassPartials]) -> ClassPartials:
    """Return the partials of adjoining blocks as those of one; any order, any grouping.

    Raises:
        TensorError: the blocks leave a gap, overlap, or were made from different rows, targets or
            options, which the error names.
    """
    ordered = sorted(parts, key=lambda part: part.first_class)
    if not ordered:
        raise TensorError("there are no partials to combine", field="partials")
    first, end = ordered[0], ordered[0].first_class
    for part in ordered:
        refuse_other_origin(first.made_from, part.made_from)
        if part.first_class != end:
            raise TensorError(
                f"partials begin at class {part.first_class}, expected {end}", field="partials"
            )
        end += part.columns
    entry_logits = first.entry_logits
    for part in ordered[1:]:
        entry_logits = np.where(np.isnan(entry_logits), part.entry_logits, entry_logits)
    return ClassPartials(
        first_class=first.first_class,
        columns=end - first.first_class,
        classes=first.classes,
        tile_starts=tuple(start for part in ordered for start in part.tile_starts),
        made_from=first.made_from,
        tiles=np.concatenate([part.tiles for part in ordered], axis=1),
        shortfalls=np.concatenate([part.shortfalls for part in ordered], axis=1),
        target_sums=np.concatenate([part.target_sums for part in ordered], axis=1),
        entry_logits=entry_logits,
    )


def class_cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    partials: ClassPartials,
    *,
    first_class: int,
    target_probabilities: npt.ArrayLike | None = None,
    target_indices: npt.ArrayLike | None = None,
    target_log_probabilities: npt.ArrayLike | None = None,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    class_mask: npt.ArrayLike | None = None,
    out: Mapping[str, Array] | None = None,
    num_threads: int | None = None,
    **options: Unpack[OptionKeywords],
) -> CrossEntropyResult:
    """Return the results of a block of columns, given the partials of all; the second step.

    Gradient and probabilities are those of the block; all else is of the whole rows, and the same
    from every block. Arguments are those of `class_partials`.

    Raises:
        As `cross_entropy`; TensorError where the partials do not belong to these rows. Those of
        other logits show only in the pass that writes: what `out` holds is then undefined.
    """
    tensors = {
        "logits": logits,
        "labels": labels,
        "target_probabilities": target_probabilities,
        "target_indices": target_indices,
        "target_log_probabilities": target_log_probabilities,
        "class_weights": class_weights,
        "row_weights": row_weights,
        "class_mask": class_mask,
    }
    checked = Options.from_keywords(options, SHARD)
    batch = check_columns(tensors, checked, first_class, partials.classes)
    check_partials(partials, batch, checked, first_class)
    if batch.logits.shape[1] == partials.classes:
        # Few classes stand in lanes where they are all there.
        whole = evaluate(tensors, checked, SHARD, out=out, num_threads=num_threads)
        return CrossEntropyResult.of(whole)
    plan, threads = plan_of(batch, checked, SHARD), threads_of(num_threads)
    arrays = prepare_outputs(batch, plan.outputs, checked, out)
    count, weight_sum = weigh(plan, batch, checked, threads)
    divisor = mean_divisor(checked, weight_sum, count)
    refuse_weights_out_of_range(batch, checked, divisor, weight_sum)
    sums = run_columns(batch, checked, divisor or math.inf, arrays, partials, first_class, threads)
    losses = losses_of(sums, arrays["loss"])
    whole = finish(batch, checked, SHARD, arrays, losses, divisor, weight_sum, count)
    return CrossEntropyResult.of(whole)


@dataclass(frozen=True, eq=False)
class _Exchange:
    """Arrays that a block of columns reads or writes beside those of a task.

    Attributes:
        first_class, first_tile: see `softxent._kernels.row.task.Shard`.
        bounds: the classes where the row's tiles begin, and C.
        arrays: those of a `Shard`, by name, one row each; what is absent is empty.
    """

    first_class: int
    first_tile: int
    bounds: tuple[int, ...]
    arrays: Mapping[str, npt.NDArray[np.float64]]

    def of_rows(self, rows: slice) -> list[npt.NDArray[np.float64]]:
        """Return the arrays of some rows, flat, in the order of the fields."""
        return [
            self.arrays[name][rows].reshape(-1) if name in self.arrays else _NONE
            for name in _EXCHANGED
        ]

    def tile_weights(self, class_weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what the classes of each tile weigh together; each weighs 1 without weights."""
        tiles = itertools.pairwise(self.bounds)
        if class_weights.size:
            return np.array([math.fsum(class_weights[a:b]) for a, b in tiles])
        return np.array([b - a for a, b in tiles], np.float64)


_NONE = np.empty(0)
_EXCHANGED = ARRAYS[ShardTask][len(ARRAYS[Task]) :]


def run_columns(
    batch: Batch,
    options: Options,
    divisor: float,
    arrays: Arrays,
    partials: ClassPartials,
    first_class: int,
    threads: int,
) -> Sums:
    """Write the outputs of a block of columns; return the accumulator of the rows' losses."""
    names = ("tiles", "shortfalls", "target_sums", "entry_logits")
    differs = np.zeros(batch.rows)
    exchange = _Exchange(
        first_class=first_class,
        first_tile=partials.tile_starts.index(first_class),
        bounds=(*partials.tile_starts, partials.classes),
        arrays={name: getattr(partials, name) for name in names} | {"differs_out": differs},
    )
    sums = _run_shard(batch, options, divisor, arrays, exchange, threads)
    if differs.any():
        _refuse_other_block(differs)
    return sums


def _refuse_other_block(differs: npt.NDArray[np.float64]) -> NoReturn:
    rows = differs.nonzero()[0]
    raise TensorError(
        "the partials were made from other logits, or another target_probabilities, in"
        f" {counted(rows.size, 'row')}, first in row {rows[0]}; make them anew, of every block",
        field="partials",
    )


def _run_shard(
    batch: Batch,
    options: Options,
    divisor: float,
    outputs: Arrays,
    exchange: _Exchange,
    threads: int,
) -> Sums:
    """Write the outputs of a block of columns, or its partials where there is room for them."""
    first, dtype = exchange.first_class, dtype_name(batch.computed)

    def run_rows(part: Batch, rows: slice, pieces: Arrays) -> Sums:
        # The part is in the type of computation.
        plan = plan_of(part, options, SHARD)
        template, given = arrays_of(plan, part, options, pieces)
        words = with_numbers(
            template, divisor=divisor, first_class=first, first_tile=exchange.first_tile
        )
        arrays = list(given)
        mask, weights = SLOTS["mask"], SLOTS["class_weights"]
        arrays[mask] = arrays[mask][first : first + part.logits.shape[1]]
        spread = arrays[weights] if options.label_smoothing > 0 else _NONE
        arrays[SLOTS["tile_weights"]] = exchange.tile_weights(spread)
        parallel = is_parallel(part, threads)
        loop = shard_loop(dtype, plan.form, parallel=parallel)
        passes = [(loop, words, (*arrays, *exchange.of_rows(rows)))]
        return run_passes(passes, part, threads, parallel=parallel)

    return by_converted_rows(batch, outputs, run_rows)
