"""softmax, log_softmax, logsumexp, hessian_vector_product, and outputs in other types."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from ulps import Array

import softxent
from softxent import (
    NonFiniteError,
    OptionError,
    OutputBufferError,
    RowsError,
    TensorError,
    cross_entropy,
    hessian_vector_product,
)
from softxent.options import DType

X = np.array([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]], np.float32)
Y = np.array([0, 2])
V = np.array([[1.0, -1.0, 0.5], [0.0, 3.0, 2.0]], np.float32)
FUNCTIONS = ("softmax", "log_softmax", "logsumexp")


def call(name: str) -> Callable[..., Array]:
    function: Callable[..., Array] = getattr(softxent, name)
    return function


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 4), (2, 3, 1), (5, 40)])
def test_any_leading_dimensions(name: str, shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array = call(name)(logits)
    assert array.shape == (shape[:-1] if name == "logsumexp" else shape)
    rows = call(name)(logits.reshape(int(np.prod(shape[:-1])), shape[-1]))
    assert array.tobytes() == rows.tobytes()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_does_not_concern_logits_is_refused(name: str) -> None:
    for option in ("outputs", "reduction", "scale", "ignore_index"):
        with pytest.raises(OptionError) as caught:
            call(name)(X, **{option: 1})
        assert caught.value.field == option
    with pytest.raises(NonFiniteError) as rows:
        call(name)(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    assert rows.value.rows == (1,)
    with pytest.raises(TensorError) as mask:
        call(name)(X, class_mask=np.ones(4, bool))
    assert mask.value.field == "class_mask"


def test_softmax_in_place() -> None:
    wanted = softxent.softmax(X)
    buffer = X.copy()
    assert softxent.softmax(buffer, out=buffer) is buffer
    assert buffer.tobytes() == wanted.tobytes()
    with pytest.raises(OutputBufferError):
        softxent.log_softmax(buffer, out=buffer)


def test_masked_classes_have_no_probability() -> None:
    mask = np.array([True, False, True])
    assert (softxent.softmax(X, class_mask=mask)[:, 1] == 0).all()
    assert (softxent.log_softmax(X, class_mask=mask)[:, 1] == -np.inf).all()


def test_the_diagonal_is_that_of_the_products_with_unit_vectors() -> None:
    more: dict[str, Any] = {"z_loss": 0.1, "temperature": 2.0, "reduction": "mean"}
    result = cross_entropy(X.astype(float), Y, outputs="hessian_diagonal", **more)
    diagonal: Any = result.hessian_diagonal
    for j in range(3):
        unit = np.zeros(X.shape)
        unit[:, j] = 1
        product = hessian_vector_product(X.astype(float), unit, Y, **more)
        np.testing.assert_allclose(product[:, j], diagonal[:, j], rtol=1e-13)


def test_products_are_the_difference_of_gradients() -> None:
    x, step = X.astype(float), 1e-6
    teacher = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    more: dict[str, Any] = {"target_probabilities": teacher, "z_loss": 0.1, "scale": 3.0}
    gradients: list[Any] = [cross_entropy(x + s * V, **more).gradient for s in (step, -step)]
    ahead, behind = gradients
    product = hessian_vector_product(x, V, **more)
    np.testing.assert_allclose(product, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)


def test_vectors_are_checked_where_they_are_read() -> None:
    bad = V.copy()
    bad[1, 0] = np.inf
    with pytest.raises(RowsError) as caught:
        hessian_vector_product(X, bad, Y)
    found = caught.value
    assert (found.field, found.rows, found.values, found.total) == (
        "vectors",
        (1,),
        ("Infinity",),
        1,
    )
    hessian_vector_product(X, bad, np.array([0, -100]))
    hessian_vector_product(X, bad, Y, class_mask=np.array([[True] * 3, [False, True, True]]))
    for vectors, problem in (
        (V[:1], "shape"),
        ([["a"] * 3] * 2, "real numbers"),
        (None, "required"),
    ):
        with pytest.raises(TensorError, match=problem) as tensor:
            hessian_vector_product(X, vectors, Y)  # type: ignore[arg-type]
        assert tensor.value.field == "vectors"
    with pytest.raises(OptionError) as option:
        hessian_vector_product(X, V, Y, softcap=30.0)
    assert option.value.field == "hessian_vector_product"


@pytest.mark.parametrize("stored", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("given", ["float64", "float32", "float16", "bfloat16"])
def test_outputs_in_another_type_are_those_of_the_computation_rounded_once(
    given: str, stored: DType
) -> None:
    generator = np.random.default_rng(3)
    logits = (generator.normal(size=(50, 300)) * 3).astype(np.dtype(given))
    labels = generator.integers(0, 300, 50)
    computed = logits.astype(np.float64 if given == "float64" else np.float32)
    wanted = cross_entropy(computed, labels)
    found = cross_entropy(logits, labels, output_dtype=stored)
    assert found.loss is not None
    assert found.gradient is not None
    assert wanted.gradient is not None
    assert np.asarray(found.loss).tobytes() == np.asarray(wanted.loss).tobytes()
    assert found.gradient.dtype == np.dtype(stored)
    for value, exact in zip(found.gradient.flat, wanted.gradient.flat, strict=True):
        assert is_nearest(value, float(exact))
    buffer = np.empty(logits.shape, stored)
    cross_entropy(logits, labels, output_dtype=stored, out={"gradient": buffer})
    assert buffer.tobytes() == found.gradient.tobytes()


def is_nearest(value: Any, exact: float) -> bool:
    """Tell whether no neighbour of a value is nearer to the exact one."""
    kind = type(value)
    near = [np.nextafter(value, kind(np.inf)), np.nextafter(value, kind(-np.inf))]
    away = abs(Fraction(float(value)) - Fraction(exact))
    return all(away <= abs(Fraction(float(other)) - Fraction(exact)) for other in near)


def test_halfway_cases_of_bfloat16_are_rounded_once() -> None:
    """Through float32 the first would become a tie, and go to the even neighbour below."""
    from softxent.rounding import round_into

    values = np.array([1 + 2.0**-8 + 2.0**-40, -1 - 2.0**-8 - 2.0**-40, 1 + 2.0**-8, np.nan, 1e300])
    out = np.empty(5, ml_dtypes.bfloat16)
    round_into(out, values)
    wanted = [1 + 2.0**-7, -1 - 2.0**-7, 1.0, np.nan, np.inf]
    np.testing.assert_array_equal(out.astype(np.float64), wanted)


def test_a_buffer_of_another_type_over_the_logits_is_refused() -> None:
    logits = X.copy()
    half = logits.reshape(-1).view(ml_dtypes.bfloat16)[:6].reshape(2, 3)
    with pytest.raises(OutputBufferError) as caught:
        cross_entropy(logits, Y, output_dtype="bfloat16", out={"gradient": half})
    assert caught.value.field == "gradient"
    assert logits.tobytes() == X.tobytes()
