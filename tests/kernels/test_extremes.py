"""Factors and logits at the ends of the floating-point range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from oracle import ALL, Array, exact

from softxent import (
    NonFiniteError,
    OptionError,
    class_partials,
    cross_entropy,
    hessian_vector_product,
    softmax,
)
from softxent.options import NonFinite

FLOATS = [np.float32, np.float64]


def check_gradient(logits: Array, factor: float, limit: float = 5.0, **options: Any) -> None:
    """Compare one row's gradient, where the exact one is representable."""
    gradient = cross_entropy(logits, [0], **options).gradient
    assert gradient is not None
    wanted = exact(logits[0], 0, gradient_factor=factor)["gradient"]
    errors = wanted.errors(gradient[0], logits.shape[1])
    assert errors.max() <= limit, (gradient[0], wanted.high)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30, 1e37])
def test_extreme_scale_in_float32(classes: int, scale: float) -> None:
    logits = np.linspace(5, 0, classes, dtype=np.float32)[None]
    check_gradient(logits, scale, scale=scale)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300, 1e307])
def test_extreme_scale_in_float64(classes: int, scale: float) -> None:
    logits = np.linspace(5, 0, classes)[None]
    check_gradient(logits, scale, scale=scale)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("scale", [1e10, 1e30])
def test_scale_lifts_what_would_underflow_in_float32(classes: int, scale: float) -> None:
    """exp(-100) is subnormal in float32; 1e30 times it is not, and has all its digits."""
    logits = np.full((1, classes), -100, np.float32)
    logits[0, 0] = 0
    check_gradient(logits, scale, scale=scale)


@pytest.mark.parametrize("classes", [3, 40])
def test_scale_of_what_underflows_float64_is_exact_to_the_scaled_floor(classes: int) -> None:
    """exp(-740) is subnormal in float64, the widest format: the floor is that of the row."""
    scale = 1e100
    logits = np.full((1, classes), -740.0)
    logits[0, 0] = 0
    gradient = cross_entropy(logits, [0], scale=scale).gradient
    assert gradient is not None
    wanted = exact(logits[0], 0, gradient_factor=scale)["gradient"].high
    floor = classes * np.finfo(np.float64).tiny * scale
    assert np.abs(gradient[0] - wanted.astype(np.float64)).max() <= floor
    assert gradient[0, 0] < 0 < gradient[0, 1:].min()


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("denominator", [1e-300, 1e-30, 1e30, 1e300])
def test_extreme_denominators(classes: int, denominator: float) -> None:
    logits = np.linspace(5, 0, classes)[None]
    check_gradient(logits, 1 / denominator, limit=6.0, reduction="mean", denominator=denominator)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("dtype", FLOATS)
def test_row_weight_and_scale_that_meet_in_the_middle(dtype: Any, classes: int) -> None:
    logits = np.linspace(5, 0, classes, dtype=dtype)[None]
    check_gradient(logits, 1.0, row_weights=[2.0**1000], scale=2.0**-1000)


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("dtype", FLOATS)
def test_largest_logits(dtype: Any, classes: int) -> None:
    """The difference of the extremes overflows float32, and is taken in float64 or is infinite."""
    largest = np.finfo(dtype).max
    logits = np.full((1, classes), -largest, dtype)
    logits[0, 0] = largest
    result = cross_entropy(logits, [0], outputs=ALL)
    assert result.loss is not None
    assert result.probabilities is not None
    assert np.asarray(result.loss)[0] == 0
    np.testing.assert_allclose(result.probabilities[0], [1.0] + [0.0] * (classes - 1))
    assert np.asarray(result.log_normalizer)[0] == largest
    with pytest.raises(NonFiniteError):
        cross_entropy(logits, [1])
    over = cross_entropy(logits, [1], outputs=ALL, non_finite="propagate")
    assert np.asarray(over.loss)[0] == np.inf
    assert over.gradient is not None
    np.testing.assert_allclose(over.gradient[0], [1.0, -1.0] + [0.0] * (classes - 2))


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_loss_overflow_is_refused_by_name(classes: int, smoothing: float) -> None:
    logits = np.zeros((4, classes), np.float32)
    logits[2, 0] = 1e3
    with pytest.raises(NonFiniteError) as caught:
        cross_entropy(logits, [1] * 4, scale=1e37, label_smoothing=smoothing)
    assert (caught.value.rows, caught.value.values) == ((2,), ("Infinity",))
    negative = cross_entropy(logits, [1] * 4, scale=-1e37, non_finite="propagate")
    assert np.asarray(negative.loss)[2] == -np.inf


def test_sum_that_overflows_only_in_float32() -> None:
    """Sums are float64: 100 losses of 1e38 do not overflow."""
    logits = np.zeros((100, 2), np.float32)
    result = cross_entropy(logits, [0] * 100, scale=1e38, reduction="sum")
    assert result.loss == pytest.approx(100 * math.log(2) * 1e38, rel=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [3, 40])
def test_subnormal_logits(dtype: Any, classes: int) -> None:
    """Logits below the smallest normal number are as good as 0, and not an error."""
    logits = np.full((1, classes), np.finfo(dtype).smallest_subnormal, dtype)
    wanted = cross_entropy(np.zeros((1, classes), dtype), [0], outputs=ALL)
    result = cross_entropy(logits, [0], outputs=ALL)
    for name in ("loss", "gradient", "probabilities"):
        assert getattr(result, name).tobytes() == getattr(wanted, name).tobytes()


@pytest.mark.parametrize("scale", [1e-320, 1e-42, 1.0, 6.8e38, 1e300])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("classes", [2, 40, 5000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_broken_rows_are_nan_throughout_at_any_scale(
    dtype: Any, classes: int, smoothing: float, scale: float
) -> None:
    """Also where factors leave the format and the gradient takes its wider path."""
    logits = np.zeros((4, classes), dtype)
    logits[0, 1] = np.nan
    logits[1, 1] = np.inf
    logits[2] = -np.inf
    result = cross_entropy(
        logits,
        [0, 1, 1, 0],
        outputs=ALL,
        label_smoothing=smoothing,
        scale=scale,
        non_finite="propagate",
    )
    for name in ALL:
        assert np.isnan(getattr(result, name)[:3]).all(), name
        assert not np.isnan(getattr(result, name)[3]).any(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("temperature", [2.0**120, 1e46, 1e308])
def test_a_temperature_that_float32_cannot_do_is_refused(dtype: type, temperature: float) -> None:
    """Such rows were no numbers, or lost logits whose difference overflows but counts."""
    logits: Array = np.array([[1, 2, -np.inf]], dtype)
    calls: list[Callable[[], object]] = [
        lambda: cross_entropy(logits, [0], temperature=temperature),
        lambda: softmax(logits, temperature=temperature),
        lambda: hessian_vector_product(logits, logits, [0], temperature=temperature),
        lambda: class_partials(logits, [0], first_class=0, classes=3, temperature=temperature),
    ]
    for call in calls:
        with pytest.raises(OptionError, match="below 2\\^120") as refused:
            call()
        assert refused.value.field == "temperature"


@pytest.mark.parametrize(("dtype", "temperature"), [("float32", 1.3e36), ("float64", 1.7e308)])
def test_the_highest_temperatures_make_classes_equal(dtype: str, temperature: float) -> None:
    logits: Array = np.array([[1, 2, -np.inf], [1, 2, 3]], dtype)
    result = cross_entropy(logits, [0, 0], temperature=temperature)
    wanted = np.array([math.log(2), math.log(3)], dtype)
    np.testing.assert_array_max_ulp(np.asarray(result.loss), wanted, 2)


@pytest.mark.parametrize("temperature", [2.0**119, 1e34, 1e30])
def test_logits_whose_difference_overflows(temperature: float) -> None:
    """Both of a row's losses add up to what they would if nothing overflowed."""
    logits: Array = np.array([[3e38, -3e38]] * 2, np.float32)
    result = cross_entropy(logits, [0, 1], temperature=temperature)
    wanted = np.array([0, 2 * float(logits[0, 0]) / temperature], np.float32)
    np.testing.assert_array_max_ulp(np.asarray(result.loss), wanted, 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [5e-324, 1e-310])
def test_a_temperature_whose_inverse_overflows_is_refused(dtype: type, temperature: float) -> None:
    logits: Array = np.array([[1, 2, 0]], dtype)
    modes: tuple[NonFinite, ...] = ("error", "propagate")
    for mode in modes:
        with pytest.raises(OptionError, match="temperature must be at least") as caught:
            cross_entropy(logits, [0], temperature=temperature, non_finite=mode)
        assert caught.value.field == "temperature"
