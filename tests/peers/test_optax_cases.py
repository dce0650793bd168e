"""optax's own tests of softmax cross-entropy, with softxent in the place of their functions."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from optax.losses import _classification, _classification_test
from peer_tables import Case, documented, outcome, outcomes

from softxent import cross_entropy
from softxent.errors import NonFiniteError

SUITES = {
    f"`{suite.__name__}`": suite
    for suite in (
        _classification_test.SoftmaxCrossEntropyWithIntegerLabelsTest,
        _classification_test.SoftmaxCrossEntropyTest,
        _classification_test.SafeSoftmaxCrossEntropyTest,
    )
}

_refused: list[str] = []


def evaluate(
    logits: npt.NDArray[Any], target: npt.NDArray[Any], weights: npt.NDArray[Any]
) -> tuple[Any, Any]:
    """Return loss and gradient of a batch; what is refused is noted and evaluated all the same.

    A target has as many dimensions as the logits if it is of probabilities, else one fewer.
    """
    scores, given = np.asarray(logits), np.asarray(target)
    is_soft = given.ndim == scores.ndim
    shape = scores.shape[:-1]
    call = partial(
        cross_entropy,
        scores.reshape(-1, scores.shape[-1]),
        None if is_soft else given.reshape(-1),
        target_probabilities=given.reshape(-1, scores.shape[-1]) if is_soft else None,
        row_weights=np.asarray(weights, np.float64).reshape(-1),
    )
    try:
        result = call()
    except NonFiniteError:
        _refused.append("a label that `where` leaves out")
        result = call(non_finite="propagate")
    assert result.gradient is not None
    return np.asarray(result.loss).reshape(shape), result.gradient.reshape(scores.shape)


def _called(logits: Any, labels: Any, weights: Any) -> Any:
    shapes = (
        jax.ShapeDtypeStruct(logits.shape[:-1], logits.dtype),
        jax.ShapeDtypeStruct(logits.shape, logits.dtype),
    )
    return jax.pure_callback(evaluate, shapes, logits, labels, weights)


@jax.custom_jvp  # type: ignore[untyped-decorator]
def rows_loss(logits: Any, labels: Any, weights: Any) -> Any:
    """softxent's loss as a function that JAX differentiates by softxent's gradient."""
    return _called(logits, labels, weights)[0]


@rows_loss.defjvp  # type: ignore[untyped-decorator]
def _rows_loss_jvp(primals: Any, tangents: Any) -> Any:
    loss, gradient = _called(*primals)
    return loss, (gradient * tangents[0]).sum(-1)


def with_integer_labels(logits: Any, labels: Any, axis: Any = -1, where: Any = None) -> Any:
    """Move the class axes last, turn `where` into weights of rows and logits of -inf."""
    labels = jnp.asarray(labels)
    return with_classes_last(logits, axis, where, lambda _: labels)


def with_classes_last(logits: Any, axis: Any, where: Any, target_of: Callable[[Any], Any]) -> Any:
    """Evaluate logits with the class axes last; `target_of` returns the target for those axes."""
    logits = jnp.asarray(logits)
    axes = tuple(each % logits.ndim for each in ((axis,) if isinstance(axis, int) else axis))
    others = [size for i, size in enumerate(logits.shape) if i not in axes]
    weights = jnp.ones(others)
    if where is not None and where.ndim == logits.ndim:
        weights = jnp.any(where, axes)
        logits = jnp.where(where, logits, -jnp.inf)
    elif where is not None:
        weights = where
    scores = classes_last(logits, axes)
    return rows_loss(scores, target_of(axes), weights.astype(jnp.float32))


def classes_last(array: Any, axes: tuple[int, ...]) -> Any:
    others = tuple(axis for axis in range(array.ndim) if axis not in axes)
    moved = array.transpose(others + axes)
    return moved.reshape((*moved.shape[: len(others)], -1))


def with_probabilities(
    theirs: Callable[..., Any], logits: Any, labels: Any, axis: Any = -1, where: Any = None
) -> Any:
    """Evaluate targets of probabilities; note what is refused, and leave it to theirs."""
    if isinstance(labels, jax.core.Tracer):
        _refused.append("a derivative by the target")
        return theirs(logits, labels, axis=axis, where=where)
    target = jnp.asarray(labels)
    if (target < 0).any():
        _refused.append("a probability below 0")
        return theirs(logits, labels, axis=axis, where=where)
    if where is not None and where.ndim == target.ndim:
        target = jnp.where(where, target, 0)
    return with_classes_last(logits, axis, where, lambda axes: classes_last(target, axes))


def safe(theirs: Callable[..., Any], logits: Any, labels: Any) -> Any:
    return with_probabilities(lambda *given, **_: theirs(*given), logits, labels)


def run(suite: type[unittest.TestCase], name: str) -> Iterator[str]:
    _refused.clear()
    np.random.seed(0)
    plain = _classification.softmax_cross_entropy
    guarded = _classification.safe_softmax_cross_entropy
    stand_ins = {
        "softmax_cross_entropy_with_integer_labels": with_integer_labels,
        "softmax_cross_entropy": partial(with_probabilities, plain),
        "safe_softmax_cross_entropy": partial(safe, guarded),
    }
    with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
        for function, stand_in in stand_ins.items():
            patch.setattr(_classification, function, stand_in)
        suite(name).debug()
    yield from _refused


def of(suite: type[unittest.TestCase]) -> dict[str, Case]:
    names = unittest.defaultTestLoader.getTestCaseNames(suite)
    return {name: partial(run, suite, name) for name in names}


CASES = {title: of(suite) for title, suite in SUITES.items()}


@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite, cases in CASES.items() for name in cases]
)
def test_case(suite: str, name: str) -> None:
    outcome(CASES[suite][name])


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_else_is_refused(suite: str) -> None:
    assert outcomes(CASES[suite]) == documented(suite)
