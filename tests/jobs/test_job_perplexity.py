"""Perplexity is of the plain loss of labels: over C equal logits it is C, whatever the scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_support import accepted, run, save

import softxent
from softxent_service.jobs.cluster import Cluster

CLASSES = 16
UNIFORM = {
    "logits": np.zeros((6, CLASSES), np.float64),
    "labels": np.array([0, 5, 15, 3, -100, 7]),
}


def attributes(folder: Path, cluster: Cluster, tensors: Any, **members: Any) -> dict[str, Any]:
    save(folder, tensors)
    return run(accepted(folder, **members), cluster)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"scale": 1 / math.log(2)},
        {"scale": 4.0, "temperature": 2.0},
        {"scale": -1.0},
        {"scale": 65536.0, "reduction": "mean"},
        {"reduction": "mean", "denominator": 77.0},
        {"reduction": "sum"},
        {"softcap": 30.0},
        {"on_error": "skip"},
    ],
)
def test_it_is_the_number_of_equal_classes(
    tmp_path: Path, cluster: Cluster, members: dict[str, Any]
) -> None:
    told = attributes(tmp_path, cluster, UNIFORM, **members)
    assert told["perplexity"] == pytest.approx(16, rel=1e-14)
    assert told["perplexity_reason"] is None


@pytest.mark.parametrize("members", [{}, {"reduction": "mean", "mean_over": "rows"}])
def test_rows_and_classes_are_weighted(
    tmp_path: Path, cluster: Cluster, members: dict[str, Any]
) -> None:
    """By hand: two classes whose odds are 3 to 1, rows of weight 1 and 2, classes of 1 and 0.5."""
    tensors = {
        "logits": np.log(np.array([[3.0, 1.0], [3.0, 1.0]])),
        "labels": np.array([0, 1]),
        "row_weights": np.array([1.0, 2.0]),
        "class_weights": np.array([1.0, 0.5]),
    }
    told = attributes(tmp_path, cluster, tensors, scale=3.0, **members)
    # (1 ln 4/3 + 2 x 0.5 ln 4) / (1 + 2 x 0.5) = ln sqrt(16/3)
    assert told["perplexity"] == pytest.approx(math.sqrt(16 / 3), rel=1e-14)


@pytest.mark.parametrize(
    ("members", "more", "reason"),
    [
        ({"z_loss": 0.1}, {}, "z_loss is part of the loss"),
        ({"label_smoothing": 0.1}, {}, "label_smoothing is part of the loss"),
        ({"scale": 0.0}, {}, "scale is 0"),
        (
            {"hard_weight": 0.5},
            {"target_probabilities": np.full((6, CLASSES), 1 / CLASSES)},
            "target_probabilities: perplexity is of labels",
        ),
        (
            {"tail": "none", "hard_weight": 0.5},
            {
                "target_indices": np.zeros((6, 1), np.int64),
                "target_log_probabilities": np.full((6, 1), -1.0),
            },
            "target_indices: perplexity is of labels",
        ),
        ({}, {"row_weights": np.zeros(6)}, "no row counts, or none has weight"),
        ({"empty": "zero"}, {"row_weights": np.zeros(6)}, "no row counts, or none has weight"),
    ],
)
def test_where_there_is_none_the_reason_is_told(
    tmp_path: Path, cluster: Cluster, members: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    told = attributes(tmp_path, cluster, {**UNIFORM, **more}, **members)
    assert (told["perplexity"], told["perplexity_reason"]) == (None, reason)


def test_a_loss_that_is_infinite(tmp_path: Path, cluster: Cluster) -> None:
    tensors = {"logits": np.array([[0.0, -np.inf]]), "labels": np.array([1])}
    told = attributes(tmp_path, cluster, tensors, non_finite="propagate")
    assert told["perplexity"] == "Infinity"


LOSING: list[dict[str, Any]] = [
    {"row_weights": 1e-46},
    {"row_weights": 1e-46, "reduction": "sum"},
    {"row_weights": 1e-320},
    {"row_weights": 1e-320, "scale": 1e-20, "outputs": ["loss", "gradient"]},
    {"row_weights": 8e307},
    {"class_weights": 1e-46},
    {"class_weights": 1e-20, "scale": -1e-20},
    {"scale": 1e-46},
    {"scale": 1e-44},
    {"scale": 1e-44, "on_error": "skip"},
]


@pytest.mark.parametrize("members", LOSING)
def test_a_mean_that_is_lost_is_no_number(
    tmp_path: Path, cluster: Cluster, members: dict[str, Any]
) -> None:
    """Losses of float32 are 0 or subnormal here, or weights add up to infinity; the mean is ln 16.

    What is said is what the mean itself is refused with.
    """
    given: dict[str, Any] = {**UNIFORM, "logits": UNIFORM["logits"].astype(np.float32)}
    sizes = {"row_weights": 6, "class_weights": CLASSES}
    options = dict(members, non_finite="propagate")
    for name, length in sizes.items():
        if name in options:
            given[name] = np.full(length, options.pop(name))
    told = attributes(tmp_path, cluster, given, **options)
    assert (told["mean"], told["perplexity"]) == (None, None)
    assert told["mean_reason"] == told["perplexity_reason"]
    with pytest.raises(softxent.SoftxentError) as refused:
        softxent.cross_entropy(**given, reduction="mean", scale=members.get("scale", 1.0))
    assert told["mean_reason"] == refused.value.message


def test_a_row_that_is_ignored_keeps_no_mean(tmp_path: Path, cluster: Cluster) -> None:
    """The row of weight 1 does not count, and all that count have losses of 0 in float32."""
    weights = np.where(UNIFORM["labels"] == -100, 1.0, 1e-46)
    given: dict[str, Any] = {
        **UNIFORM,
        "logits": UNIFORM["logits"].astype(np.float32),
        "row_weights": weights,
    }
    told = attributes(tmp_path, cluster, given)
    assert (told["mean"], told["perplexity"]) == (None, None)
    with pytest.raises(softxent.WeightError, match="losses lose digits"):
        softxent.cross_entropy(**given, reduction="mean")


def test_one_row_that_weighs_enough_keeps_the_mean(tmp_path: Path, cluster: Cluster) -> None:
    weights = np.full(6, 1e-46)
    weights[2] = 0.25
    given: dict[str, Any] = {
        **UNIFORM,
        "logits": UNIFORM["logits"].astype(np.float32),
        "row_weights": weights,
    }
    told = attributes(tmp_path, cluster, given)
    assert told["mean"] == pytest.approx(math.log(16), rel=1e-6)
    assert told["perplexity"] == pytest.approx(16, rel=1e-6)
    assert (told["mean_reason"], told["perplexity_reason"]) == (None, None)


@pytest.mark.parametrize(
    "members", [{"scale": 1e39}, {"reduction": "mean", "denominator": 2.0, "row_weights": 8e307}]
)
def test_an_infinity_that_scale_or_weights_have_made_is_no_perplexity(
    tmp_path: Path, cluster: Cluster, members: dict[str, Any]
) -> None:
    given: dict[str, Any] = {**UNIFORM, "logits": UNIFORM["logits"].astype(np.float32)}
    options = dict(members, non_finite="propagate")
    if "row_weights" in options:
        given["row_weights"] = np.full(6, options.pop("row_weights"))
    told = attributes(tmp_path, cluster, given, **options)
    assert told["perplexity"] is None
    assert told["perplexity_reason"]
