"""The objectives for XGBoost and LightGBM: the trees of the built-in ones, and what they add."""

from __future__ import annotations

import json
import pickle
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine

import softxent
import softxent.lightgbm
import softxent.xgboost
from softxent_client import Client

DATA = {"digits": load_digits, "iris": load_iris, "wine": load_wine}
ROUNDS = 5
SCORES = np.random.default_rng(0).normal(size=(6, 4))
LABELS = np.array([0, 1, 2, 3, 1, 0])
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 1.0])
SOFT = softmax(np.random.default_rng(1).normal(size=(6, 4)), axis=1)


def weights_of(y: Any) -> Any:
    return np.random.default_rng(0).uniform(0.5, 2.0, len(y))


def xgboost_trees(objective: Any, x: Any, y: Any, weights: Any) -> list[Any]:
    data = xgboost.DMatrix(x, label=y, weight=weights)
    parameters: dict[str, Any] = {
        "num_class": len(set(y)),
        "base_score": 0.5,
        "max_depth": 4,
        "nthread": 1,
    }
    if isinstance(objective, str):
        parameters["objective"] = objective
        objective = None
    booster = xgboost.train(parameters, data, ROUNDS, obj=objective)
    return [json.loads(tree) for tree in booster.get_dump(dump_format="json", with_stats=True)]


def lightgbm_trees(objective: Any, x: Any, y: Any, weights: Any) -> list[Any]:
    parameters = {
        "objective": objective,
        "num_class": len(set(y)),
        "boost_from_average": False,
        "num_threads": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, y, weight=weights), ROUNDS)
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


def assert_same_tree(ours: Any, theirs: Any) -> None:
    """Compare structure and splits to the bit, and all other numbers within rounding."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, dict):
            assert_same_tree(ours[name], value)
        elif isinstance(value, list):
            for one, other in zip(ours[name], value, strict=True):
                assert_same_tree(one, other)
        elif name in ("split", "split_feature", "split_condition", "threshold", "nodeid"):
            assert ours[name] == value
        elif isinstance(value, float):
            assert ours[name] == pytest.approx(value, rel=2e-4, abs=2e-4)
        else:
            assert ours[name] == value


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_xgboosts_trees(name: str, weighted: bool) -> None:
    x, y = DATA[name](return_X_y=True)
    weights = weights_of(y) if weighted else None
    ours = xgboost_trees(softxent.xgboost.SoftmaxObjective(), x, y, weights)
    theirs = xgboost_trees("multi:softprob", x, y, weights)
    assert len(ours) == len(theirs) == ROUNDS * len(set(y))
    for one, other in zip(ours, theirs, strict=True):
        assert_same_tree(one, other)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_lightgbms_trees(name: str, weighted: bool) -> None:
    x, y = DATA[name](return_X_y=True)
    weights = weights_of(y) if weighted else None
    ours = lightgbm_trees(softxent.lightgbm.SoftmaxObjective(), x, y, weights)
    theirs = lightgbm_trees("multiclass", x, y, weights)
    assert len(ours) == len(theirs) == ROUNDS * len(set(y))
    for one, other in zip(ours, theirs, strict=True):
        assert_same_tree(one, other)


OBJECTIVES: dict[str, tuple[Any, Any]] = {
    "xgboost": (softxent.xgboost.SoftmaxObjective, 2.0),
    "lightgbm": (softxent.lightgbm.SoftmaxObjective, 4 / 3),
}
TARGETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "labels": (np.eye(4)[LABELS], {}),
    "smoothing": (0.9 * np.eye(4)[LABELS] + 0.1 / 4, {"label_smoothing": 0.1}),
    "class weights": (
        np.eye(4)[LABELS] * [1.0, 2.0, 3.0, 4.0],
        {"class_weights": [1.0, 2.0, 3.0, 4.0]},
    ),
    "soft": (SOFT, {"target_probabilities": SOFT}),
}


@pytest.mark.parametrize("library", OBJECTIVES)
@pytest.mark.parametrize("name", TARGETS)
def test_gradient_and_second_derivative(library: str, name: str) -> None:
    make, factor = OBJECTIVES[library]
    target, options = TARGETS[name]
    gradient, second = make(**options)(LABELS.astype(np.float32), SCORES, WEIGHTS)
    p, w = softmax(SCORES, axis=1), WEIGHTS[:, None]
    total = target.sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, w * (total * p - target), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(second, factor * w * total * p * (1 - p), rtol=1e-12)


def test_xgboosts_least_second_derivative() -> None:
    scores = np.array([[200.0, 0.0, 0.0]], np.float32)
    _, second = softxent.xgboost.SoftmaxObjective()(np.array([0.0]), scores)
    assert second.tolist() == [[np.float32(1e-16)] * 3]


def test_scikit_learn_classes() -> None:
    x, y = load_iris(return_X_y=True)
    weights = weights_of(y)
    ours = softxent.xgboost.SoftmaxObjective(label_smoothing=0.1)
    model = xgboost.XGBClassifier(objective=ours, n_estimators=5, n_jobs=1)
    fitted = clone(model).fit(x, y, sample_weight=weights)
    assert (fitted.predict(x) == y).mean() > 0.95
    soft = softxent.lightgbm.SoftmaxObjective(label_smoothing=0.1)
    other = lightgbm.LGBMClassifier(objective=soft, n_estimators=5, n_jobs=1, verbosity=-1)
    scores = other.fit(x, y, sample_weight=weights).predict(x, raw_score=True)
    assert (scores.argmax(1) == y).mean() > 0.95


@pytest.mark.parametrize("library", OBJECTIVES)
def test_objectives_can_be_pickled(library: str) -> None:
    make, _ = OBJECTIVES[library]
    ours = make(label_smoothing=0.1, class_weights=[1, 2, 3, 4])
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301
    for one, other in zip(ours(LABELS, SCORES), again(LABELS, SCORES), strict=True):
        assert np.array_equal(one, other)


ERRORS = {"xgboost": xgboost.core.XGBoostError, "lightgbm": lightgbm.basic.LightGBMError}


@pytest.mark.parametrize("library", OBJECTIVES)
def test_faults_are_the_librarys_own_errors(library: str) -> None:
    make, _ = OBJECTIVES[library]
    refused = r"whole numbers; 1 is not; rows 1 \(0.5\)"
    with pytest.raises(softxent.LabelError, match=refused) as caught:
        make()(np.array([0.0, 0.5]), SCORES[:2])
    assert isinstance(caught.value, ERRORS[library])
    with pytest.raises(ERRORS[library], match=r"\[0, 4\) or be -100; 1 does not; rows 0 \(7\)"):
        make()(np.array([7.0]), SCORES[:1])
    with pytest.raises(ERRORS[library], match="set num_class"):
        make()(np.array([0.0]), SCORES[0])
    with pytest.raises(ERRORS[library], match="label_smoothing must be in"):
        make(label_smoothing=2.0)(LABELS, SCORES)


@pytest.mark.parametrize("library", OBJECTIVES)
def test_a_service_gives_the_same_bits(library: str, service_url: str) -> None:
    make, _ = OBJECTIVES[library]
    with Client(service_url) as service:
        remote = make(label_smoothing=0.1, service=service)(LABELS, SCORES)
    for one, other in zip(make(label_smoothing=0.1)(LABELS, SCORES), remote, strict=True):
        assert np.array_equal(one, other)
