"""Evaluation plans: all of a call that follows from its options, dtype, classes and tensors.

A plan is made once for (evaluation, options, dtype, C, which tensors are given) and never changed
after: a call copies its list of arrays, puts its own among them, and makes one compiled call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from softxent import TILE
from softxent._kernels.row.task import (
    ARRAYS,
    BUCKET,
    COMPUTED,
    ELEMENT,
    FIELDS,
    LEAN,
    NO_TAIL,
    OFFSETS,
    RENORMALIZE,
    ShardTask,
    Task,
    words_of,
)
from softxent._outputs import OutputSpecification, flat_bits
from softxent.batch import Batch, Layout
from softxent.combinations import check_compatible, stored_dtype
from softxent.dtypes import computed_dtype, dtype_name
from softxent.evaluations import INTEGERS, PER_LOGIT, Evaluation
from softxent.options import Options, check_outputs
from softxent.results import Arrays

MAIN = ("loss", "gradient", "log_normalizer", "probabilities")
"""The outputs of the pass that reads logits once; all others are read off them before it."""

MAX_PLANS = 1024
"""Plans that are kept, about 3 KB each."""

Words = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

_TAILS = {"renormalize": RENORMALIZE, "bucket": BUCKET, "none": NO_TAIL}
SLOTS = {name: i for i, name in enumerate(ARRAYS[Task])}
_LOGITS = SLOTS["logits"]
_LOG_PROBABILITIES = SLOTS["target_log_probabilities"]
_AS_GIVEN = ("labels", "row_weights", "target_indices", "vectors")
"""The tensors that kernels take as they are."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """Plan of the evaluation of all batches of one layout.

    Attributes:
        outputs: what is written: the loss, and what was asked for.
        template: the words of a `ShardTask`, of which a `Task` is the beginning, with every number
            that does not depend on values; read-only.
        arrays: placeholders for the arrays of a `Task`, in order.
        kind, form: which loops rows go to; see `softxent._kernels.loop.loops`.
        lean: placeholders for the arrays of `LEAN`, where a call needs no others; else None.
        fits_one_call: whether one compiled call can write all outputs of a few rows, because
            nothing is left to be checked between weighing and evaluating them.
        converted: the plan of the same in the type of computation, where outputs of each class are
            stored in another type than the logits.
        weighs: whether not every row weighs 1.
        spreads: whether what smoothing adds to a class depends on weights or on a mask.
    """

    outputs: tuple[OutputSpecification, ...]
    template: Words
    arrays: tuple[npt.NDArray[Any], ...]
    kind: str
    form: str
    lean: tuple[npt.NDArray[Any], ...] | None
    fits_one_call: bool
    converted: Plan | None
    weighs: bool
    spreads: bool


_plans: dict[tuple[int, Evaluation, Layout], tuple[Options, Plan]] = {}


def plan_of(batch: Batch, options: Options, evaluation: Evaluation) -> Plan:
    """Return the plan for a batch, made now or for one like it before.

    Raises:
        OptionError, TensorError: options and tensors do not go together.
    """
    layout = batch.layout()
    # Options that are equal may differ: -0.0 equals 0.0. What is kept holds the object, so that its
    # identity stays its own.
    key = (id(options), evaluation, layout)
    kept = _plans.get(key)
    if kept is not None:
        return kept[1]
    plan = make_plan(layout, options, evaluation)
    if len(_plans) >= MAX_PLANS:
        _plans.clear()
    _plans[key] = options, plan
    return plan


def make_plan(layout: Layout, options: Options, evaluation: Evaluation) -> Plan:
    """Return the plan for batches of one layout.

    Raises:
        OptionError, TensorError: options and tensors do not go together.
    """
    check_outputs(options, evaluation)
    check_compatible(layout, options)
    stored, dtype = stored_dtype(layout.dtype, options), layout.dtype
    names = options.outputs if "loss" in options.outputs else ("loss", *options.outputs)
    outputs = tuple(_specify(name, stored, layout.computed) for name in names)
    converts = any(output.per_logit and output.dtype != dtype for output in outputs)
    weighs_classes = "class_weights" in layout.given and not layout.is_soft
    numbers = _numbers(options, layout) | {
        "masks_rows": layout.masks_rows,
        "classes": layout.columns,
        "all_classes": layout.classes,
        "entries": layout.entries,
        "weighs_classes": weighs_classes,
        "weighs": weighs_classes or "row_weights" in layout.given,
        "most_mass": layout.most_mass,
    }
    arrays = _placeholders(dtype, layout.classes)
    is_lean = set(layout.given) <= {"logits", "labels"}
    return Plan(
        outputs=outputs,
        template=_template(numbers),
        arrays=arrays,
        lean=tuple(arrays[SLOTS[name]] for name in LEAN) if is_lean else None,
        kind="half" if dtype.itemsize == 2 else dtype_name(dtype),
        form=_form(layout, options),
        fits_one_call=not converts
        and all(name in MAIN for name in names)
        and not _divides_by_weights(layout, options),
        converted=_converted_plan(layout, options, evaluation) if converts else None,
        weighs=bool(numbers["weighs"]),
        spreads=options.label_smoothing > 0
        and not {"class_weights", "class_mask"}.isdisjoint(layout.given),
    )


def _converted_plan(layout: Layout, options: Options, evaluation: Evaluation) -> Plan:
    """Return the plan of the same in the type of computation."""
    return make_plan(
        layout._replace(dtype=layout.computed), replace(options, output_dtype=None), evaluation
    )


def _divides_by_weights(layout: Layout, options: Options) -> bool:
    """Whether `refuse_weights_out_of_range` has anything to look at."""
    weighted = not {"row_weights", "class_weights"}.isdisjoint(layout.given)
    plain = options.scale == 1.0 and options.denominator is None and not weighted
    return options.reduction == "mean" and not plain


def _template(numbers: Mapping[str, float]) -> Words:
    template = np.zeros(words_of(ShardTask), np.int64)
    set_numbers(template, numbers)
    template.flags.writeable = False
    return template


def _specify(name: str, stored: np.dtype[Any], computed: np.dtype[Any]) -> OutputSpecification:
    per_logit = name in PER_LOGIT
    dtype = stored if per_logit else np.dtype(INTEGERS.get(name, computed))
    field = f"{name}_out"
    lean_slot = LEAN.index(field) if field in LEAN else None
    return OutputSpecification(name, per_logit, dtype, SLOTS[field], lean_slot)


def _form(layout: Layout, options: Options) -> str:
    """Return "transformed" where anything stands between the logits and the softmax."""
    transformed = (
        "class_mask" in layout.given
        or options.softcap is not None
        or options.temperature != 1.0
        or options.tail == "bucket"
    )
    return "transformed" if transformed else "plain"


def _numbers(options: Options, layout: Layout) -> dict[str, float]:
    """Return the numbers of a task that follow from options, dtype and C."""
    ignores, ignore_index = ignored(options)
    inverse, inv_temperature_lo = _inv_temperature(options.temperature, layout.computed)
    return {
        "bfloat16": dtype_name(layout.dtype) == "bfloat16",
        "ignores": ignores,
        "ignore_index": ignore_index,
        "smoothing": options.label_smoothing,
        "spread_mass": _mass(options, layout.classes),
        "spares_label": options.smoothing == "others",
        "hard_weight": options.hard_weight or 0.0,
        "tail": _TAILS[options.tail],
        "z_loss": options.z_loss,
        "softcap": options.softcap or 0.0,
        "inv_temperature_hi": inverse,
        "inv_temperature_lo": inv_temperature_lo,
        "scale": options.scale,
        "over_count": options.reduction == "mean" and options.denominator is None,
        "divisor": options.denominator or 1.0,
    }


def set_numbers(words: Words, numbers: Mapping[str, float]) -> None:
    """Write numbers to the words of a task, by name."""
    for name, value in numbers.items():
        declared = FIELDS[ShardTask][name].dtype
        word = words[OFFSETS[name] : OFFSETS[name] + 1]
        (word.view(np.float64) if declared == "float64" else word)[0] = value


@functools.lru_cache(maxsize=64)
def _tile_sizes(classes: int, tile: int) -> npt.NDArray[np.float64]:
    """Return how many columns each tile of a row has, as float64 [tiles]."""
    firsts = np.arange(0, classes, tile)
    sizes = np.minimum(tile, classes - firsts).astype(np.float64)
    sizes.flags.writeable = False
    return sizes


@functools.lru_cache(maxsize=64)
def _placeholders(dtype: np.dtype[Any], classes: int) -> tuple[npt.NDArray[Any], ...]:
    """Return what stands for each array of a task that is absent; columns of tiles are there."""
    computed = computed_dtype(dtype)
    element = np.dtype(np.uint16) if dtype.itemsize == 2 else computed
    types = {ELEMENT: element, COMPUTED: computed}
    declared = [FIELDS[Task][name].dtype for name in ARRAYS[Task]]
    arrays = [np.empty(0, types.get(name, name)) for name in declared]
    arrays[SLOTS["tile_weights"]] = _tile_sizes(classes, TILE)
    return tuple(arrays)


def lean_arrays_of(
    plan: Plan, batch: Batch, outputs: Arrays
) -> tuple[npt.NDArray[Any], ...] | None:
    """Return the arrays of `LEAN` for all outputs of a plan; None where a call needs others."""
    if plan.lean is None:
        return None
    arrays = list(plan.lean)
    arrays[0], arrays[1] = flat_bits(batch.logits), batch.labels
    for output in plan.outputs:
        if output.lean_slot is None:
            return None
        arrays[output.lean_slot] = flat_bits(outputs[output.name])
    return tuple(arrays)


def arrays_of(
    plan: Plan, batch: Batch, options: Options, outputs: Arrays
) -> tuple[Words, tuple[npt.NDArray[Any], ...]]:
    """Return the words and the arrays of the task of writing outputs by name."""
    template, arrays = plan.template, list(plan.arrays)
    arrays[_LOGITS] = flat_bits(batch.logits)
    for name in batch.given:
        if name in _AS_GIVEN:
            arrays[SLOTS[name]] = getattr(batch, name).reshape(-1)
    if batch.target_log_probabilities.size:
        arrays[_LOG_PROBABILITIES] = batch.log_probabilities.reshape(-1)
    if batch.target_probabilities.size:
        slot = "stored_target" if batch.target_probabilities.dtype.itemsize == 2 else "target"
        arrays[SLOTS[slot]] = flat_bits(batch.target_probabilities)
    if batch.class_mask.size:
        arrays[SLOTS["mask"]] = batch.class_mask.reshape(-1)
    if plan.spreads:
        template = template.copy()
        spread = _spread(batch, options)
        set_numbers(template, {"spread_mass": spread.mass})
        arrays[SLOTS["class_weights"]] = spread.class_weights
        arrays[SLOTS["other_weights"]] = spread.other_weights
        arrays[SLOTS["tile_weights"]] = spread.tile_weights
    elif batch.class_weights.size:
        arrays[SLOTS["class_weights"]] = arrays[SLOTS["other_weights"]] = batch.class_weights
    for output in plan.outputs:
        if output.name in outputs:
            arrays[output.slot] = flat_bits(outputs[output.name])
    return template, tuple(arrays)


def ignored(options: Options) -> tuple[bool, int]:
    """Return whether a label is ignored, and which."""
    index = options.ignore_index
    return (False, 0) if index is None else (True, index)


@functools.lru_cache(maxsize=64)
def _inv_temperature(temperature: float, computed: np.dtype[Any]) -> tuple[float, float]:
    """Return 1 / temperature in the type of computation, and what that leaves."""
    with np.errstate(over="ignore"):
        high = float(computed.type(1 / temperature))
    if not math.isfinite(high):
        return high, 0.0
    return high, float(1 / Fraction(temperature) - Fraction(high))


@dataclass(frozen=True, eq=False)
class _Spread:
    """Mass that smoothing adds to each class: `mass` times the class's weight."""

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

    The total is kept in two parts, so that a weight that dominates leaves the sum of the others
    its digits.
    """
    weights, classes = batch.class_weights, batch.classes
    taking_part = classes
    if batch.class_mask.ndim == 1 and batch.class_mask.size:
        mask = batch.class_mask.astype(np.float64)
        taking_part = int(mask.sum())
        weights = weights * mask if weights.size else mask
    mass = _mass(options, taking_part)
    if not weights.size:
        return _Spread(mass, weights, weights, _tile_sizes(classes, TILE))
    high = math.fsum(weights)
    low = math.fsum([-high, *weights])
    rest = high - weights
    part = rest - high
    error = (high - (rest - part)) - (weights + part)
    tiles = [math.fsum(weights[i : i + TILE]) for i in range(0, weights.size, TILE)]
    return _Spread(mass, weights, rest + (error + low), np.array(tiles))
