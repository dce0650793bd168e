"""Results near the ends of a type's range: the number where there is one, else a named refusal."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

from softxent import (
    NonFiniteError,
    OptionError,
    SoftxentError,
    WeightError,
    class_cross_entropy,
    class_partials,
    combine_partials,
    cross_entropy,
    hessian_vector_product,
    log_softmax,
    logsumexp,
    softmax,
)

FLOATS = [np.float32, np.float64]


def refused(error: type[SoftxentError], field: str, says: str, *args: Any, **call: Any) -> None:
    with pytest.raises(error, match=says) as caught:
        cross_entropy(*args, **call)
    assert type(caught.value) is error
    assert caught.value.field == field


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("softcap", [5e-324, 1e-320, 1e-310, 2.0**-1023])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_smallest_softcaps_leave_no_difference(
    dtype: Any, softcap: float, classes: int
) -> None:
    """s tanh(x / s) is s or less, whose exponentials are equal; its slope is 1 at 0, else 0."""
    x = np.linspace(-2, 3, classes, dtype=dtype)[None]
    x[0, 1] = 0
    result = cross_entropy(x, [1], softcap=softcap)
    wanted = np.asarray([math.log(classes)], dtype)
    np.testing.assert_array_max_ulp(np.asarray(result.loss), wanted, 2)
    gradient = np.zeros((1, classes))
    gradient[0, 1] = 1 / classes - 1
    found = np.asarray(result.gradient, float)
    np.testing.assert_allclose(found, gradient, rtol=3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("gap", [1e305, 1.7e308])
@pytest.mark.parametrize("factor", ["row_weights", "scale", "class_weights", "temperature"])
def test_small_factors_of_the_largest_gaps(factor: str, gap: float, classes: int) -> None:
    """The label stands 2 gap below the maximum, which alone is more than float64 holds."""
    x = np.full((1, classes), -gap)
    x[0, 0] = gap
    given: dict[str, Any] = {factor: 1e-10}
    if factor == "temperature":
        given = {factor: 1e10}
    elif factor != "scale":
        given = {factor: np.full(1 if factor == "row_weights" else classes, 1e-10)}
    result = cross_entropy(x, [1], **given)
    with mpmath.workdps(50):
        wanted = float(2 * mpmath.mpf(gap) * mpmath.mpf(1e-10))
        if factor == "temperature":
            wanted = float(2 * mpmath.mpf(gap) / mpmath.mpf(1e10))
    np.testing.assert_array_max_ulp(np.asarray(result.loss), np.array([wanted]), 4)
    parts = [
        class_partials(x[:, a:b], [1], first_class=a, classes=classes, **given)
        for a, b in ((0, 1), (1, classes))
    ]
    block = class_cross_entropy(x[:, :1], [1], combine_partials(parts), first_class=0, **given)
    np.testing.assert_array_max_ulp(np.asarray(block.loss), np.array([wanted]), 4)


def test_a_large_mass_meets_a_small_weight() -> None:
    x = np.array([[0.0, 20.0]])
    result = cross_entropy(x, [0], class_weights=[1e308, 1.0], row_weights=[1e-300])
    wanted = float((20 + mpmath.log1p(mpmath.exp(-20))) * mpmath.mpf(1e308) * mpmath.mpf(1e-300))
    np.testing.assert_array_max_ulp(np.asarray(result.loss), np.array([wanted]), 5)


@pytest.mark.parametrize("classes", [2, 40])
def test_a_z_loss_whose_square_alone_overflows(classes: int) -> None:
    x = np.full((1, classes), 0.0)
    x[0, 0] = 1e200
    result = cross_entropy(x, [0], z_loss=1e-300)
    np.testing.assert_array_max_ulp(np.asarray(result.loss), np.array([1e100]), 4)


@pytest.mark.parametrize("denominator", [5e-324, 1e-320, 2.0**-1023])
def test_a_subnormal_denominator_is_refused(denominator: float) -> None:
    x = np.zeros((1, 3))
    says = r"denominator must be at least 2\^-1022"
    refused(OptionError, "denominator", says, x, [0], reduction="mean", denominator=denominator)
    x[0, 0] = 720
    call: dict[str, Any] = {"reduction": "mean", "outputs": "loss"}
    loss = cross_entropy(x, [0], denominator=denominator, **call).loss
    wanted = float(2 * mpmath.exp(-720) / mpmath.mpf(denominator))
    # 2 exp(-720) is about 4e-313: the last of its ten digits is worth 1e-11.
    assert loss == pytest.approx(wanted, rel=2e-11)


@pytest.mark.parametrize("over", ["weights", "rows"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_mean_whose_rows_underflow_is_refused(dtype: Any, over: str) -> None:
    """Losses of 1e-46 are 0 in float32, though their mean is that of any weights."""
    x = np.zeros((2, 3), dtype)
    call: dict[str, Any] = {"reduction": "mean", "mean_over": over}
    for field, weights in (("row_weights", [1e-46, 1e-47]), ("class_weights", [1e-46] * 3)):
        says = f"multiply {field} by a power of two"
        refused(WeightError, field, says, x, [0, 1], **{field: weights}, **call)
    refused(OptionError, "scale", "a larger scale", x, [0, 1], scale=1e-46, **call)
    one = cross_entropy(x, [0, 1], row_weights=[1.0, 1e-46], reduction="mean")
    assert one.loss == pytest.approx(math.log(3), rel=1e-6)
    wide = cross_entropy(x.astype(float), [0, 1], row_weights=[1e-46, 1e-47], reduction="mean")
    assert wide.loss == pytest.approx(math.log(3), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("hidden", ["row", "class"])
def test_a_weight_that_does_not_count_hides_no_lost_mean(dtype: Any, hidden: str) -> None:
    """A mean over rows divides by their number: a row that is ignored weighs nothing in it."""
    x = np.zeros((3, 4), dtype)
    call: dict[str, Any] = {"reduction": "mean", "mean_over": "rows", "ignore_index": -1}
    weights = {"row": [1e-46, 1e-47, 1.0], "class": [1e-46, 1e-47, 1.0, 1.0]}[hidden]
    field = f"{hidden}_weights"
    says = f"multiply {field} by a power of two"
    refused(WeightError, field, says, x, [0, 1, -1], **{field: weights}, **call)
    del call["mean_over"]
    refused(WeightError, field, says, x, [0, 1, -1], denominator=7, **{field: weights}, **call)


def test_products_of_weights_that_underflow_are_refused() -> None:
    """The sum of such weights is 0, and the loss would be: 1e-100 log(3) is right."""
    x = np.zeros((1, 3))
    call: dict[str, Any] = {"reduction": "mean", "denominator": 1e-300, "outputs": "loss"}
    weights: dict[str, Any] = {"row_weights": [1e-200], "class_weights": [1e-200] * 3}
    refused(WeightError, "row_weights", "in every row", x, [0], **weights, **call)


def test_class_weights_that_lift_a_soft_target_keep_its_mean() -> None:
    """Classes weigh inside a soft target, and are not in the sum that divides it."""
    x, target = np.zeros((2, 2), np.float32), np.full((2, 2), 0.5)
    call: dict[str, Any] = {"row_weights": [1e-33, 1e-33], "class_weights": [1e10, 1e10]}
    loss = cross_entropy(x, target_probabilities=target, reduction="mean", **call).loss
    assert loss == pytest.approx(1e10 * math.log(2), rel=1e-6)


def test_a_float64_mean_whose_factors_underflow_is_refused() -> None:
    x = np.zeros((1, 3))
    call: dict[str, Any] = {"scale": 1e-200, "reduction": "mean", "denominator": 1e-300}
    refused(WeightError, "row_weights", "in every row", x, [0], row_weights=[1e-200], **call)


@pytest.mark.parametrize("weights", [[1e-320], [5e-324]])
def test_weights_that_add_up_to_less_than_a_normal_number(weights: list[float]) -> None:
    x = np.zeros((1, 3))
    says = "add up to less than the smallest normal float64"
    refused(WeightError, "row_weights", says, x, [0], row_weights=weights, reduction="mean")


def test_weights_that_add_up_to_more_than_float64_holds() -> None:
    x, weights = np.array([[0.0, 800]] * 2), [1.7e308] * 2
    says = "more than the largest float64"
    refused(WeightError, "row_weights", says, x, [1] * 2, row_weights=weights, reduction="mean")
    refused(NonFiniteError, "weight_sum", "weight_sum is beyond", x, [1] * 2, row_weights=weights)
    kept = cross_entropy(x, [1] * 2, row_weights=weights, non_finite="propagate")
    assert kept.weight_sum == math.inf


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_sum_of_losses_that_overflows_is_refused(reduction: str) -> None:
    x = np.array([[1e3, 0.0]] * 2)
    call: dict[str, Any] = {"scale": 1.7e305, "reduction": reduction}
    refused(NonFiniteError, "loss_sum", "loss_sum is beyond float64", x, [1, 1], **call)
    kept = cross_entropy(x, [1, 1], non_finite="propagate", **call)
    assert kept.loss_sum == math.inf


def test_a_mean_that_overflows_is_refused() -> None:
    x = np.array([[1e3, 0.0]], np.float32)
    call: dict[str, Any] = {"reduction": "mean", "denominator": 1e-307}
    refused(NonFiniteError, "gradient", "beyond float32", x, [1], **call)
    says = "the mean of the losses is beyond float64"
    refused(NonFiniteError, "loss", says, x, [1], outputs="loss", **call)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float16", 2.0**17), ("bfloat16", 1e39), ("float32", 1e39), ("float64", None)],
)
def test_a_gradient_beyond_its_type_is_refused(dtype: str, scale: float | None) -> None:
    """Stored in 16 bits or narrowed from float64; float64 itself holds any that has a loss."""
    x: Any = np.array([[0.0, 0.0], [40.0, 0.0]])
    if scale is None:
        assert np.isfinite(cross_entropy(x, [0, 0], scale=8e307).gradient).all()  # type: ignore[arg-type]
        return
    call: dict[str, Any] = {"scale": scale, "output_dtype": dtype}
    with pytest.raises(NonFiniteError, match=f"gradient of 1 row is beyond {dtype}") as caught:
        cross_entropy(x, [0, 0], **call)
    assert (caught.value.rows, caught.value.values) == ((0,), ("-Infinity",))
    assert caught.value.field == "gradient"
    kept = cross_entropy(x, [0, 0], non_finite="propagate", **call)
    assert np.isinf(kept.gradient[0].astype(float)).all()  # type: ignore[index]
    assert np.isfinite(kept.gradient[1].astype(float)).all()  # type: ignore[index]
    mean = cross_entropy(x, [0, 0], reduction="mean", denominator=scale, **call)
    assert np.isfinite(mean.gradient.astype(float)).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_gradients_up_to_the_largest_are_returned(dtype: Any) -> None:
    """Loss scaling: a scale of 65,504 gives -32,752 at the label, and just twice that fits."""
    largest = {np.float16: 65504.0}.get(dtype, (2 - 2.0**-7) * 2.0**127)
    x = np.zeros((1, 2), dtype)
    result = cross_entropy(x, [0], scale=largest)
    assert result.gradient.astype(float).tolist() == [[-largest / 2, largest / 2]]  # type: ignore[union-attr]
    whole = cross_entropy(x, [0], scale=min(largest * 2, 3.4e38))
    assert np.isfinite(whole.gradient.astype(float)).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_hessians_beyond_their_type_are_refused(dtype: str) -> None:
    x = np.zeros((1, 2))
    scale = {"float16": 1e6, "float32": 1e40}[dtype]
    call: dict[str, Any] = {"scale": scale, "output_dtype": dtype}
    says = f"beyond {dtype}"
    refused(NonFiniteError, "hessian_diagonal", says, x, [0], outputs="hessian_diagonal", **call)
    with pytest.raises(NonFiniteError, match=says) as caught:
        hessian_vector_product(x, [[1.0, -1.0]], [0], **call)
    assert caught.value.field == "hessian_vector_product"
    small = hessian_vector_product(x, [[1e-9, -1e-9]], [0], **call)
    assert np.isfinite(small).all()
    with pytest.raises(NonFiniteError):
        hessian_vector_product(x, [[1.7e308, -1.7e308]], [0], scale=1e10)


def test_log_probabilities_beyond_their_type_are_refused_and_true_infinities_are_not() -> None:
    half: Any = np.array([[65504, -65504, 0]], np.float16)
    with pytest.raises(NonFiniteError, match="log_probabilities of 1 row is beyond float16") as no:
        log_softmax(half)
    assert (no.value.field, no.value.values) == ("log_probabilities", ("-Infinity",))
    mask = [True, False, True]
    np.testing.assert_array_equal(log_softmax(half, class_mask=mask), [[0, -np.inf, -65504]])
    half[0, 1] = -np.inf
    np.testing.assert_array_equal(log_softmax(half), [[0, -np.inf, -65504]])
    wide = np.array([[3e38, -3e38]], np.float32)
    with pytest.raises(NonFiniteError, match="beyond float32"):
        log_softmax(wide)
    with pytest.raises(NonFiniteError, match=r"beyond float32; .*float64 logits may keep"):
        log_softmax(wide, output_dtype="float64")
    assert log_softmax(wide.astype(float)).tolist() == [[0, -2 * float(wide[0, 0])]]


def test_a_log_normalizer_beyond_its_type_is_refused_where_it_is_asked_for() -> None:
    x = np.array([[3e38, 2e38]], np.float32)
    with pytest.raises(NonFiniteError, match="log_normalizer of 1 row is beyond float32") as no:
        logsumexp(x, temperature=0.1)
    assert no.value.field == "log_normalizer"
    assert softmax(x, temperature=0.1).tolist() == [[1, 0]]


CAUSES: dict[str, tuple[Any, list[int], dict[str, Any]]] = {
    "a logit of row 1 is NaN": ([[1, 2], [math.nan, 1]], [0, 0], {}),
    "the largest logit of row 0 is Infinity": ([[math.inf, 2], [1, 1]], [0, 0], {}),
    "the largest logit of row 1 is -Infinity": ([[1, 2], [-math.inf, -math.inf]], [0, 0], {}),
    "a class of the target has the logit -Infinity": ([[1, 2], [1, -math.inf]], [0, 1], {}),
    "too far apart for the temperature": ([[1, 2], [1, 99]], [0, 0], {"temperature": 2e-307}),
    "weights or scale are too large": ([[1, 2], [1, 9]], [0, 0], {"scale": 1e308}),
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("wide", [False, True])
def test_the_cause_of_a_loss_that_is_not_finite_is_named(cause: str, wide: bool) -> None:
    logits, labels, options = CAUSES[cause]
    x = np.array(logits, float)
    if wide:
        x = np.concatenate([x, np.full((2, 40), -np.inf)], axis=1)
        if "target" not in cause and "-Infinity" not in cause:
            x[:, 2:] = 0
    refused(NonFiniteError, "logits", cause, x, labels, **options)


def test_a_mask_that_leaves_nothing_is_named() -> None:
    x = np.zeros((2, 3))
    mask = np.array([[True] * 3, [False] * 3])
    with pytest.raises(NonFiniteError, match="class_mask leaves no class of row 1"):
        softmax(x, class_mask=mask)


def test_replaced_logits_are_not_asked_for_the_cause() -> None:
    x = np.array([[1.0, math.nan]])
    says = "in row 0 a logit is NaN or infinite, or its loss is beyond float64"
    refused(NonFiniteError, "logits", says, x, [0], out={"gradient": x})


def test_no_softmax_is_blamed_on_weights() -> None:
    x = np.array([[1.0, math.nan]])
    says = "1 row has no softmax: in row 0 a logit is NaN or Infinity, or all of them are -Infinity"
    with pytest.raises(NonFiniteError, match=says):
        softmax(x, out=x)


@pytest.mark.parametrize("softcap", [1e200, 1e300, 1e305, 1e307, float(np.finfo(float).max)])
@pytest.mark.parametrize("value", [4.2e-71, 1e-10, 1e-6, 1e-3, 1.0, 1e100, 1e299])
@pytest.mark.parametrize("classes", [1, 40])
def test_the_largest_softcaps_keep_every_digit(softcap: float, value: float, classes: int) -> None:
    """A cap that is far away is none: s tanh(x / s), of which x / s may be no normal number."""
    for x in (value, -value):
        logits = np.full((1, classes), -np.inf)
        logits[0, 0] = x
        with mpmath.workdps(60):
            wanted = float(mpmath.mpf(softcap) * mpmath.tanh(mpmath.mpf(x) / mpmath.mpf(softcap)))
        np.testing.assert_array_max_ulp(logsumexp(logits, softcap=softcap), np.array([wanted]), 1)


def test_a_gradient_below_a_softcap_that_is_far_away_is_that_without_one() -> None:
    x = np.array([[1e-6, 0.0, -1e-3]])
    capped, plain = (cross_entropy(x, [1], softcap=cap).gradient for cap in (1e305, None))
    np.testing.assert_allclose(np.asarray(capped), np.asarray(plain), rtol=4e-16)


@pytest.mark.parametrize(
    ("dtype", "temperature"),
    [
        (np.float32, 1e-40),
        (np.float16, 1e-39),
        (ml_dtypes.bfloat16, 1e-37),
        (np.float64, 1e-310),
    ],
)
def test_a_temperature_whose_inverse_is_no_number_is_refused(
    dtype: Any, temperature: float
) -> None:
    logits = np.array([[1.0, 0.0]]).astype(dtype)
    for evaluate in (softmax, log_softmax, logsumexp):
        with pytest.raises(OptionError, match="temperature must be at least 2"):
            evaluate(logits, temperature=temperature)
    refused(OptionError, "temperature", "at least 2", logits, [0], temperature=temperature)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_least_temperatures_give_the_limit(dtype: Any) -> None:
    least = 2.0**-120 if dtype == np.float32 else 2.0**-1020
    logits = np.array([[1.0, 0.0, 1.0]], dtype)
    assert softmax(logits, temperature=least).tolist() == [[0.5, 0.0, 0.5]]
    assert cross_entropy(logits[:, :2], [0], temperature=least, outputs="loss").loss_sum == 0.0


@pytest.mark.parametrize("logits", [[[0, 1.7e308]], [[1.7e308, 0]]])
def test_second_derivatives_of_gaps_beyond_the_range_are_zero(logits: list[list[float]]) -> None:
    """The probability of one class is 1, to every digit: its derivatives are 0, not 0 inf."""
    x = np.array(logits, float)
    label = [int(x[0].argmax())]
    found = cross_entropy(x, label, temperature=0.1, outputs="hessian_diagonal")
    assert np.asarray(found.hessian_diagonal).tolist() == [[0.0, 0.0]]
    product = hessian_vector_product(x, [[1.0, 2.0]], label, temperature=0.1)
    assert product.tolist() == [[0.0, 0.0]]


def test_a_factor_that_overflows_before_the_temperature_is_refused() -> None:
    call: dict[str, Any] = {"row_weights": [3.15e209], "denominator": 4.1e-119}
    call |= {"temperature": 2.07e276, "reduction": "mean", "outputs": "gradient"}
    refused(NonFiniteError, "gradient", "beyond float64", np.zeros((1, 2)), [0], **call)


@pytest.mark.parametrize(
    "call",
    [
        {"row_weights": [1e200], "scale": 1e200},
        {"denominator": 1e-200, "temperature": 1e-200},
        {"row_weights": [1e-200], "temperature": 1e-200},
    ],
)
def test_products_of_factors_beyond_the_range_end_in_numbers_or_typed_errors(
    call: dict[str, Any],
) -> None:
    try:
        found = cross_entropy(np.zeros((1, 2)), [0], reduction="mean", **call)
    except SoftxentError:
        return
    assert np.isfinite(np.asarray(found.gradient)).all()
    assert np.isfinite(found.loss_sum)


def test_an_empty_mask_is_named_where_logits_are_replaced() -> None:
    x = np.array([[1.0, 2.0]])
    with pytest.raises(NonFiniteError, match="class_mask leaves no class of row 0"):
        softmax(x, class_mask=np.zeros(2, bool), out=x)
