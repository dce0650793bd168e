"""Any target with any options, against the exact reference and the stated edges."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from batches import ILLEGAL, cases
from cases import Case
from checks import assert_accurate, assert_edges, limit, worst_product_error
from hypothesis import HealthCheck, given, settings

from softxent import (
    OUTPUTS,
    OptionError,
    TensorError,
    cross_entropy,
    hessian_vector_product,
    log_softmax,
    logsumexp,
    softmax,
)
from softxent.evaluations import SOFTMAX
from softxent.serving import PARALLEL_ELEMENTS

SLOW: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


def evaluated(case: Case, **more: Any) -> Any:
    arguments: dict[str, Any] = case.tensors | case.options | more
    return cross_entropy(**arguments)


@settings(max_examples=250, **SLOW)
@given(cases(most_classes=70))
def test_within_bounds_and_edges_as_stated(case: Case) -> None:
    result = evaluated(case)
    assert_edges(result, case)
    assert_accurate(result, case)


@settings(max_examples=8, **SLOW)
@given(cases(poisoned=False, most_classes=5000).filter(lambda case: case.logits.shape[1] > 4096))
def test_rows_of_several_tiles(case: Case) -> None:
    result = evaluated(case)
    assert_edges(result, case)
    assert_accurate(result, case)


@settings(max_examples=60, **SLOW)
@given(cases(most_classes=70))
def test_in_place_row_by_row_and_repeated_in_parallel_give_the_same_bits(drawn: Case) -> None:
    options = {k: v for k, v in drawn.options.items() if k not in REDUCTION}
    outputs = dict.fromkeys((*drawn.outputs, "gradient"))
    case = dataclasses.replace(drawn, options={**options, "outputs": tuple(outputs)})
    whole = bits(evaluated(case))
    if case.stored == case.logits.dtype:
        buffer = case.logits.copy()
        in_place = dataclasses.replace(case, tensors=case.tensors | {"logits": buffer})
        assert bits(evaluated(in_place, out={"gradient": buffer})) == whole
        assert buffer.tobytes() == whole["gradient"]
    times = PARALLEL_ELEMENTS // max(case.logits.size, 1) + 1
    if len(case.logits) > 0:
        many = bits(evaluated(repeated(case, times)))
        assert many == {name: value * times for name, value in whole.items()}
        rows = [bits(evaluated(row_of(case, i))) for i in range(len(case.logits))]
        assert {name: b"".join(row[name] for row in rows) for name in whole} == whole


def bits(result: Any) -> dict[str, bytes]:
    return {
        name: getattr(result, name).tobytes() for name in OUTPUTS if vars(result)[name] is not None
    }


@settings(max_examples=150, **SLOW)
@given(cases(most_classes=70).filter(lambda case: case.vectors is not None))
def test_hessian_vector_products(case: Case) -> None:
    product = product_of(case)
    assert (product.shape, product.dtype) == (case.logits.shape, case.stored)
    assert worst_product_error(product, case) <= limit(case, "hessian_vector_product")
    assert not product[case.rows.ignored].astype(np.float64).any()
    assert np.isnan(product[case.rows.broken].astype(np.float64)).all()
    assert not product[~case.rows.mask & ~case.rows.broken[:, None]].astype(np.float64).any()


def product_of(case: Case) -> Any:
    arguments: dict[str, Any] = case.tensors | case.product_options
    return hessian_vector_product(vectors=cast("Any", case.vectors), **arguments)


@settings(max_examples=100, **SLOW)
@given(cases(most_classes=70))
def test_softmax_has_the_bits_of_cross_entropy(case: Case) -> None:
    options = {k: v for k, v in case.options.items() if k in SOFTMAX.options[1:]}
    given: dict[str, Any] = {k: v for k, v in case.tensors.items() if k in SOFTMAX.tensors}
    given |= options | {"non_finite": "propagate"}
    names = {
        "probabilities": softmax,
        "log_probabilities": log_softmax,
        "log_normalizer": logsumexp,
    }
    labels: dict[str, Any] = {"labels": case.rows.mask.argmax(1)}
    wanted = cross_entropy(**given, **labels, outputs=tuple(names))
    for name, function in names.items():
        assert function(**given).tobytes() == getattr(wanted, name).tobytes()


REDUCTION = ("reduction", "denominator", "mean_over", "empty")
SHARED = ("class_weights",)


def is_shared(name: str, case: Case) -> bool:
    return name in SHARED or (name == "class_mask" and case.tensors[name].ndim == 1)


def repeated(case: Case, times: int) -> Case:
    tensors = {
        name: value if is_shared(name, case) else np.concatenate([value] * times)
        for name, value in case.tensors.items()
    }
    return dataclasses.replace(case, tensors=tensors)


def row_of(case: Case, i: int) -> Case:
    tensors = {
        name: value if is_shared(name, case) else value[i : i + 1]
        for name, value in case.tensors.items()
    }
    return dataclasses.replace(case, tensors=tensors)


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
LABELS = np.array([0, 1, 2])
TARGETS: dict[str, dict[str, Any]] = {
    "label": {"labels": LABELS},
    "probabilities": {"target_probabilities": np.full((3, 4), 0.25, np.float32)},
    "top_k": {
        "target_indices": np.array([[0, 1], [1, 2], [3, -1]]),
        "target_log_probabilities": np.log(np.full((3, 2), 0.5, np.float32)),
    },
}


@pytest.mark.parametrize(("kind", "field", "options"), ILLEGAL)
def test_options_that_do_not_go_together(kind: str, field: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        cross_entropy(X, **TARGETS[kind], **options)
    assert caught.value.field == field


def test_targets_that_do_not_go_together() -> None:
    mixed = TARGETS["label"] | TARGETS["probabilities"]
    with pytest.raises(OptionError) as option:
        cross_entropy(X, **mixed)
    assert option.value.field == "hard_weight"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "labels"),
        (TARGETS["probabilities"] | TARGETS["top_k"], "target_indices"),
        ({"target_indices": np.zeros((3, 1), int)}, "target_log_probabilities"),
        ({"target_log_probabilities": np.zeros((3, 1))}, "target_indices"),
    ]
    for tensors, field in wrong:
        with pytest.raises(TensorError) as tensor:
            cross_entropy(X, **tensors)
        assert tensor.value.field == field
    with pytest.raises(TensorError) as weights:
        cross_entropy(X, **TARGETS["top_k"], class_weights=np.ones(4), tail="bucket")
    assert weights.value.field == "class_weights"


def test_labels_none_is_no_label() -> None:
    soft = cross_entropy(X, None, **TARGETS["probabilities"])
    assert soft.count == 3
