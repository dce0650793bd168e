"""Partial results of rows over a block of columns, and the checks that blocks belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent import TILE
from softxent._plan import MAIN
from softxent.batch import Batch, check_batch
from softxent.blockwise.origin import made_from, refuse_other_origin
from softxent.combinations import check_compatible
from softxent.errors import OptionError, TensorError
from softxent.evaluations import CROSS_ENTROPY
from softxent.options import Options

SHARD = replace(CROSS_ENTROPY, outputs=MAIN)
"""What can be evaluated without the other columns."""


@dataclass(frozen=True, eq=False)
class ClassPartials:
    """Partial results of each row over a block of columns.

    Tiles begin anew in every block.

    Attributes:
        first_class: where the block begins.
        columns: how many it has.
        classes: C.
        tile_starts: the class where each tile begins.
        made_from: what the numbers depend on besides the logits, by name: options, dtypes, and
            digests of the tensors that are the same for every block.
        tiles: float64 [N, tiles, 3], of each tile its maximum m, how many logits equal it, and
            the sum of the others' exp((x - m) / temperature).
        shortfalls: float64 [N, tiles], sum of w (m - x) where the target is spread over all
            classes, else [N, 0].
        target_sums: float64 [N, tiles], sum of a target of probabilities, else [N, 0].
        entry_logits: float64 [N, K + 1], the logits of a target's classes, NaN if elsewhere.
    """

    first_class: int
    columns: int
    classes: int
    tile_starts: tuple[int, ...]
    made_from: Mapping[str, object]
    tiles: npt.NDArray[np.float64]
    shortfalls: npt.NDArray[np.float64]
    target_sums: npt.NDArray[np.float64]
    entry_logits: npt.NDArray[np.float64]


def check_columns(tensors: Mapping[str, Any], options: Options, first: int, classes: int) -> Batch:
    """Return the checked batch of a block of columns, whose first class is `first`.

    Raises:
        As `cross_entropy`; TensorError where the block leaves [0, C); OptionError where an option
            needs the other columns.
    """
    places: dict[str, object] = {"first_class": first, "classes": classes}
    for name, number in places.items():
        if isinstance(number, bool) or not isinstance(number, Integral):
            shown = f"{number!r:.40}"
            raise TensorError(f"{name} must be an integer, not {shown}", field=name)
    batch = check_batch(tensors, SHARD, classes=classes)
    check_compatible(batch.layout(), options)
    end = first + batch.logits.shape[1]
    if not 0 <= first < end <= classes and batch.rows:
        raise TensorError(
            f"the block of columns [{first}, {end}) does not lie in the classes [0, {classes})",
            field="first_class",
        )
    if batch.class_mask.ndim == 2:
        raise TensorError(
            "class_mask must be [C], the same for every row, where columns are in blocks",
            field="class_mask",
        )
    if options.tail == "bucket":
        raise OptionError(
            "tail=bucket needs all columns at once; give tail=renormalize or none", field="tail"
        )
    if options.label_smoothing and options.smoothing == "others":
        raise OptionError(
            "smoothing=others needs all columns at once; give smoothing=all", field="smoothing"
        )
    return batch


def check_partials(
    partials: ClassPartials, batch: Batch, options: Options, first_class: int
) -> None:
    """Refuse partials that do not belong to a batch and its options.

    Raises:
        TensorError: they do not.
    """
    if (partials.first_class, partials.columns) != (0, partials.classes):
        end = partials.first_class + partials.columns
        raise TensorError(
            f"the partials cover the classes [{partials.first_class}, {end}), not all of"
            f" [0, {partials.classes}); combine those of every block",
            field="partials",
        )
    refuse_other_origin(partials.made_from, made_from(batch, options))
    end = first_class + batch.logits.shape[1]
    bounds = (*partials.tile_starts, partials.classes)
    if tuple(b for b in bounds if first_class <= b <= end) != (*range(first_class, end, TILE), end):
        raise TensorError(
            f"the partials were made of other blocks than columns [{first_class}, {end});"
            " evaluate the blocks that they were made of",
            field="partials",
        )
