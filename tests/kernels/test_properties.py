"""Any small arrays: a result that agrees with the naive formula, or an error of our own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import ALL, Array, naive

from softxent import InputError, NonFiniteError, SoftxentError, cross_entropy

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=36)
QUIET = settings(max_examples=150, deadline=None)


@st.composite
def batches(draw: st.DrawFn, /, **floats: Any) -> tuple[Array, Array]:
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    elements = hnp.from_dtype(np.dtype(dtype), **floats)
    logits = draw(hnp.arrays(dtype, SHAPES, elements=elements))
    classes = logits.shape[1]
    labels = st.integers(-1, classes - 1).map(lambda y: -100 if y < 0 else y)
    return logits, draw(hnp.arrays(np.int64, len(logits), elements=labels))


@given(batches(), st.sampled_from([0.0, 0.25, 1.0]), st.floats(allow_nan=False))
@QUIET
def test_results_are_finite_exactly_where_they_should_be(
    batch: tuple[Array, Array], smoothing: float, scale: float
) -> None:
    logits, labels = batch
    options: dict[str, Any] = {"outputs": ALL, "label_smoothing": smoothing, "scale": scale}
    if not math.isfinite(scale):
        with pytest.raises(InputError):
            cross_entropy(logits, labels, **options)
        return
    result = cross_entropy(logits, labels, non_finite="propagate", **options)
    taken = labels >= 0
    with np.errstate(invalid="ignore"):
        broken = taken & ~np.isfinite(logits.max(axis=1))
    loss, lse = np.asarray(result.loss), np.asarray(result.log_normalizer)
    probabilities = np.asarray(result.probabilities)
    assert np.isnan(lse[broken]).all()
    assert np.isnan(loss[broken]).all()
    assert np.isnan(probabilities[broken]).all()
    assert np.isnan(np.asarray(result.gradient)[broken]).all()
    assert np.isfinite(lse[~broken]).all()
    assert (probabilities[~broken] >= 0).all()
    assert (probabilities[~broken] <= 1 + 4 * np.finfo(logits.dtype).eps).all()
    # An infinite loss times a scale of 0 is NaN, as everywhere.
    assert scale == 0 or (loss[~broken] * math.copysign(1, scale) >= 0).all()
    assert not np.isnan(np.asarray(result.gradient)[~broken]).any()
    if np.isfinite(loss).all():
        assert cross_entropy(logits, labels, **options).loss_sum == result.loss_sum
    else:
        with pytest.raises(NonFiniteError) as caught:
            cross_entropy(logits, labels, **options)
        assert caught.value.rows == tuple(np.flatnonzero(~np.isfinite(loss))[:10])


@given(batches(min_value=-50, max_value=50), st.sampled_from([0.0, 0.25, 1.0]), st.data())
@QUIET
def test_agrees_with_the_naive_formula(
    batch: tuple[Array, Array], smoothing: float, data: st.DataObject
) -> None:
    logits, labels = batch
    weights = st.floats(0.0, 100.0).map(lambda w: w if w > 1e-3 else 0.0)
    options: dict[str, Any] = {
        "label_smoothing": smoothing,
        "row_weights": data.draw(hnp.arrays(np.float64, len(logits), elements=weights)),
        "class_weights": data.draw(hnp.arrays(np.float64, logits.shape[1], elements=weights)),
        "reduction": data.draw(st.sampled_from(["none", "sum"])),
        "scale": data.draw(st.sampled_from([1.0, -0.5, 1024.0])),
    }
    wanted = naive(logits, labels, **options)
    result = cross_entropy(logits, labels, outputs=ALL, **options)
    eps = float(np.finfo(logits.dtype).eps) * 50
    size = abs(options["scale"]) * 100.0 * 100.0 * logits.shape[1]
    for name, value in wanted.items():
        np.testing.assert_allclose(
            getattr(result, name), value, rtol=eps, atol=eps * size, err_msg=name
        )


ANYTHING = st.one_of(
    st.none(),
    st.floats(),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=2), st.none()), max_size=4),
    hnp.arrays(
        st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=2)),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
)


@given(logits=ANYTHING, labels=ANYTHING, class_weights=ANYTHING, row_weights=ANYTHING)
@settings(max_examples=400, deadline=None)
def test_anything_is_evaluated_or_refused_by_an_error_of_ours(**tensors: Any) -> None:
    error: SoftxentError | None = None
    try:
        cross_entropy(**tensors, non_finite="propagate")
    except SoftxentError as caught:
        error = caught
    assert error is None or (error.field in tensors and str(error))
