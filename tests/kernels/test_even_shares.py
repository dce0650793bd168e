"""Equal logits have equal shares to the last bit, as anyone would expect to see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from softxent import cross_entropy

FLOATS = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [1, 2, 4, 8, 16, 32, 64, 4096, 8192])
@pytest.mark.parametrize("value", [0.0, 2.0, -3.3, 1e8])
def test_equal_logits(classes: int, value: float, dtype: Any) -> None:
    logits = np.full((2, classes), value, dtype)
    result = cross_entropy(logits, [0, 0], outputs=("gradient", "probabilities"))
    assert result.probabilities is not None
    assert result.gradient is not None
    assert (result.probabilities == 1 / classes).all()
    assert (result.gradient[:, 1:] == 1 / classes).all()
    assert (result.gradient[:, 0] == 1 / classes - 1).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [3, 50])
def test_a_certain_row(classes: int, dtype: Any) -> None:
    logits = np.full((1, classes), -1e4, dtype)
    logits[0, 1] = 7.7
    result = cross_entropy(logits, [0], outputs=("gradient", "probabilities"))
    assert result.probabilities is not None
    assert result.gradient is not None
    assert result.probabilities[0].tolist() == [0, 1] + [0] * (classes - 2)
    assert result.gradient[0].tolist() == [-1, 1] + [0] * (classes - 2)
