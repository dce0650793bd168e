"""`softxent.explain` against 400-digit arithmetic, central differences and its own definitions."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

import softxent
from softxent.errors import (
    InputError,
    LabelError,
    NonFiniteError,
    OptionError,
    RowsError,
    TensorError,
    WeightError,
)

Vector = npt.NDArray[np.float64]

RNG = np.random.default_rng(20)

LABEL_ROWS: list[tuple[list[float], int]] = [
    ([0.0], 0),
    ([2.0, 1.0, 0.1], 0),
    ([20.0, 0.0], 0),
    ([40.0, 0.0], 0),
    ([0.0, 40.0], 0),
    ([200.0, 0.0], 0),
    ([1e8, 1e8], 1),
    ([3.0, 3.0, 3.0, -1.0], 3),
    ([0.1, -600.3, -1.7], 1),
    ([1e16, 1e16 + 2, 1.0], 0),
    (RNG.normal(0, 10, 256).tolist(), 17),
]

NAMES = ("softmax_out", "loss_by_softmax_out", "chain_rule_product", "fused_gradient")


def in_many_digits(logits: list[float], target: list[float]) -> dict[str, Any]:
    """Every step by its definition, in enough digits for the largest gap float64 can show."""
    gap = max(logits) - min(logits)
    with mpmath.workdps(60 + int(min(gap, 800) / 2.3)):
        z = [mpmath.mpf(v) for v in logits]
        e = [mpmath.exp(v - max(z)) for v in z]
        s = [v / mpmath.fsum(e) for v in e]
        y = [mpmath.mpf(v) for v in target]
        total = mpmath.fsum(y)
        return {
            "softmax_out": s,
            "loss": -mpmath.fsum(b * mpmath.log(a) for a, b in zip(s, y, strict=True) if b),
            "loss_by_softmax_out": [-b / a for a, b in zip(s, y, strict=True)],
            "fused_gradient": [total * a - b for a, b in zip(s, y, strict=True)],
            "jacobian": [
                [a * ((1 if n == m else 0) - b) for m, b in enumerate(s)] for n, a in enumerate(s)
            ],
        }


def ulps(found: npt.ArrayLike, exact: Any) -> float:
    """The largest error in units of the last place of the exact value."""
    pairs = zip(np.ravel(found).tolist(), np.ravel(np.array(exact, dtype=object)), strict=True)
    return max(float(abs(mpmath.mpf(f) - x) / math.ulp(float(x))) for f, x in pairs)


def loss_of(logits: Vector, target: Vector) -> float:
    return softxent.explain(logits, target_probabilities=target).loss


@pytest.mark.parametrize(("logits", "label"), LABEL_ROWS)
def test_label_steps_are_exact_to_four_ulp(logits: list[float], label: int) -> None:
    found = softxent.explain(logits, label)
    with mpmath.workdps(400):
        exact = in_many_digits(logits, found.target.tolist())
        assert ulps(found.loss, exact["loss"]) <= 4
        assert ulps(found.softmax_out, exact["softmax_out"]) <= 4
        assert ulps(found.softmax_jacobian, exact["jacobian"]) <= 8
        assert ulps(found.fused_gradient, exact["fused_gradient"]) <= 4
        assert found.loss_by_softmax_out is not None
        assert ulps(found.loss_by_softmax_out, exact["loss_by_softmax_out"]) <= 5


@pytest.mark.parametrize(("logits", "label"), LABEL_ROWS)
def test_chain_rule_product_is_the_fused_gradient(logits: list[float], label: int) -> None:
    found = softxent.explain(logits, label)
    assert found.chain_rule_product is not None
    assert found.largest_difference is not None
    np.testing.assert_allclose(found.chain_rule_product, found.fused_gradient, rtol=0, atol=1e-14)
    assert found.largest_difference == np.max(
        np.abs(found.chain_rule_product - found.fused_gradient)
    )
    assert found.notes == ()


def test_target_probabilities_against_many_digits() -> None:
    logits = RNG.normal(0, 5, 40)
    target = RNG.dirichlet(np.ones(40))
    found = softxent.explain(logits, target_probabilities=target)
    with mpmath.workdps(400):
        exact = in_many_digits(logits.tolist(), target.tolist())
        assert ulps(found.loss, exact["loss"]) <= 4
        scale = np.maximum(found.softmax_out, target)
        error = [
            float(abs(mpmath.mpf(f) - x))
            for f, x in zip(found.fused_gradient.tolist(), exact["fused_gradient"], strict=True)
        ]
    assert np.all(np.array(error) <= 4 * np.spacing(scale))


@pytest.mark.parametrize("total", [1 - 9e-7, 1 + 9e-7])
def test_target_that_sums_to_almost_one_still_has_the_exact_derivative(total: float) -> None:
    found = softxent.explain([1.0, 2.0, 4.0], target_probabilities=[0.25, 0.25, total - 0.5])
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-15


def test_gradient_and_jacobian_are_the_central_differences() -> None:
    logits, target = RNG.normal(0, 2, 7), RNG.dirichlet(np.ones(7))
    found = softxent.explain(logits, target_probabilities=target)
    h = 1e-6
    for n, step in enumerate(np.eye(7) * h):
        above, below = logits + step, logits - step
        slope = (loss_of(above, target) - loss_of(below, target)) / (2 * h)
        assert slope == pytest.approx(found.fused_gradient[n], abs=1e-8)
        column = (
            softxent.explain(above, 0).softmax_out - softxent.explain(below, 0).softmax_out
        ) / (2 * h)
        np.testing.assert_allclose(column, found.softmax_jacobian[:, n], atol=1e-8)


def test_label_is_its_one_hot_target() -> None:
    by_label = softxent.explain([1.0, 2.0, 3.0], 1)
    by_target = softxent.explain([1.0, 2.0, 3.0], target_probabilities=[0, 1, 0])
    assert by_label.loss == by_target.loss
    for name in (*NAMES, "softmax_jacobian", "target"):
        np.testing.assert_array_equal(getattr(by_label, name), getattr(by_target, name))


def test_one_class_has_no_loss_and_no_gradient() -> None:
    found = softxent.explain([5.0], 0)
    numbers = [found.loss, found.softmax_jacobian[0, 0], found.fused_gradient[0]]
    assert [str(float(number)) for number in numbers] == ["0.0", "0.0", "0.0"]
    assert found.softmax_out.tolist() == [1.0]


@pytest.mark.parametrize("gap", [709.0, 745.0, 800.0, 1e300])
def test_underflow_under_the_label_is_said_and_not_computed(gap: float) -> None:
    found = softxent.explain([0.0, -gap], 1)
    assert found.loss == gap
    assert found.fused_gradient.tolist() == [1.0, -1.0]
    assert found.loss_by_softmax_out is None
    assert found.chain_rule_product is None
    assert found.largest_difference is None
    assert "loss_by_softmax_out is not defined" in found.notes[0]
    assert "class 1" in found.notes[0]
    assert "chain_rule_product" in found.notes[1]


def test_underflow_where_the_target_is_zero_changes_nothing() -> None:
    found = softxent.explain([0.0, -800.0], 0)
    assert found.loss_by_softmax_out is not None
    assert found.loss_by_softmax_out.tolist() == [-1.0, 0.0]
    assert found.largest_difference == 0.0
    assert found.notes == ()


def test_underflow_names_at_most_ten_classes() -> None:
    found = softxent.explain([0.0] + [-800.0] * 15, target_probabilities=[1 / 16] * 16)
    assert "class 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more" in found.notes[0]


def test_every_number_is_finite_down_to_the_smallest_softmax() -> None:
    found = softxent.explain([0.0, -708.0], 1)
    for name in (*NAMES, "softmax_jacobian"):
        assert np.all(np.isfinite(getattr(found, name)))


def test_infinite_gap_beside_a_zero_target_is_no_loss() -> None:
    assert softxent.explain([1e308, -1e308], 0).loss == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint64, np.float64])
def test_real_dtypes_are_taken_as_float64(dtype: Any) -> None:
    found = softxent.explain(np.array([1, 2], dtype), np.int32(1))
    assert found.softmax_out.dtype == np.float64
    assert found.loss == softxent.explain([1.0, 2.0], 1).loss


@pytest.mark.parametrize(
    ("logits", "label", "target", "error", "field"),
    [
        ([], 0, None, TensorError, "logits"),
        ([0.0] * 257, 0, None, TensorError, "logits"),
        ([[1.0, 2.0]], 0, None, TensorError, "logits"),
        (1.0, 0, None, TensorError, "logits"),
        ([[1.0], [2.0, 3.0]], 0, None, TensorError, "logits"),
        (["a", "b"], 0, None, TensorError, "logits"),
        ([None, 1.0], 0, None, TensorError, "logits"),
        ([True, False], 0, None, TensorError, "logits"),
        ([1j, 2.0], 0, None, TensorError, "logits"),
        ([1.0, math.nan], 0, None, NonFiniteError, "logits"),
        ([math.inf, 1.0], 0, None, NonFiniteError, "logits"),
        ([-math.inf, 1.0], 0, None, NonFiniteError, "logits"),
        ([1e308, -1e308], 1, None, NonFiniteError, "logits"),
        ([1.0, 2.0], 2, None, LabelError, "label"),
        ([1.0, 2.0], -1, None, LabelError, "label"),
        ([1.0, 2.0], 2**70, None, LabelError, "label"),
        ([1.0, 2.0], True, None, TensorError, "label"),
        ([1.0, 2.0], np.True_, None, TensorError, "label"),
        ([1.0, 2.0], 1.0, None, TensorError, "label"),
        ([1.0, 2.0], "1", None, TensorError, "label"),
        ([1.0, 2.0], np.array([1, 0]), None, TensorError, "label"),
        ([1.0, 2.0], np.array([1]), None, TensorError, "label"),
        ([1.0, 2.0], np.array(1), None, TensorError, "label"),
        ([1.0, 2.0], None, None, OptionError, "label"),
        ([1.0, 2.0], 0, [1.0, 0.0], OptionError, "label"),
        ([1.0, 2.0], None, [1.0], TensorError, "target_probabilities"),
        ([1.0, 2.0], None, [[1.0, 0.0]], TensorError, "target_probabilities"),
        ([1.0, 2.0], None, ["1", "0"], TensorError, "target_probabilities"),
        ([1.0, 2.0], None, [1.5, -0.5], WeightError, "target_probabilities"),
        ([1.0, 2.0], None, [math.nan, 1.0], WeightError, "target_probabilities"),
        ([1.0, 2.0], None, [math.inf, 1.0], WeightError, "target_probabilities"),
        ([1.0, 2.0], None, [0.5, 0.499], RowsError, "target_probabilities"),
        ([1.0, 2.0], None, [0.0, 0.0], RowsError, "target_probabilities"),
        ([1.0, 2.0], None, [1e308, 1e308], RowsError, "target_probabilities"),
    ],
)
def test_bad_input_is_refused_by_name(
    logits: Any, label: Any, target: Any, error: type[InputError], field: str
) -> None:
    with pytest.raises(error) as caught:
        softxent.explain(logits, label, target_probabilities=target)
    assert type(caught.value) is error
    assert caught.value.field == field


def test_errors_name_classes_and_values() -> None:
    with pytest.raises(NonFiniteError) as logits:
        softxent.explain([1.0, math.nan, -math.inf], 0)
    assert (logits.value.rows, logits.value.values) == ((1, 2), ("NaN", "-Infinity"))
    with pytest.raises(WeightError) as target:
        softxent.explain([1.0, 2.0], target_probabilities=[-0.5, 1.5])
    assert (target.value.rows, target.value.values, target.value.total) == ((0,), (-0.5,), 1)
    with pytest.raises(LabelError) as label:
        softxent.explain([1.0, 2.0], 7)
    assert label.value.values == (7,)


def test_the_callers_arrays_are_left_alone() -> None:
    logits, target = np.array([1.0, 2.0]), np.array([0.5, 0.5])
    found = softxent.explain(logits, target_probabilities=target)
    found.target[0] = 7
    assert (logits.tolist(), target.tolist()) == ([1.0, 2.0], [0.5, 0.5])
