"""A row's bits depend on the row and the options, and on nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ALL, Array

from softxent import CrossEntropyResult, cross_entropy
from softxent.serving import PARALLEL_ELEMENTS

CLASSES = [1, 2, 10, 16, 17, 32, 33, 64, 100, 4096, 4097, 9000]

each_layout = pytest.mark.parametrize("classes", CLASSES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1])


def batch(rows: int, classes: int, dtype: Any) -> tuple[Array, Array, Array]:
    """Return logits of mixed scale, labels and row weights; some rows are ignored."""
    rng = np.random.default_rng([rows, classes])
    logits = rng.standard_normal((rows, classes)) * rng.choice([0.1, 3, 30], (rows, 1))
    labels = rng.integers(0, classes, rows)
    labels[::11] = -100
    return logits.astype(dtype), labels, rng.choice([0, 0.3, 1, 7.7], rows)


def evaluate(logits: Array, labels: Array, weights: Array, **options: Any) -> CrossEntropyResult:
    return cross_entropy(logits, labels, row_weights=weights, **{"outputs": ALL} | options)


def bits(result: CrossEntropyResult, rows: Any = slice(None)) -> tuple[bytes, ...]:
    return tuple(np.asarray(getattr(result, name))[rows].tobytes() for name in ALL)


def parallel_rows(classes: int) -> int:
    """Enough rows for the parallel loop, and not a multiple of sixteen."""
    return PARALLEL_ELEMENTS // classes + 37


@each_layout
@each_dtype
@each_smoothing
def test_row_alone_and_in_any_batch(dtype: Any, classes: int, smoothing: float) -> None:
    rows = 37 if classes <= 100 else 5
    tensors = batch(rows, classes, dtype)
    whole = evaluate(*tensors, label_smoothing=smoothing)
    for i in range(rows):
        alone = evaluate(*(t[i : i + 1] for t in tensors), label_smoothing=smoothing)
        assert bits(alone) == bits(whole, slice(i, i + 1))


@each_layout
@each_dtype
def test_order_of_rows(dtype: Any, classes: int) -> None:
    rows = parallel_rows(classes)
    tensors = batch(rows, classes, dtype)
    order = np.random.default_rng(1).permutation(rows)
    plain = evaluate(*tensors)
    shuffled = evaluate(*(t[order] for t in tensors))
    assert bits(shuffled) == bits(plain, order)
    assert (shuffled.loss_sum, shuffled.weight_sum) == (plain.loss_sum, plain.weight_sum)


@each_layout
@each_dtype
@each_smoothing
def test_number_of_threads(dtype: Any, classes: int, smoothing: float) -> None:
    tensors = batch(parallel_rows(classes), classes, dtype)
    results = [
        evaluate(*tensors, label_smoothing=smoothing, num_threads=threads)
        for threads in (1, 2, 1000, None)
    ]
    assert len({bits(r) for r in results}) == 1
    assert len({(r.loss_sum, r.weight_sum, r.count) for r in results}) == 1


@each_layout
@each_dtype
@pytest.mark.parametrize("chunk", [1, 7, 16, 1000])
def test_chunks_of_rows(dtype: Any, classes: int, chunk: int) -> None:
    rows = min(parallel_rows(classes), 80 * chunk)
    tensors = batch(rows, classes, dtype)
    whole = evaluate(*tensors)
    starts = range(0, rows, chunk)
    parts = [evaluate(*(t[i : i + chunk] for t in tensors)) for i in starts]
    for i, part in zip(starts, parts, strict=True):
        assert bits(part) == bits(whole, slice(i, i + chunk))
    losses = np.concatenate([np.asarray(p.loss) for p in parts])
    assert math.fsum(losses) == whole.loss_sum
    assert sum(p.count for p in parts) == whole.count


@each_layout
@each_dtype
def test_outputs_do_not_influence_each_other(dtype: Any, classes: int) -> None:
    tensors = batch(37, classes, dtype)
    whole = evaluate(*tensors)
    for asked in (*ALL, ("loss", "gradient"), ("gradient", "probabilities")):
        part = evaluate(*tensors, outputs=asked)
        for name in ALL:
            got = getattr(part, name)
            assert (got is not None) == (name == asked or name in asked)
            assert got is None or got.tobytes() == getattr(whole, name).tobytes()
        assert (part.loss_sum, part.weight_sum) == (whole.loss_sum, whole.weight_sum)


@each_layout
@each_dtype
def test_place_in_memory(dtype: Any, classes: int) -> None:
    """Alignment of the first element: each of the 64 bytes of a cache line."""
    logits, labels, weights = batch(5, classes, dtype)
    wanted = bits(evaluate(logits, labels, weights))
    memory = np.empty(logits.nbytes + 64, np.uint8)
    for offset in (0, 1, 2, 3, 4, 8, 12, 16, 31, 32, 48, 63):
        moved = memory[offset : offset + logits.nbytes].view(dtype).reshape(logits.shape)
        moved[...] = logits
        assert bits(evaluate(moved, labels, weights)) == wanted
        assert bits(evaluate(moved, labels, weights, out={"gradient": moved})) == wanted


@each_layout
@each_dtype
def test_sums_are_exact(dtype: Any, classes: int) -> None:
    logits, labels, weights = batch(parallel_rows(classes), classes, dtype)
    per_class = np.random.default_rng(2).random(classes) * 1e-8
    per_class[0] = 1e12
    result = evaluate(logits, labels, weights, class_weights=per_class)
    taken = labels >= 0
    assert result.loss_sum == math.fsum(np.asarray(result.loss))
    assert result.weight_sum == math.fsum(weights[taken] * per_class[labels[taken]])
    assert result.count == int((taken & (weights > 0)).sum())


@given(
    rows=st.lists(
        st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1, max_size=40
    ),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_subset_of_any_rows(rows: list[list[float]], data: st.DataObject) -> None:
    logits = np.array(rows, np.float32)
    labels = np.arange(len(rows)) % 3
    subset = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=50))
    weights = np.ones(len(rows))
    whole = evaluate(logits, labels, weights)
    assert bits(evaluate(logits[subset], labels[subset], weights[subset])) == bits(whole, subset)


@pytest.mark.parametrize("classes", [2, 10, 32, 33, 5000])
@each_dtype
@each_smoothing
@pytest.mark.parametrize("weight", [1e-320, 1e-310, 1e-42, 1e39, 1e307])
def test_neighbour_of_extreme_weight(
    dtype: Any, classes: int, smoothing: float, weight: float
) -> None:
    """A row whose factor leaves the format takes a wider path; the rows beside it do not."""
    logits, labels, weights = batch(20, classes, dtype)
    logits[3, 0] = np.nan
    labels[:], weights[:] = 1, 1
    options: dict[str, Any] = {"label_smoothing": smoothing, "non_finite": "propagate"}
    calm = evaluate(logits, labels, weights, **options)
    weights[[5, 19]] = weight
    mixed = evaluate(logits, labels, weights, **options)
    others = [i for i in range(20) if i not in (5, 19)]
    assert bits(mixed, others) == bits(calm, others)
