"""Every output within 4 ulp of the exact value, over inputs chosen to break lesser formulas.

Factors (row weight, class weight, scale, divisor) may cost 1 ulp more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oracle import ALL, Array, exact, worst_errors

from softxent import cross_entropy

FLOATS = [np.float32, np.float64]
SMOOTHINGS = [0.0, 0.1, 1.0]
CLASSES = [1, 2, 3, 10, 31, 32, 33, 64, 65, 100, 1000, 4096, 4097, 9000]



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
        yield np.float32(rng.standard_normal(classes)) * np.float64(1e-6)
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


def class_weights(kind: str, classes: int) -> Array | None:
    rng = np.random.default_rng(classes)
    if kind == "none":
        return None
    if kind == "dominating":
        return np.where(np.arange(classes) == classes // 2, 1e12, rng.random(classes) + 0.5)
    return rng.random(classes) * (np.arange(classes) % 4 != 1) + (np.arange(classes) % 7 == 3)


def assert_within(worst: dict[str, float], limit: float) -> None:
    assert all(worst[name] <= limit for name in ALL), worst


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", CLASSES)
def test_within_four_ulp(classes: int, dtype: Any, smoothing: float) -> None:
    logits, labels = rows(classes, dtype)
    result = cross_entropy(logits, labels, outputs=ALL, label_smoothing=smoothing)
    assert_within(worst_errors(result, logits, labels, label_smoothing=smoothing), 4.0)


@pytest.mark.parametrize("kind", ["zeros", "dominating"])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 10, 32, 33, 100, 4097])
def test_class_weights_within_five_ulp(
    classes: int, dtype: Any, smoothing: float, kind: str
) -> None:
    logits, labels = rows(classes, dtype)
    weights = class_weights(kind, classes)
    options: dict[str, Any] = {"class_weights": weights, "label_smoothing": smoothing}
    result = cross_entropy(logits, labels, outputs=ALL, **options)
    assert_within(worst_errors(result, logits, labels, **options), 5.0)
