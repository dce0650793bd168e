"""From a checked batch and its options to the task that kernels take."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent import TILE
from softxent.batch import Batch, computed_dtype, dtype_name, empties, tile_sizes
from softxent.compiled.task import BUCKET, NO_TAIL, RENORMALIZE, ShardTask, Task
from softxent.evaluations import INTEGERS, OUTPUTS, PER_LOGIT
from softxent.options import Options
from softxent.output_buffers import flat_bits
from softxent.results import Arrays

Weights = npt.NDArray[np.float64]

TAILS = {"renormalize": RENORMALIZE, "bucket": BUCKET, "none": NO_TAIL}
_NONE = np.empty(0)
_NO_PATTERNS = np.empty(0, np.uint16)


MAIN = ("loss", "gradient", "log_normalizer", "probabilities")
"""The outputs of the loop that reads logits once; all others are read off them before it."""


def form_of_rows(batch: Batch, options: Options) -> str:
    """Return which form of the main loop a batch takes.

    "transformed" where anything stands between the logits and the softmax, or needs a copy of a
    row.
    """
    transformed = (
        batch.class_mask.size > 0
        or options.softcap is not None
        or options.temperature != 1.0
        or options.tail == "bucket"
    )
    return "transformed" if transformed else "plain"


def make_task(batch: Batch, options: Options, divisor: float, arrays: Arrays) -> Task:
    """Return the task of writing `arrays`; losses and derivatives are divided by `divisor`."""
    logits = batch.logits
    # Without rows, the number of classes costs no bytes and bounds nothing.
    classes = batch.classes if batch.rows else 0
    changed = {
        "logits": flat_bits(logits),
        "labels": batch.labels,
        "classes": logits.shape[1],
        "divisor": divisor,
        # A record is found by what equals its key, and -0.0 equals 0.0.
        "smoothing": options.label_smoothing,
        "z_loss": options.z_loss,
        "scale": options.scale,
        **{f"{name}_out": flat_bits(array) for name, array in arrays.items()},
    }
    if not batch.has_only_labels:
        changed |= _beside_labels(batch, options)
    task: Task = _of_labels(options, logits.dtype, classes)._replace(**changed)
    return task


@functools.lru_cache(maxsize=256)
def _of_labels(options: Options, dtype: np.dtype[Any], classes: int) -> Task:
    """Return a task in which nothing stands beside the labels, and without its arrays.

    A task has some 50 fields. To fill them all anew took half of a small batch's time.
    """
    computed = computed_dtype(dtype)
    empty = empties(computed)
    ignores, ignore_index = ignored(options)
    inverse, inverse_low = _inverse(options.temperature, computed)
    return Task(
        logits=flat_bits(np.empty(0, dtype)),
        bfloat16=dtype_name(dtype) == "bfloat16",
        labels=empty["target_indices"],
        row_weights=empty["row_weights"],
        class_weights=empty["class_weights"],
        other_weights=_NONE,
        tile_weights=tile_sizes(classes, TILE),
        target=empty["target_probabilities"],
        stored_target=_NO_PATTERNS,
        target_indices=empty["target_indices"],
        target_log_probabilities=empty["target_log_probabilities"],
        mask=empty["class_mask"],
        masks_rows=False,
        classes=classes,
        entries=0,
        ignores=ignores,
        ignore_index=ignore_index,
        smoothing=options.label_smoothing,
        spread_mass=_mass(options, classes),
        spares_label=options.smoothing == "others",
        hard_weight=options.hard_weight or 0.0,
        tail=TAILS[options.tail],
        z_loss=options.z_loss,
        softcap=options.softcap or 0.0,
        inverse=inverse,
        inverse_low=inverse_low,
        scale=options.scale,
        divisor=1.0,
        vectors=empty["vectors"],
        **_unwanted(dtype, computed),
    )


def _beside_labels(batch: Batch, options: Options) -> dict[str, Any]:
    """Return the fields of everything that may stand beside labels, or instead of them."""
    spread = _spread(batch, options)
    target, indices = batch.target_probabilities, batch.target_indices
    stores = target.dtype.itemsize == 2
    return {
        "row_weights": batch.row_weights,
        "class_weights": spread.class_weights,
        "other_weights": spread.other_weights,
        "tile_weights": spread.tile_weights,
        "spread_mass": spread.mass,
        "target": np.empty(0, batch.computed) if stores else target.reshape(-1),
        "stored_target": flat_bits(target) if stores else _NO_PATTERNS,
        "target_indices": indices.reshape(-1),
        "target_log_probabilities": batch.log_probabilities.reshape(-1),
        "mask": batch.class_mask.reshape(-1),
        "masks_rows": batch.class_mask.ndim == 2,
        "entries": indices.shape[1] if indices.ndim == 2 else 0,
        "vectors": batch.vectors.reshape(-1),
    }


def _nothing() -> Weights:
    return _NONE


@dataclass(frozen=True, eq=False)
class ShardArrays:
    """What a `Shard` needs, its arrays with N as their first dimension; empty is not given.

    `bounds` are the classes where the row's tiles begin, and C; `first_tile` is the block's first.
    """

    first_class: int
    first_tile: int
    bounds: tuple[int, ...]
    tiles: Weights = field(default_factory=_nothing)
    shortfalls: Weights = field(default_factory=_nothing)
    entry_logits: Weights = field(default_factory=_nothing)
    target_sums: Weights = field(default_factory=_nothing)
    tiles_out: Weights = field(default_factory=_nothing)
    shortfalls_out: Weights = field(default_factory=_nothing)
    target_sums_out: Weights = field(default_factory=_nothing)
    entry_logits_out: Weights = field(default_factory=_nothing)

    def part(self, rows: slice) -> ShardArrays:
        """Return some rows."""
        cut: dict[str, Any] = {
            name: array[rows] for name, array in self.arrays().items() if array.size
        }
        return replace(self, **cut)

    def arrays(self) -> dict[str, Weights]:
        """Return the arrays by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


def make_shard_task(task: Task, batch: Batch, shard: ShardArrays) -> ShardTask:
    """Return the task of evaluating a block of columns."""
    first, last = shard.first_class, shard.first_class + task.classes
    changed = {"mask": task.mask[first:last], "tile_weights": _tile_weights(task, shard.bounds)}
    return ShardTask(
        *task._replace(**changed),
        first_class=first,
        first_tile=shard.first_tile,
        all_classes=batch.classes,
        **{name: value.reshape(-1) for name, value in shard.arrays().items()},
    )


def _tile_weights(task: Task, bounds: tuple[int, ...]) -> Weights:
    """Return what the classes of each tile weigh together, as `Task.tile_weights`."""
    tiles = itertools.pairwise(bounds)
    if task.class_weights.size and task.smoothing > 0:
        return np.array([math.fsum(task.class_weights[a:b]) for a, b in tiles])
    return np.array([b - a for a, b in tiles], np.float64)


@functools.lru_cache(maxsize=8)
def _unwanted(stored: np.dtype[Any], computed: np.dtype[Any]) -> Arrays:
    """Return what stands for each output that is not wanted."""
    dtypes = {name: INTEGERS.get(name, computed) for name in OUTPUTS}
    dtypes |= dict.fromkeys(PER_LOGIT, stored)
    return {f"{name}_out": flat_bits(np.empty(0, dtype)) for name, dtype in dtypes.items()}


def ignored(options: Options) -> tuple[bool, int]:
    """Return whether a label is ignored, and which."""
    index = options.ignore_index
    return (False, 0) if index is None else (True, index)


@functools.lru_cache(maxsize=64)
def _inverse(temperature: float, computed: np.dtype[Any]) -> tuple[float, float]:
    """Return 1 / temperature in the type of computation, and what that leaves."""
    with np.errstate(over="ignore"):
        high = float(computed.type(1 / temperature))
    if not math.isfinite(high):
        return high, 0.0
    return high, float(1 / Fraction(temperature) - Fraction(high))


@dataclass(frozen=True, eq=False)
class _Spread:
    """What smoothing adds to each class: `mass` times the class's weight."""

    mass: float
    class_weights: Weights
    other_weights: Weights
    tile_weights: Weights


def _mass(options: Options, classes: int) -> float:
    """Return what smoothing adds to each class of equal weight, of as many as take part."""
    others = classes - 1 if options.smoothing == "others" else classes
    return options.label_smoothing / others if others > 0 else 0.0


def _spread(batch: Batch, options: Options) -> _Spread:
    """Return class weights, for each class the sum of the others', and the sum of each tile's.

    Only smoothing asks for the last two. The total is kept in two parts, so that a weight that
    dominates leaves the sum of the others its digits.
    """
    weights, classes = batch.class_weights, batch.classes
    if not batch.rows:
        # Without rows, the number of classes costs no bytes and bounds nothing.
        return _Spread(0.0, weights, _NONE, _NONE)
    sizes, eps = tile_sizes(classes, TILE), options.label_smoothing
    taking_part = classes
    if eps > 0 and batch.class_mask.ndim == 1 and batch.class_mask.size:
        mask = batch.class_mask.astype(np.float64)
        taking_part = int(mask.sum())
        weights = weights * mask if weights.size else mask
    mass = _mass(options, taking_part)
    if not weights.size:
        return _Spread(mass, weights, _NONE, sizes)
    if eps == 0:
        return _Spread(mass, weights, weights, sizes)
    high = math.fsum(weights)
    low = math.fsum([-high, *weights])
    rest = high - weights
    part = rest - high
    error = (high - (rest - part)) - (weights + part)
    tiles = [math.fsum(weights[i : i + TILE]) for i in range(0, weights.size, TILE)]
    return _Spread(mass, weights, rest + (error + low), np.array(tiles))
