"""Values worked out by hand or stated in the literature; no oracle stands between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from softxent import cross_entropy

ALL = ("loss", "gradient", "log_normalizer", "probabilities")
LN2 = math.log(2)


def evaluate(logits: list[float], label: int, dtype: Any, **options: Any) -> Any:
    return cross_entropy(np.array([logits], dtype), [label], outputs=ALL, **options)


def test_confident_row_keeps_its_digits_in_float32() -> None:
    result = evaluate([20, 0], 0, np.float32)
    assert result.loss[0] == np.float32(2.0611537e-09)
    assert result.gradient[0].tolist() == [
        -np.float32(2.0611537e-09),
        np.float32(2.0611537e-09),
    ]
    assert result.probabilities[0].tolist() == [1.0, np.float32(2.0611537e-09)]
    assert result.log_normalizer[0] == 20


def test_confident_row_keeps_its_digits_in_float64() -> None:
    result = evaluate([40, 0], 0, np.float64)
    assert result.loss[0] == 4.248354255291589e-18
    assert result.gradient[0].tolist() == [-4.248354255291589e-18, 4.248354255291589e-18]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logit", [0.0, 1e8, -1e8, 1e30])
def test_two_equal_logits_are_ln_2_at_any_offset(dtype: Any, logit: float) -> None:
    result = evaluate([logit, logit], 1, dtype)
    assert result.loss[0] == dtype(LN2)
    assert result.gradient[0].tolist() == [0.5, -0.5]
    assert result.probabilities[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 4, 16, 32, 64, 1024, 4096, 8192])
def test_equal_logits_of_a_power_of_two_of_classes(dtype: Any, classes: int) -> None:
    result = evaluate([3.5] * classes, 0, dtype)
    close: dict[str, Any] = {"rtol": 4 * np.finfo(dtype).eps}
    assert result.loss[0] == dtype(math.log(classes))
    assert result.gradient[0, 0] == 1 / classes - 1
    np.testing.assert_allclose(result.gradient[0, 1:], 1 / classes, **close)
    np.testing.assert_allclose(result.probabilities[0], 1 / classes, **close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odds_of_three_to_one(dtype: Any) -> None:
    """Logits [ln 3, 0]: probabilities 3/4 and 1/4."""
    result = evaluate([math.log(3), 0], 0, dtype)
    close: dict[str, Any] = {"rtol": 4 * np.finfo(dtype).eps}
    np.testing.assert_allclose(result.probabilities, [[0.75, 0.25]], **close)
    np.testing.assert_allclose(result.gradient, [[-0.25, 0.25]], **close)
    np.testing.assert_allclose(result.loss, [math.log(4 / 3)], **close)
    np.testing.assert_allclose(result.log_normalizer, [math.log(4)], **close)


def test_one_two_three() -> None:
    """softmax([1, 2, 3]), the example of many textbooks."""
    result = evaluate([1, 2, 3], 2, np.float64)
    wanted = [0.09003057317038046, 0.24472847105479767, 0.6652409557748219]
    np.testing.assert_allclose(result.probabilities[0], wanted, rtol=4e-16)
    np.testing.assert_allclose(result.log_normalizer, [3.4076059644443806], rtol=4e-16)
    np.testing.assert_allclose(result.loss, [0.4076059644443804], rtol=4e-16)


def test_smoothed_target_by_hand() -> None:
    """[ln 3, 0] against (0.95, 0.05): 0.95 ln(4/3) + 0.05 ln 4, gradient (-0.2, 0.2)."""
    result = evaluate([math.log(3), 0], 0, np.float64, label_smoothing=0.1)
    np.testing.assert_allclose(
        result.loss, [0.95 * math.log(4 / 3) + 0.05 * math.log(4)], rtol=1e-15
    )
    np.testing.assert_allclose(result.gradient, [[-0.2, 0.2]], rtol=1e-15)


def test_weighted_mean_by_hand() -> None:
    """Class weights 1 and 3: (ln 2 + 3 * 2 ln 2) / (1 + 3 * 2) with row weights 1 and 2."""
    result = cross_entropy(
        np.zeros((2, 2)),
        [0, 1],
        class_weights=[1, 3],
        row_weights=[1, 2],
        reduction="mean",
    )
    assert result.loss == pytest.approx(LN2, rel=1e-15)
    assert result.gradient is not None
    wanted = np.array([[-0.5, 0.5], [3.0, -3.0]]) / 7
    np.testing.assert_allclose(result.gradient, wanted, rtol=1e-15)
    assert (result.weight_sum, result.count) == (7.0, 2)


@pytest.mark.parametrize(
    ("dtype", "logits", "wanted"),
    [
        (np.float32, [0, -100], 3.720075976020836e-44),
        (np.float32, [0, -103.0], 1.852116769517975e-45),
        (np.float32, [0, -110], 0.0),
        (np.float64, [0, -740], 4.188739880048048939e-322),
        (np.float64, [0, -744.0], 7.67194470417998e-324),
        (np.float64, [0, -800], 0.0),
    ],
)
def test_subnormal_results_are_rounded_once(dtype: Any, logits: list[float], wanted: float) -> None:
    result = evaluate(logits, 0, dtype)
    assert result.probabilities[0].tolist() == [1.0, float(dtype(wanted))]
    assert result.gradient[0].tolist() == [-float(dtype(wanted)), float(dtype(wanted))]
    assert result.loss[0] == dtype(wanted)
