"""Every output within 4 ulp of the exact value, over inputs chosen to break lesser formulas.

Factors (row weight, class weight, scale, divisor) may cost 1 ulp more. Exact arithmetic takes
40 microseconds a logit, so rows of several tiles are few.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from oracle import ALL, Array, worst_errors

from softxent import cross_entropy

FLOATS = [np.float32, np.float64]
SMOOTHINGS = [0.0, 0.1, 1.0]
CLASSES = [1, 2, 3, 10, 31, 32, 33, 64, 65, 100, 1000]
CASES = [(c, s) for c in CLASSES for s in SMOOTHINGS] + [(4096, 0.0), (4097, 0.1), (9000, 0.1)]


def families(classes: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield rows of logits: each is a way to lose digits."""
    index = np.arange(classes)
    for gap in (4.0, 17.0, 40.0):
        yield np.where(index == classes // 2, gap, 0.0)
    yield np.full(classes, 0.1)
    yield rng.standard_normal(classes) * 4 + 1e8
    yield np.where(index == classes - 1, 92.0, rng.integers(-3, 4, classes) / 8)
    yield np.linspace(-60, 60, classes)
    yield rng.standard_normal(classes)
    if classes <= 1000:
        yield np.linspace(30, -30, classes) + 1e4
        yield rng.standard_normal(classes) * 0.03
        yield rng.standard_normal(classes) * 30
    if classes <= 100:
        yield np.where(index % 3 == 0, -1e8, rng.standard_normal(classes) - 1e8)
        yield rng.standard_normal(classes) * 200
        yield rng.standard_normal(classes) * 1e-6
        yield rng.integers(-2, 3, classes) * 350.0


def rows(classes: int, dtype: Any, seed: int = 0) -> tuple[Array, list[int]]:
    """Return every family twice or more: the label at the maximum, at the minimum, elsewhere."""
    rng = np.random.default_rng([classes, seed])
    logits, labels = [], []
    for row in families(classes, rng):
        row = row.astype(dtype)
        places = {int(row.argmax()), int(row.argmin()), int(rng.integers(classes))}
        for label in sorted(places)[: 3 if classes <= 100 else 1]:
            logits.append(row)
            labels.append(label)
    return np.array(logits), labels


def class_weights(kind: str, classes: int) -> Array:
    rng = np.random.default_rng(classes)
    weights, index = rng.random(classes) + 0.5, np.arange(classes)
    if kind == "dominating":
        weights[classes // 2] = 1e12
    else:
        weights[index % 4 == 1] = 0
    return weights


def assert_within(worst: dict[str, float], limit: float) -> None:
    assert all(worst[name] <= limit for name in ALL), worst


@pytest.mark.parametrize(("classes", "smoothing"), CASES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_within_four_ulp(classes: int, dtype: Any, smoothing: float) -> None:
    logits, labels = rows(classes, dtype)
    result = cross_entropy(logits, labels, outputs=ALL, label_smoothing=smoothing)
    assert_within(worst_errors(result, logits, labels, label_smoothing=smoothing), 4.0)


@pytest.mark.parametrize("kind", ["zeros", "dominating"])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 10, 32, 33, 100])
def test_class_weights_within_five_ulp(
    classes: int, dtype: Any, smoothing: float, kind: str
) -> None:
    logits, labels = rows(classes, dtype)
    weights = class_weights(kind, classes)
    options: dict[str, Any] = {"class_weights": weights, "label_smoothing": smoothing}
    result = cross_entropy(logits, labels, outputs=ALL, **options)
    assert_within(worst_errors(result, logits, labels, **options), 5.0)


@pytest.mark.parametrize("kind", ["zeros", "dominating"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_class_weights_over_several_tiles(dtype: Any, kind: str) -> None:
    logits, labels = rows(4097, dtype)
    logits, labels = logits[:6:2], labels[:6:2]
    options: dict[str, Any] = {"class_weights": class_weights(kind, 4097), "label_smoothing": 0.1}
    result = cross_entropy(logits, labels, outputs=ALL, **options)
    assert_within(worst_errors(result, logits, labels, **options), 5.0)


@pytest.mark.parametrize(
    ("dtype", "gap"),
    [(np.float32, g) for g in (20, 50, 70, 85, 95)]
    + [(np.float64, g) for g in (30, 350, 500, 700, 730)],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_whole_tile_far_below_the_maximum_of_another(
    dtype: Any, gap: float, smoothing: float
) -> None:
    logits = np.zeros((2, 4100), dtype)
    logits[0, -1] = logits[1, 0] = gap
    result = cross_entropy(logits, [0, 1], outputs=ALL, label_smoothing=smoothing)
    assert_within(worst_errors(result, logits, [0, 1], label_smoothing=smoothing), 4.0)


@pytest.mark.parametrize(
    "factors",
    [
        {"scale": 65536.0},
        {"scale": -0.37},
        {"row_weight": 0.1},
        {"row_weight": 3.7, "scale": 1 / 3, "denominator": 7.0},
        {"row_weight": 1e-3, "denominator": 1e5},
        {"scale": 1e30},
        {"scale": 1e-20},
        {"denominator": 1e-25},
        {"row_weight": 1e200, "scale": 1e-200},
    ],
    ids=str,
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [3, 40])
def test_factors_cost_one_ulp_at_most(
    classes: int, dtype: Any, smoothing: float, factors: dict[str, float]
) -> None:
    logits, labels = rows(classes, dtype)
    # Differences of 1e8 overflow float32 with these factors, which test_edges looks at.
    moderate = np.ptp(logits, axis=1) < 50
    logits, labels = logits[moderate], list(np.array(labels)[moderate])
    weight, scale = factors.get("row_weight", 1.0), factors.get("scale", 1.0)
    denominator = factors.get("denominator", 1.0)
    shared: dict[str, Any] = {
        "row_weights": np.full(len(labels), weight),
        "scale": scale,
        "label_smoothing": smoothing,
    }
    result = cross_entropy(logits, labels, outputs=ALL, **shared)
    mean = cross_entropy(logits, labels, reduction="mean", denominator=denominator, **shared)
    one = worst_errors(
        result,
        logits,
        labels,
        label_smoothing=smoothing,
        loss_factor=product(weight, scale),
        gradient_factor=product(weight, scale),
    )
    assert_within(one, 5.0)
    divided = dataclasses.replace(result, gradient=mean.gradient)
    two = worst_errors(
        divided,
        logits,
        labels,
        label_smoothing=smoothing,
        loss_factor=product(weight, scale),
        gradient_factor=product(weight, scale, 1 / Fraction(denominator)),
    )
    assert_within(two, 5.0)


def product(*factors: float | Fraction) -> mpmath.mpf:
    exact = math.prod(Fraction(f) for f in factors)
    with mpmath.workdps(60):
        return mpmath.mpf(exact.numerator) / exact.denominator
