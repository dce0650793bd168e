"""Any target with any options, against the exact reference and the stated edges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from batches import ILLEGAL, cases
from cases import Case
from checks import assert_accurate, assert_edges
from hypothesis import HealthCheck, given, settings

from softxent import OUTPUTS, OptionError, TensorError, cross_entropy
from softxent.front import PARALLEL_ELEMENTS

SLOW: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


def known(case: Case) -> Case:
    """Return the case with those of its outputs that the library has."""
    outputs = tuple(name for name in case.options["outputs"] if name in OUTPUTS) or ("loss",)
    options = {k: v for k, v in case.options.items() if k != "output_dtype"}
    return dataclasses.replace(case, options=options | {"outputs": outputs})


def evaluated(case: Case, **more: Any) -> Any:
    arguments: dict[str, Any] = case.tensors | case.options | more
    return cross_entropy(**arguments)


@settings(max_examples=250, **SLOW)
@given(cases(most_classes=70))
def test_within_bounds_and_edges_as_stated(drawn: Case) -> None:
    case = known(drawn)
    result = evaluated(case)
    assert_edges(result, case)
    assert_accurate(result, case)


@settings(max_examples=8, **SLOW)
@given(cases(poisoned=False, most_classes=5000).filter(lambda case: case.logits.shape[1] > 4096))
def test_rows_of_several_tiles(drawn: Case) -> None:
    case = known(drawn)
    result = evaluated(case)
    assert_edges(result, case)
    assert_accurate(result, case)


@settings(max_examples=60, **SLOW)
@given(cases(most_classes=70))
def test_in_place_row_by_row_and_repeated_in_parallel_give_the_same_bits(drawn: Case) -> None:
    case = known(drawn)
    if case.options.get("reduction", "none") == "mean":
        case = dataclasses.replace(
            case, options={k: v for k, v in case.options.items() if k not in MEAN}
        )
    case.options["outputs"] = ("loss", "gradient")
    whole = evaluated(case)
    if case.options.get("reduction", "none") != "none":
        return
    wanted = (whole.loss.tobytes(), whole.gradient.tobytes())
    buffer = case.logits.copy()
    in_place = dataclasses.replace(case, tensors=case.tensors | {"logits": buffer})
    placed = evaluated(in_place, out={"gradient": buffer})
    assert (placed.loss.tobytes(), buffer.tobytes()) == wanted
    times = PARALLEL_ELEMENTS // max(case.logits.size, 1) + 1
    if len(case.logits) > 0:
        many = evaluated(repeated(case, times))
        assert many.loss.tobytes() == wanted[0] * times
        assert many.gradient.tobytes() == wanted[1] * times
        rows = [evaluated(row_of(case, i)) for i in range(len(case.logits))]
        assert b"".join(row.gradient.tobytes() for row in rows) == wanted[1]


MEAN = ("reduction", "denominator", "mean_over", "empty")
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
    if not set(options.get("outputs", ())) <= set(OUTPUTS):
        field = "outputs"
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
