"""The gradient is the exact derivative of the loss that is returned, with every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle import Array, naive

from softxent import cross_entropy

OPTIONS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"scale": -2.5},
    {"class_weights": True},
    {"row_weights": True},
    {"class_weights": True, "row_weights": True, "label_smoothing": 0.3, "scale": 128.0},
]
REDUCTIONS: list[dict[str, Any]] = [
    {"reduction": "none"},
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "mean", "denominator": 7.5},
]
STEP = 2.0**-17

each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)


def batch(rows: int, classes: int) -> tuple[Array, Array]:
    rng = np.random.default_rng([rows, classes])
    labels = rng.integers(0, classes, rows)
    labels[1] = -100
    return rng.standard_normal((rows, classes)) * 2, labels


def with_weights(options: dict[str, Any], rows: int, classes: int) -> dict[str, Any]:
    weights = {
        "class_weights": np.linspace(2, 0, classes),
        "row_weights": np.linspace(1, 0, rows),
    }
    return {name: weights.get(name, value) for name, value in options.items()}


@pytest.mark.parametrize("classes", [2, 5, 33])
@each_option
@each_reduction
def test_central_differences(
    classes: int, options: dict[str, Any], reduction: dict[str, Any]
) -> None:
    rows = 5
    logits, labels = batch(rows, classes)
    options = with_weights(options, rows, classes)
    gradient = cross_entropy(logits, labels, **options, **reduction).gradient
    assert gradient is not None

    def loss(x: Array) -> float:
        result = cross_entropy(x, labels, outputs="loss", **options, **reduction)
        return float(np.asarray(result.loss).sum())

    for i, j in np.ndindex(rows, classes):
        step = np.zeros_like(logits)
        step[i, j] = STEP
        slope = (loss(logits + step) - loss(logits - step)) / (2 * STEP)
        close = 2e-7 * abs(options.get("scale", 1))
        assert gradient[i, j] == pytest.approx(slope, rel=2e-7, abs=close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 31, 33, 1000, 5000])
@each_option
@each_reduction
def test_agrees_with_the_naive_formula(
    dtype: Any, classes: int, options: dict[str, Any], reduction: dict[str, Any]
) -> None:
    rows = 20
    logits, labels = batch(rows, classes)
    logits = logits.astype(dtype)
    options = {**with_weights(options, rows, classes), **reduction}
    wanted = naive(logits, labels, **options)
    result = cross_entropy(
        logits, labels, outputs=("loss", "gradient", "log_normalizer", "probabilities"), **options
    )
    eps = 40 * np.finfo(dtype).eps
    for name, value in wanted.items():
        size = eps * (np.abs(value).max() + 1e-30)
        np.testing.assert_allclose(getattr(result, name), value, rtol=eps, atol=size, err_msg=name)
    assert result.count == wanted["count"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 32, 33, 4096, 9000])
@each_option
def test_gradient_of_a_row_sums_to_zero(dtype: Any, classes: int, options: dict[str, Any]) -> None:
    """Adding a constant to every logit changes no loss. Rounding errors are those of its terms."""
    logits, labels = batch(20, classes)
    options = with_weights(options, 20, classes)
    gradient = cross_entropy(logits.astype(dtype), labels, **options).gradient
    assert gradient is not None
    exact = gradient.astype(np.longdouble)
    terms = np.abs(exact).sum(axis=1)
    if "label_smoothing" in options:
        terms += 2 * np.max(options.get("class_weights", 1)) * abs(options.get("scale", 1))
    assert (np.abs(exact.sum(axis=1)) <= 4 * np.finfo(dtype).eps * terms).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [10, 40])
def test_mean_and_sum_follow_from_the_rows(dtype: Any, classes: int) -> None:
    logits, labels = batch(30, classes)
    logits = logits.astype(dtype)
    weights = np.linspace(0.1, 4, 30)
    rows = cross_entropy(logits, labels, row_weights=weights)
    total = cross_entropy(logits, labels, row_weights=weights, reduction="sum")
    mean = cross_entropy(logits, labels, row_weights=weights, reduction="mean")
    assert rows.loss_sum == total.loss_sum == mean.loss_sum == total.loss
    assert mean.loss == mean.loss_sum / mean.weight_sum
    assert rows.gradient is not None
    assert total.gradient is not None
    assert mean.gradient is not None
    assert rows.gradient.tobytes() == total.gradient.tobytes()
    wanted = rows.gradient.astype(np.float64) / mean.weight_sum
    np.testing.assert_allclose(mean.gradient, wanted, rtol=4 * np.finfo(dtype).eps)
