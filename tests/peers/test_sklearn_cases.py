"""scikit-learn's own tests of its losses, with softxent in the place of their compiled code."""

from __future__ import annotations

import inspect
import itertools
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from peer_tables import Case, assert_near, documented, numbered, outcome, outcomes
from sklearn._loss.loss import HalfMultinomialLoss
from sklearn._loss.tests import test_loss
from sklearn.metrics import log_loss
from sklearn.metrics.tests import test_classification

from softxent import cross_entropy
from softxent.errors import WeightError
from softxent.results import CrossEntropyResult

ULPS = 4
SEED = 42

_refused: list[str] = []
_calls: list[str] = []


class Kernels:
    """What HalfMultinomialLoss calls; each call goes to both, is compared, and gets our numbers."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs

    def loss(self, **given: Any) -> None:
        self._both("loss", given)

    def gradient(self, **given: Any) -> None:
        self._both("gradient", given)

    def loss_gradient(self, **given: Any) -> None:
        self._both("loss_gradient", given)

    def gradient_proba(self, **given: Any) -> None:
        self._both("gradient_proba", given)

    def gradient_hessian(self, **given: Any) -> None:
        self._both("gradient_hessian", given)

    def _test_cy_gradient(self, **given: Any) -> Any:
        _calls.append("_test_cy_gradient")
        return self.theirs._test_cy_gradient(**given)

    def _both(self, name: str, given: dict[str, Any]) -> None:
        _calls.append(name)
        getattr(self.theirs, name)(**given)
        weights = given.get("sample_weight")
        try:
            result = evaluate(given["y_true"], given["raw_prediction"], weights)
        except WeightError:
            _refused.append("a negative row weight; compared with its absolute value")
            compare_absolute(self.theirs, given)
            return
        for out, array in results(result).items():
            if given.get(out) is not None:
                near(out, array, given)
                given[out][...] = array


def evaluate(labels: Any, logits: Any, weights: Any) -> CrossEntropyResult:
    return cross_entropy(
        logits,
        labels.astype(np.int64),
        row_weights=weights,
        outputs=("loss", "gradient", "probabilities", "hessian_diagonal"),
    )


def compare_absolute(theirs: Any, given: dict[str, Any]) -> None:
    """Compare loss and gradient under the absolute values of weights that are refused."""
    labels, logits, weights = given["y_true"], given["raw_prediction"], given["sample_weight"]
    positive = {
        "y_true": labels,
        "raw_prediction": logits,
        "sample_weight": np.abs(weights),
        "loss_out": np.empty_like(labels),
        "gradient_out": np.empty_like(logits),
        "n_threads": 1,
    }
    theirs.loss_gradient(**positive)
    result = evaluate(labels, logits, np.abs(weights))
    near("loss_out", result.loss, positive)
    near("gradient_out", result.gradient, positive)


def results(result: CrossEntropyResult) -> dict[str, Any]:
    return {
        "loss_out": result.loss,
        "gradient_out": result.gradient,
        "hessian_out": result.hessian_diagonal,
        "proba_out": result.probabilities,
    }


def near(out: str, ours: Any, given: Mapping[str, Any]) -> None:
    """Compare in ulp of a row's largest logit for a loss, of its weight for a gradient."""
    logits, theirs, weights = given["raw_prediction"], given[out], given["sample_weight"]
    weights = np.ones(len(logits)) if weights is None else weights
    sizes = {
        "loss_out": weights * (2 * np.abs(logits).max(axis=1) + np.log(logits.shape[1])),
        "gradient_out": weights[:, None],
        "hessian_out": weights[:, None],
        "proba_out": 1.0,
    }
    step = max(np.finfo(logits.dtype).eps, np.finfo(theirs.dtype).eps)
    assert_near(ours, theirs, sizes[out], float(step), ULPS)


def loss_of_ours(*given: Any, **options: Any) -> Any:
    """Make a HalfMultinomialLoss that computes by softxent."""
    loss = HalfMultinomialLoss(*given, **options)
    loss.closs = Kernels(loss.closs)
    return loss


def log_loss_of_both(y_true: Any, y_proba: Any = None, **options: Any) -> Any:
    """Compare with log_loss: their clipped probabilities are our logits' exponentials."""
    _calls.append("log_loss")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        theirs = log_loss(y_true, y_proba, **options)
    for warning in seen:
        warnings.warn_explicit(warning.message, warning.category, "log_loss", 1)
    if any("sum to one" in str(warning.message) for warning in seen):
        _refused.append("probabilities that do not sum to one")
    elif y_proba is not None:
        compare_log_loss(theirs, y_true, y_proba, **options)
    return theirs


def compare_log_loss(
    theirs: Any,
    y_true: Any,
    y_proba: Any,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> None:
    shares = np.asarray(y_proba)
    shares = shares.astype(np.float64) if shares.dtype.kind != "f" else shares
    if shares.ndim == 1:
        shares = np.stack([1 - shares, shares], axis=1)
    step = np.finfo(shares.dtype).eps
    logits = np.log(np.clip(shares, step, 1 - step))
    kinds = np.unique(np.asarray(y_true) if labels is None else np.asarray(labels))
    ours = cross_entropy(
        logits,
        np.searchsorted(kinds, np.asarray(y_true)),
        row_weights=sample_weight,
        reduction="mean" if normalize else "sum",
    ).loss
    size = np.abs(logits).max() * (1 if normalize else len(logits))
    assert_near(ours, theirs, size, float(step), ULPS)


def argument_sets(test: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """The arguments a test of theirs is run with: the products of its parametrisations."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    choices = []
    for mark in marks:
        names = [name.strip() for name in mark.args[0].split(",")]
        rows = [value.values if hasattr(value, "values") else value for value in mark.args[1]]
        rows = [row if len(names) > 1 or hasattr(row, "_fields") else (row,) for row in rows]
        choices.append([dict(zip(names, row, strict=True)) for row in rows])
    fixed = {"global_random_seed": SEED} if "global_random_seed" in parameters(test) else {}
    for chosen in itertools.product(*choices):
        yield {**fixed, **{name: value for part in chosen for name, value in part.items()}}


def parameters(test: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(test).parameters)


def replaced(value: Any) -> Any:
    """Put ours in the place of a HalfMultinomialLoss, the class or one of it."""
    if value is HalfMultinomialLoss:
        return loss_of_ours
    if isinstance(value, HalfMultinomialLoss):
        return loss_of_ours(n_classes=value.n_classes)
    return value


def run(module: Any, name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Run one test of theirs; a case that never evaluates the loss, or skips itself, says so."""
    _refused.clear()
    _calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HalfMultinomialLoss", loss_of_ours, raising=False)
        patch.setattr(module, "log_loss", log_loss_of_both, raising=False)
        try:
            getattr(module, name)(**{key: replaced(value) for key, value in arguments.items()})
        except (pytest.skip.Exception, unittest.SkipTest):
            yield "skips itself, for want of an array API"
            return
    if not _calls:
        yield "does not evaluate the loss"
    yield from _refused


def concerns_the_loss(test: Callable[..., Any], arguments: Mapping[str, Any]) -> bool:
    names = test.__code__.co_names
    given = any(replaced(value) is not value for value in arguments.values())
    return given or bool({"HalfMultinomialLoss", "log_loss"} & set(names))


def of(module: Any) -> dict[str, Case]:
    names, cases = [], []
    tests = [(name, test) for name, test in vars(module).items() if name.startswith("test_")]
    for name, test in tests:
        for arguments in argument_sets(test):
            if concerns_the_loss(test, arguments):
                names.append(name)
                cases.append(partial(run, module, name, arguments))
    return dict(zip(numbered(names), cases, strict=True))


SUITES = {"`HalfMultinomialLoss`": of(test_loss), "`log_loss`": of(test_classification)}


@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite, cases in SUITES.items() for name in cases]
)
def test_case(suite: str, name: str) -> None:
    outcome(SUITES[suite][name])


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_else_is_refused(suite: str) -> None:
    assert outcomes(SUITES[suite]) == documented(suite)
