"""Everything that a loop over rows reads and writes, under one name each.

An empty array stands for what is not given or not wanted. Arrays are C-contiguous; inputs may be
read-only and unaligned, which costs nothing.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

from numba import types

from softxent.compiled.span import Span

RENORMALIZE, BUCKET, NO_TAIL = 0, 1, 2
"""What becomes of the probability that a top-k target does not name."""


class Task(NamedTuple):
    """One batch for the kernels; N rows of C classes, of which C' take part, and K entries.

    `logits`, `gradient_out` and the other outputs of one value a logit are flat [N * C], of the
    batch's element type: float64, float32, or uint16 for the floats of 16 bits.
    """

    logits: Any
    bfloat16: Any
    """Whether 16-bit elements are bfloat16 and not float16."""
    labels: Any
    """int64 [N]."""
    row_weights: Any
    """float64 [N]."""
    class_weights: Any
    """float64 [C]: class weight, 0 where a class takes part in no row."""
    other_weights: Any
    """float64 [C]: the sum of all class weights but this one."""
    tile_weights: Any
    """float64 [tiles]: the sum of class weights over each tile."""
    target: Any
    """Target probabilities [N * C] in the type of computation."""
    stored_target: Any
    """The same as uint16 where they have 16 bits, as the logits do."""
    target_indices: Any
    """int64 [N * K]; -1 is no entry."""
    target_log_probabilities: Any
    """float64 [N * K]."""
    mask: Any
    """uint8 [C], or [N * C] with `masks_rows`: 0 where a class takes no part."""
    masks_rows: Any
    classes: Any
    entries: Any
    """K."""
    ignores: Any
    ignore_index: Any
    smoothing: Any
    """eps: the target is (1 - eps) of what is given, and `spread_mass` on the classes."""
    spread_mass: Any
    """eps / C', or eps / (C' - 1) with `spares_label`; with `masks_rows` each row has its own."""
    spares_label: Any
    """Whether smoothing leaves out the label's own class."""
    hard_weight: Any
    """How much of the target the label is, beside a soft target."""
    tail: Any
    z_loss: Any
    softcap: Any
    """s of s tanh(x / s); 0 leaves logits as they are."""
    inverse: Any
    """1 / temperature, rounded to the type of computation, and what that leaves."""
    inverse_low: Any
    scale: Any
    divisor: Any
    vectors: Any
    """[N * C] in the type of computation: what a row's Hessian is multiplied with."""
    loss_out: Any
    gradient_out: Any
    log_normalizer_out: Any
    probabilities_out: Any
    log_probabilities_out: Any
    entropy_out: Any
    target_entropy_out: Any
    prediction_out: Any
    correct_out: Any
    rank_out: Any
    hessian_diagonal_out: Any
    hessian_vector_product_out: Any


def read(dtype: Any, dimensions: int = 1) -> Any:
    """Take any C-contiguous array: mutable or read-only, aligned or not."""
    return types.Array(dtype, dimensions, "C", readonly=True, aligned=False)


def write(dtype: Any, dimensions: int = 1) -> Any:
    """Take a C-contiguous array that is written, aligned or not."""
    return types.Array(dtype, dimensions, "C", aligned=False)


def task_fields(element: Any) -> list[Any]:
    """Return the types of a task's fields; elements of 16 bits are computed in float32."""
    computed = types.float64 if element == types.float64 else types.float32
    weights = read(types.float64)
    fields = Task(
        logits=read(element),
        bfloat16=types.boolean,
        labels=read(types.int64),
        row_weights=weights,
        class_weights=weights,
        other_weights=weights,
        tile_weights=weights,
        target=read(computed),
        stored_target=read(types.uint16),
        target_indices=read(types.int64),
        target_log_probabilities=weights,
        mask=read(types.uint8),
        masks_rows=types.boolean,
        classes=types.int64,
        entries=types.int64,
        ignores=types.boolean,
        ignore_index=types.int64,
        smoothing=types.float64,
        spread_mass=types.float64,
        spares_label=types.boolean,
        hard_weight=types.float64,
        tail=types.int64,
        z_loss=types.float64,
        softcap=types.float64,
        inverse=types.float64,
        inverse_low=types.float64,
        scale=types.float64,
        divisor=types.float64,
        vectors=read(computed),
        loss_out=write(computed),
        gradient_out=write(element),
        log_normalizer_out=write(computed),
        probabilities_out=write(element),
        log_probabilities_out=write(element),
        entropy_out=write(computed),
        target_entropy_out=write(computed),
        prediction_out=write(types.int64),
        correct_out=write(types.uint8),
        rank_out=write(types.int64),
        hessian_diagonal_out=write(element),
        hessian_vector_product_out=write(element),
    )
    return list(fields)


class Shard(NamedTuple):
    """What a task needs besides where its logits are a block of columns of [N, C], T tiles.

    `classes` is then the number of columns; class weights are of all classes. The arrays are
    float64, and empty where they are not given or not wanted.
    """

    first_class: Any
    first_tile: Any
    """Where the block's first tile stands among the row's T, which begin anew in every block."""
    all_classes: Any
    """C."""
    tiles: Any
    """[N * T * 3]: (m, c, S) of every tile of a row."""
    shortfalls: Any
    """[N * T], where the target is spread over all classes."""
    entry_logits: Any
    """[N * (K + 1)]: the logits of the target's entries, wherever they stand."""
    target_sums: Any
    """[N * T]: the sum of each tile of a target that is written out."""
    tiles_out: Any
    """[N * tiles * 3]: those of the block; if it is wanted nothing else is written but these."""
    shortfalls_out: Any
    target_sums_out: Any
    entry_logits_out: Any
    """NaN for entries outside the block."""


def _record(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


ShardTask = _record("ShardTask", Task._fields + Shard._fields)


def shard_task_fields(element: Any) -> list[Any]:
    """Return the types of a shard task's fields."""
    given, written = read(types.float64), write(types.float64)
    shard = Shard(types.int64, types.int64, types.int64, *(given,) * 4, *(written,) * 4)
    return [*task_fields(element), *shard]


def span_types(fields: Any) -> Any:
    """Return the type of a task of these fields inside compiled code, where arrays are spans."""
    spans = [Span(t.dtype) if isinstance(t, types.Array) else t for t in fields]
    return types.NamedTuple(spans, Task if len(spans) == len(Task._fields) else ShardTask)
