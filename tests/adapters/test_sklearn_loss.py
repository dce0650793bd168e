"""softxent.sklearn.log_loss beside scikit-learn's, and where that one clips."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearns
from sklearn.preprocessing import StandardScaler

import softxent
from softxent.sklearn import log_loss
from softxent_client import Client

LOGITS = np.random.default_rng(0).normal(scale=2, size=(6, 3))
WORDS = ["bee", "ant", "cat", "cat", "ant", "bee"]
WEIGHTS = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 3.0])
HOT = np.eye(3)[[1, 0, 2, 2, 0, 1]]

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "words": (WORDS, {}),
    "integers": ([7, 5, 9, 9, 5, 7], {}),
    "booleans of an object array": (np.array(WORDS, object), {}),
    "sum": (WORDS, {"normalize": False}),
    "weights": (WORDS, {"sample_weight": WEIGHTS}),
    "weighted sum": (WORDS, {"sample_weight": WEIGHTS, "normalize": False}),
    "labels": (["ant", "ant", "bee", "bee", "ant", "bee"], {"labels": ["ant", "bee", "cat"]}),
    "indicator matrix": (HOT, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_same_as_sklearn(name: str) -> None:
    y_true, options = CASES[name]
    theirs = sklearns(y_true, softmax(LOGITS, axis=1), **options)
    assert log_loss(y_true, LOGITS, **options) == pytest.approx(theirs, rel=1e-12)
    assert log_loss(y_true, log_softmax(LOGITS, axis=1), **options) == pytest.approx(
        theirs, rel=1e-12
    )


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_scores_of_a_classifier(load: Any) -> None:
    pixels, y = load(return_X_y=True)
    x = StandardScaler().fit_transform(pixels)
    model = LogisticRegression(max_iter=300).fit(x, y)
    theirs = sklearns(y, model.predict_proba(x))
    assert log_loss(y, model.decision_function(x)) == pytest.approx(theirs, rel=1e-9)


def test_exact_where_sklearn_clips() -> None:
    logits = np.array([[0.0, 1000.0], [0.0, 1000.0]])
    assert log_loss([0, 1], logits) == 500.0
    assert sklearns([0, 1], softmax(logits, axis=1)) < 20
    confident = log_loss([0, 1], [[40.0, 0.0], [0.0, 40.0]])
    assert confident == pytest.approx(math.exp(-40), rel=1e-15)


FAULTS: dict[str, tuple[type[Exception], str, Any]] = {
    "lengths": (ValueError, "inconsistent numbers of samples", lambda: log_loss([0, 1], LOGITS)),
    "one class": (
        softxent.TensorError,
        "y_true holds 1 class, and logits have 3 columns; say which classes",
        lambda: log_loss([1] * 6, LOGITS),
    ),
    "labels": (
        softxent.TensorError,
        "labels are 2 classes",
        lambda: log_loss(WORDS, LOGITS, labels=["ant", "bee"]),
    ),
    "unknown": (
        softxent.LabelError,
        r"y_true must be among labels; 1 is not; rows 1 \(dog\)",
        lambda: log_loss(["ant", "dog", *WORDS[2:]], LOGITS, labels=["ant", "bee", "cat"]),
    ),
    "weights": (
        softxent.WeightError,
        r"rows 0 \(-1.0\)",
        lambda: log_loss(WORDS, LOGITS, sample_weight=[-1, 1, 1, 1, 1, 1]),
    ),
    "no weight": (
        softxent.EmptyReductionError,
        "divides by 0",
        lambda: log_loss(WORDS, LOGITS, sample_weight=np.zeros(6)),
    ),
    "shape": (
        softxent.TensorError,
        r"not \[n, classes\]",
        lambda: log_loss(WORDS, LOGITS[..., None]),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    error, message, call = FAULTS[name]
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)


def test_a_service_gives_the_same_bits(service_url: str) -> None:
    with Client(service_url) as service:
        assert log_loss(WORDS, LOGITS, service=service) == log_loss(WORDS, LOGITS)
