"""A batch evaluated some rows or columns at a time: the very bits of one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import softxent
from softxent import Options
from softxent.blockwise.rows import (
    RowSums,
    evaluate_columns,
    evaluate_part,
    faulty_rows,
    weigh_part,
)
from softxent.reduction import mean_divisor

ROWS, CLASSES = 23, 9000
Tensors = dict[str, Any]


def tensors(*, weighted: bool) -> Tensors:
    random = np.random.default_rng(5)
    given: Tensors = {
        "logits": random.normal(size=(ROWS, CLASSES)).astype(np.float32) * 5,
        "labels": random.integers(0, CLASSES, ROWS),
    }
    given["labels"][3] = -100
    if weighted:
        given["row_weights"] = random.uniform(size=ROWS)
        given["class_weights"] = random.uniform(size=CLASSES)
    return given


def some(given: Mapping[str, Any], rows: slice) -> Tensors:
    return {name: a if name == "class_weights" else a[rows] for name, a in given.items()}


def blocks(step: int) -> list[slice]:
    return [slice(i, i + step) for i in range(0, ROWS, step)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_parts_of_rows_are_the_whole(weighted: bool, step: int) -> None:
    given, options = tensors(weighted=weighted), Options(reduction="mean")
    weightless = {name: a for name, a in given.items() if name != "logits"}
    parts = [weigh_part(some(weightless, b), options, classes=CLASSES) for b in blocks(step)]
    weighed = RowSums.merged(parts)
    divisor = mean_divisor(options, weighed.weight_sum, weighed.count)
    found = [
        evaluate_part(some(given, b), options, divisor=divisor, num_threads=1) for b in blocks(step)
    ]
    sums = RowSums.merged(part.sums for part in found)
    whole = softxent.cross_entropy(**given, reduction="mean")
    gradient = np.concatenate([part.arrays["gradient"] for part in found])
    assert gradient.tobytes() == whole.gradient.tobytes()  # type: ignore[union-attr]
    assert (sums.loss_sum, sums.weight_sum, sums.count) == (
        whole.loss_sum,
        whole.weight_sum,
        whole.count,
    )
    assert (weighed.weight_sum, weighed.count) == (whole.weight_sum, whole.count)


@pytest.mark.parametrize("step", [4096, 8192, CLASSES])
def test_parts_of_columns_are_the_whole(step: int) -> None:
    given = tensors(weighted=True)
    logits, rest = given["logits"], {n: a for n, a in given.items() if n != "logits"}
    options = Options(label_smoothing=0.1)
    columns = [slice(i, i + step) for i in range(0, CLASSES, step)]
    partials = softxent.combine_partials(
        [
            softxent.class_partials(
                logits[:, c], first_class=c.start, classes=CLASSES, **rest, label_smoothing=0.1
            )
            for c in columns
        ]
    )
    found = [
        evaluate_columns({"logits": logits[:, c], **rest}, options, partials, first_class=c.start)
        for c in columns
    ]
    whole = softxent.cross_entropy(**given, label_smoothing=0.1)
    gradient = np.concatenate([part.arrays["gradient"] for part in found], axis=1)
    assert gradient.tobytes() == whole.gradient.tobytes()  # type: ignore[union-attr]
    for part in found:
        assert part.sums.loss_sum == whole.loss_sum
        assert part.sums.weight_sum == whole.weight_sum


def test_soft_targets_without_labels_are_weighed_by_rows_alone() -> None:
    weights = np.array([0.5, 0.0, 2.0])
    weighed = weigh_part({"row_weights": weights}, Options(ignore_index=0), classes=4)
    assert (weighed.weight_sum, weighed.count) == (2.5, 2)


def test_rows_at_fault_are_found_and_nothing_is_refused() -> None:
    given = tensors(weighted=True)
    given["labels"][[2, 9]] = CLASSES
    given["row_weights"][5] = np.nan
    assert faulty_rows(given, Options()).nonzero()[0].tolist() == [2, 5, 9]
    with pytest.raises(softxent.RowsError):
        evaluate_part(given, Options())


@pytest.mark.parametrize("count", [0, 1, 5, 2**52 + 1])
def test_an_integer_is_held_exactly(count: int) -> None:
    from softxent.blockwise.rows import _integer_words

    assert RowSums(_integer_words(0), _integer_words(count), count).weight_sum == count


def test_rows_are_weighed_whatever_else_is_asked() -> None:
    """Of a mixed target the labels alone are given, and the logits' dtype is not known."""
    given = {"labels": np.array([0, -100, 2]), "row_weights": np.array([1.0, 2.0, 4.0])}
    options = Options(
        hard_weight=0.5, tail="none", temperature=2.0**121, outputs=("hessian_diagonal",)
    )
    weighed = weigh_part(given, options, classes=3)
    assert (weighed.weight_sum, weighed.count) == (5.0, 2)
