"""Rows of targets that cannot be evaluated: which error, which field, which rows and values."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from softxent import LabelError, OptionError, RowsError, TensorError, cross_entropy

N, C = 5, 4
X = np.linspace(-1, 1, N * C, dtype=np.float32).reshape(N, C)


def refused(error: type[RowsError], field: str, **tensors: Any) -> RowsError:
    """Evaluate in place; expect the error, and the logits as they were."""
    logits = tensors.pop("logits", X).copy()
    before = logits.tobytes()
    with pytest.raises(error) as caught:
        cross_entropy(logits, **tensors, out={"gradient": logits})
    assert (type(caught.value), caught.value.field) == (error, field)
    assert logits.tobytes() == before
    return caught.value


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [-1e-3, -math.inf, math.inf, math.nan])
def test_probabilities_must_be_finite_and_not_negative(dtype: type, value: float) -> None:
    target: Any = np.full((N, C), 0.25, dtype)
    target[1, 3] = target[4, 0] = value
    for logits in (X, X.astype(dtype), X.astype(np.float64)):
        error = refused(
            RowsError, "target_probabilities", logits=logits, target_probabilities=target
        )
        assert (error.rows, error.total) == ((1, 4), 2)
        assert float(error.values[0]) == pytest.approx(float(target[1, 3]), nan_ok=True)


def test_minus_zero_is_a_probability_and_ignored_rows_are_not_read() -> None:
    target = np.full((N, C), 0.25, np.float16)
    target[0, 0] = -0.0
    target[2] = np.nan
    weights = np.array([1, 1, 0, 1, 1])
    result = cross_entropy(X, target_probabilities=target, row_weights=weights)
    assert result.count == 4
    assert not result.gradient[2].any()  # type: ignore[index]


def test_probabilities_that_float32_cannot_hold_are_refused() -> None:
    target = np.full((N, C), 0.25)
    target[2, 2] = 1e39
    error = refused(RowsError, "target_probabilities", target_probabilities=target)
    assert error.rows == (2,)


def top_k() -> dict[str, Any]:
    return {
        "target_indices": np.array([[0, 1]] * N),
        "target_log_probabilities": np.log(np.full((N, 2), 0.5)),
    }


@pytest.mark.parametrize("index", [-2, C, 2**40])
def test_indices_out_of_range(index: int) -> None:
    target = top_k()
    target["target_indices"][3, 1] = index
    error = refused(LabelError, "target_indices", **target)
    assert (error.rows, error.values, error.total) == ((3,), (index,), 1)


def test_an_index_twice_in_a_row() -> None:
    target = top_k()
    target["target_indices"][2] = 1
    error = refused(LabelError, "target_indices", **target)
    assert (error.rows, error.values) == ((2,), (1,))
    assert "twice" in error.message


def test_pads_may_repeat_and_hold_anything() -> None:
    target = top_k()
    target["target_indices"][:] = -1
    target["target_log_probabilities"][:] = np.nan
    result = cross_entropy(X, **target, tail="bucket")
    np.testing.assert_array_equal(result.loss, np.zeros(N))
    assert result.count == 0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_log_probabilities_must_be_numbers(value: float) -> None:
    target = top_k()
    target["target_log_probabilities"][4, 0] = value
    error = refused(RowsError, "target_log_probabilities", **target)
    assert error.rows == (4,)
    assert float(error.values[0]) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("tail", ["bucket", "none"])
def test_masses_far_above_one_are_refused_and_a_little_is_rounding(tail: Any) -> None:
    target: dict[str, Any] = top_k()
    target["target_log_probabilities"][1] = math.log(0.51)
    error = refused(RowsError, "target_log_probabilities", **target, tail=tail)
    assert error.rows == (1,)
    assert float(error.values[0]) == pytest.approx(1.02)
    assert cross_entropy(X, **target, tail="renormalize").count == N
    target["target_log_probabilities"][1] = math.log(0.503)
    assert cross_entropy(X, **target, tail=tail).count == N


def test_masked_classes_cannot_be_targets() -> None:
    mask = np.ones((N, C), bool)
    mask[2, 1] = False
    labels = np.array([0, 1, 1, 1, 0])
    error = refused(LabelError, "labels", labels=labels, class_mask=mask)
    assert (error.rows, error.values) == ((2,), (1,))
    error = refused(LabelError, "target_indices", **top_k(), class_mask=mask)
    assert (error.rows, error.values) == ((2,), (1,))
    error = refused(LabelError, "labels", labels=labels, class_mask=mask[2])
    assert error.rows == (1, 2, 3)


@pytest.mark.parametrize(
    ("field", "tensors"),
    [
        ("target_probabilities", {"target_probabilities": np.zeros((N, C + 1))}),
        ("target_probabilities", {"target_probabilities": np.zeros(N)}),
        ("target_probabilities", {"target_probabilities": np.zeros((N, C), bool)}),
        ("target_indices", top_k() | {"target_indices": np.zeros((N, 3), int)}),
        ("target_indices", top_k() | {"target_indices": np.zeros((N, 2))}),
        (
            "target_log_probabilities",
            top_k() | {"target_log_probabilities": np.zeros((N + 1, 2))},
        ),
        ("target_log_probabilities", top_k() | {"target_log_probabilities": np.zeros(N)}),
        (
            "target_indices",
            {
                "target_indices": np.zeros((N, 0), int),
                "target_log_probabilities": np.zeros((N, 0)),
            },
        ),
        ("class_mask", top_k() | {"class_mask": np.ones(C)}),
        ("class_mask", top_k() | {"class_mask": np.ones((N, C + 1), bool)}),
    ],
)
def test_shapes_and_dtypes(field: str, tensors: dict[str, Any]) -> None:
    with pytest.raises(TensorError) as caught:
        cross_entropy(X, **tensors)
    assert caught.value.field == field


def test_a_mask_that_leaves_nothing_is_a_row_without_softmax() -> None:
    mask = np.zeros((N, C), bool)
    mask[0] = True
    result = cross_entropy(
        X,
        target_probabilities=np.full((N, C), 0.25),
        class_mask=mask,
        non_finite="propagate",
    )
    assert np.isfinite(result.loss).tolist() == [True] + [False] * (N - 1)  # type: ignore[arg-type]


def test_a_sequence_names_its_rows_flat() -> None:
    target = np.full((2, 3, C), 0.25)
    target[1, 1, 2] = -1
    error = refused(
        RowsError,
        "target_probabilities",
        logits=np.zeros((2, 3, C), np.float32),
        target_probabilities=target,
    )
    assert (error.rows, error.values) == ((4,), (-1.0,))


def test_classes_without_rows_cost_nothing() -> None:
    result = cross_entropy(
        np.zeros((0, 2**50), np.float32),
        target_indices=np.zeros((0, 2), int),
        target_log_probabilities=np.zeros((0, 2)),
    )
    assert (result.count, result.loss_sum) == (0, 0.0)


def test_a_bucket_out_of_sight_of_the_maximum() -> None:
    logits = np.array([[17.0, 0, 0]], np.float32)
    result: Any = cross_entropy(
        logits,
        target_indices=[[0]],
        target_log_probabilities=[[math.log(0.25)]],
        temperature=0.01,
        tail="bucket",
    )
    np.testing.assert_allclose(result.loss, [0.75 * (1700 - math.log(2))], rtol=2e-7)
    np.testing.assert_allclose(result.gradient, [[75.0, -37.5, -37.5]], rtol=4e-7)


def test_options_of_labels_are_refused_without_labels() -> None:
    target = np.full((N, C), 0.25)
    with pytest.raises(OptionError, match="only to labels") as caught:
        cross_entropy(X, target_probabilities=target, ignore_index=1)
    assert caught.value.field == "ignore_index"
    cross_entropy(X, target_probabilities=target, ignore_index=None)
