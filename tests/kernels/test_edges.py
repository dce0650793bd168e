"""The edges of the numerics contract: ignored rows, NaN, infinities, empty batches, one class.

Each runs in both layouts (up to 32 classes rows stand in vector lanes) and over several tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from oracle import ALL, Array, naive

from softxent import CrossEntropyResult, EmptyReductionError, NonFiniteError, cross_entropy

FLOATS = [np.float32, np.float64]
CLASSES = [3, 10, 32, 33, 100, 5000]

pytestmark = pytest.mark.parametrize("dtype", FLOATS)
each_layout = pytest.mark.parametrize("classes", CLASSES)
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1])


def batch(rows: int, classes: int, dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng([rows, classes])
    logits = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    return logits, rng.integers(0, classes, rows)


def evaluate(logits: Array, labels: Any, **options: Any) -> CrossEntropyResult:
    return cross_entropy(logits, labels, **{"outputs": ALL, "non_finite": "propagate"} | options)


def value(result: CrossEntropyResult, name: str) -> Array:
    return np.asarray(getattr(result, name))


def assert_row(result: CrossEntropyResult, row: int, wanted: float) -> None:
    """Every output of the row is `wanted` throughout."""
    for name in ALL:
        np.testing.assert_array_equal(value(result, name)[row], wanted, err_msg=name)


def assert_rows_equal(a: CrossEntropyResult, b: CrossEntropyResult, rows: Any) -> None:
    for name in ALL:
        assert value(a, name)[rows].tobytes() == value(b, name)[rows].tobytes(), name


@each_layout
@each_smoothing
def test_ignored_rows_are_zeros_and_are_not_read(
    dtype: Any, classes: int, smoothing: float
) -> None:
    logits, labels = batch(40, classes, dtype)
    weights = np.ones(40)
    labels[[0, 7, 39]] = -100
    weights[[3, 20]] = 0
    ignored = [0, 3, 7, 20, 39]
    clean = evaluate(logits, labels, row_weights=weights, label_smoothing=smoothing)
    logits[ignored] = np.nan
    options = {"row_weights": weights, "label_smoothing": smoothing}
    result = evaluate(logits, labels, non_finite="error", **options)
    for row in ignored:
        assert_row(result, row, 0.0)
    assert_rows_equal(result, clean, slice(None))
    assert (result.count, result.weight_sum, result.loss_sum) == (35, 35.0, clean.loss_sum)


@each_layout
def test_label_of_a_row_of_weight_0_is_not_read(dtype: Any, classes: int) -> None:
    logits, labels = batch(4, classes, dtype)
    labels[1:3] = -100, 10**9
    result = evaluate(logits, labels, row_weights=[1, 0, 0, 2])
    assert_row(result, 2, 0.0)
    assert (result.count, result.weight_sum) == (2, 3.0)


@each_layout
def test_ignore_index_inside_the_classes_and_none(dtype: Any, classes: int) -> None:
    logits, labels = batch(20, classes, dtype)
    labels[5:9] = 1
    ignored = labels == 1
    result = evaluate(logits, labels, ignore_index=1)
    assert_row(result, 5, 0.0)
    assert result.count == 20 - int(ignored.sum())
    assert_rows_equal(result, evaluate(logits, labels, ignore_index=None), ~ignored)


@each_layout
@each_smoothing
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_plus_infinity_change_their_own_row_only(
    dtype: Any, classes: int, smoothing: float, poison: float
) -> None:
    logits, labels = batch(35, classes, dtype)
    clean = evaluate(logits, labels, label_smoothing=smoothing)
    bad = {2: 0, 17: classes - 1, 18: int(labels[18]), 34: classes // 2}
    for row, column in bad.items():
        logits[row, column] = poison
    result = evaluate(logits, labels, label_smoothing=smoothing)
    for row in bad:
        assert_row(result, row, np.nan)
    assert_rows_equal(result, clean, [i for i in range(35) if i not in bad])
    assert math.isnan(result.loss_sum)
    with pytest.raises(NonFiniteError) as caught:
        evaluate(logits, labels, label_smoothing=smoothing, non_finite="error")
    assert (caught.value.rows, caught.value.total) == ((2, 17, 18, 34), 4)


@each_layout
def test_row_of_minus_infinities_is_nan(dtype: Any, classes: int) -> None:
    logits, labels = batch(5, classes, dtype)
    logits[3] = -np.inf
    assert_row(evaluate(logits, labels), 3, np.nan)


@each_layout
def test_nan_beside_infinities_is_nan(dtype: Any, classes: int) -> None:
    logits, labels = batch(3, classes, dtype)
    logits[0] = -np.inf
    logits[0, 1] = np.nan
    logits[1, 0], logits[1, 1] = np.inf, -np.inf
    logits[2], logits[2, 2] = np.nan, -np.inf
    result = evaluate(logits, labels)
    for row in range(3):
        assert_row(result, row, np.nan)


@each_layout
def test_minus_infinity_contributes_nothing(dtype: Any, classes: int) -> None:
    """A class at -inf has probability 0; the others are as if it were far away."""
    logits, labels = batch(30, classes, dtype)
    labels[:] = 2
    logits[:, 1] = -np.inf
    result = evaluate(logits, labels, non_finite="error")
    far = logits.copy()
    far[:, 1] = -1e4
    assert_rows_equal(result, evaluate(far, labels), slice(None))
    assert not value(result, "gradient")[:, 1].any()


@each_layout
def test_label_at_minus_infinity(dtype: Any, classes: int) -> None:
    """Loss +inf, gradient -t at the label, p elsewhere."""
    logits, labels = batch(30, classes, dtype)
    logits[4, labels[4]] = -np.inf
    weights = np.linspace(1, 3, classes)
    result = evaluate(logits, labels, class_weights=weights, scale=0.5)
    target = dtype(weights[labels[4]] * 0.5)
    assert value(result, "loss")[4] == np.inf
    assert value(result, "gradient")[4, labels[4]] == -target
    assert value(result, "probabilities")[4, labels[4]] == 0
    assert math.isfinite(value(result, "log_normalizer")[4])
    rest = np.delete(value(result, "gradient")[4], labels[4])
    share = np.delete(value(result, "probabilities")[4], labels[4])
    np.testing.assert_allclose(rest, share * target, rtol=8 * np.finfo(dtype).eps)
    with pytest.raises(NonFiniteError) as caught:
        evaluate(logits, labels, class_weights=weights, non_finite="error")
    assert (caught.value.rows, caught.value.values) == ((4,), ("Infinity",))


@each_layout
def test_smoothed_target_over_minus_infinity(dtype: Any, classes: int) -> None:
    """Where t_j > 0 the loss is +inf and the gradient -t_j; a class weight of 0 takes t_j away."""
    logits, labels = batch(3, classes, dtype)
    labels[:] = 0
    logits[:, 2] = -np.inf
    result = evaluate(logits, labels, label_smoothing=0.2)
    assert set(value(result, "loss").tolist()) == {np.inf}
    np.testing.assert_allclose(
        value(result, "gradient")[:, 2], -0.2 / classes, rtol=4 * np.finfo(dtype).eps
    )
    assert np.isfinite(value(result, "gradient")).all()
    weights = np.ones(classes)
    weights[2] = 0
    hidden = evaluate(
        logits, labels, label_smoothing=0.2, class_weights=weights, non_finite="error"
    )
    wanted = naive(logits, labels, label_smoothing=0.2, class_weights=weights)
    np.testing.assert_allclose(value(hidden, "loss"), wanted["loss"], rtol=1e-5)
    assert not value(hidden, "gradient")[:, 2].any()


@each_layout
def test_label_of_class_weight_0_at_minus_infinity_costs_nothing(dtype: Any, classes: int) -> None:
    logits, labels = batch(3, classes, dtype)
    labels[:] = 1
    logits[:, 1] = -np.inf
    weights = np.ones(classes)
    weights[1] = 0
    result = evaluate(logits, labels, class_weights=weights, non_finite="error")
    assert not value(result, "loss").any()
    assert not value(result, "gradient").any()
    assert (result.count, result.weight_sum) == (3, 0.0)


@each_layout
def test_whole_tiles_of_minus_infinity(dtype: Any, classes: int) -> None:
    logits, labels = batch(4, classes, dtype)
    labels[:] = classes - 1
    logits[:, : classes - 1] = -np.inf
    result = evaluate(logits, labels, non_finite="error")
    assert not value(result, "loss").any()
    assert not np.signbit(value(result, "loss")).any()
    assert not value(result, "gradient").any()
    np.testing.assert_array_equal(value(result, "log_normalizer"), logits[:, -1])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (0, 40), (0, 5000), (2, 0, 7), (0, 4, 0)])
def test_no_rows(dtype: Any, shape: tuple[int, ...], reduction: str) -> None:
    if shape == (0, 4, 0):
        shape = (0, 0, 0)
    labels = np.zeros(shape[:-1], np.int64)
    result = evaluate(np.zeros(shape, dtype), labels, reduction=reduction)
    assert value(result, "gradient").shape == value(result, "probabilities").shape == shape
    assert value(result, "log_normalizer").shape == shape[:-1]
    assert (result.loss_sum, result.weight_sum, result.count) == (0.0, 0.0, 0)
    if reduction == "none":
        assert value(result, "loss").shape == shape[:-1]
    elif reduction == "sum":
        assert result.loss == 0.0
    else:
        assert math.isnan(value(result, "loss"))


@each_layout
def test_mean_over_nothing(dtype: Any, classes: int) -> None:
    """The divisor is 0 where every row is ignored or has no weight; the gradient is 0."""
    logits, labels = batch(3, classes, dtype)
    weightless: list[dict[str, Any]] = [
        {"class_weights": np.zeros(classes)},
        {"row_weights": np.zeros(3)},
    ]
    ignored = np.full(3, -100)
    for given, options in [(ignored, {}), *((labels, w) for w in weightless)]:
        options = {"reduction": "mean", **options}
        assert math.isnan(value(evaluate(logits, given, **options), "loss"))
        zero = evaluate(logits, given, empty="zero", **options)
        assert zero.loss == 0.0
        assert not value(zero, "gradient").any()
        with pytest.raises(EmptyReductionError):
            evaluate(logits, given, empty="error", **options)
    assert evaluate(logits, ignored, reduction="mean", denominator=2.0).loss == 0.0


@pytest.mark.parametrize("logit", [0.0, -0.0, 1.5, -1e30, 1e30])
@each_smoothing
def test_one_class(dtype: Any, logit: float, smoothing: float) -> None:
    result = evaluate(
        np.full((20, 1), logit, dtype), [0] * 20, label_smoothing=smoothing, scale=-2.0
    )
    assert value(result, "loss").tobytes() == np.zeros(20, dtype).tobytes()
    assert not value(result, "gradient").any()
    np.testing.assert_array_equal(value(result, "log_normalizer"), dtype(logit))
    np.testing.assert_allclose(value(result, "probabilities"), 1, rtol=4 * np.finfo(dtype).eps)


@each_layout
@each_smoothing
def test_a_loss_is_never_minus_zero(dtype: Any, classes: int, smoothing: float) -> None:
    logits, labels = batch(6, classes, dtype)
    logits[:2], logits[np.arange(6), labels] = -1e5, 1e5
    for scale in (1.0, -1.0, 0.0, -0.0):
        loss = value(evaluate(logits, labels, scale=scale, label_smoothing=smoothing), "loss")
        assert not np.signbit(loss[loss == 0]).any()
