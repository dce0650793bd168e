"""docs/conventions.md is executed: each call of another library, and ours beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
import pytest
import scipy.special
import torch
from peer_tables import assert_near, code, tables
from sklearn._loss.loss import HalfMultinomialLoss
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from softxent import (
    cross_entropy,
    hessian_vector_product,
    log_softmax,
    logsumexp,
    softmax,
)
from softxent.results import CrossEntropyResult

ULPS = 4
DTYPES = ("float32", "float64")
N, C = 7, 5


@dataclass(frozen=True)
class Library:
    """What the expressions of one section may name, and its own kind of array."""

    array: Callable[[Any], Any]
    names: Mapping[str, Any]
    grad: Callable[..., Any] | None = None


LIBRARIES = {
    "PyTorch": Library(
        torch.tensor, {"torch": torch, "F": torch.nn.functional, "nn": torch.nn}, torch.func.grad
    ),
    "optax": Library(jnp.asarray, {"optax": optax, "jax": jax, "jnp": jnp}, jax.grad),
    "scikit-learn and SciPy": Library(
        np.asarray,
        {
            "HalfMultinomialLoss": HalfMultinomialLoss,
            "log_loss": log_loss,
            "accuracy_score": accuracy_score,
            "top_k_accuracy_score": top_k_accuracy_score,
            "special": scipy.special,
            "np": np,
        },
    ),
}
OURS = {
    "cross_entropy": cross_entropy,
    "hessian_vector_product": hessian_vector_product,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "softmax": softmax,
    "np": np,
}


def data(dtype: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays the document tells of."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, C, N)
    others = np.random.default_rng(4)
    teacher = others.dirichlet(np.ones(C), N).astype(dtype)
    best = np.argsort(-teacher, axis=1)[:, :2]
    return {
        "logits": rng.uniform(-5, 5, (N, C)).astype(dtype),
        "labels": labels,
        "padded": np.where(np.arange(N) % 3 == 0, -100, labels),
        "w": rng.uniform(0.5, 2, C).astype(dtype),
        "r": rng.uniform(0.5, 2, N).astype(dtype),
        "keep": np.arange(N) % 3 > 0,
        "allowed": (rng.uniform(size=(N, C)) < 0.6) | (labels[:, None] == np.arange(C)),
        "teacher": teacher,
        "best": best,
        "logs": np.log(np.take_along_axis(teacher, best, axis=1)),
        "directions": others.uniform(-1, 1, (N, C)).astype(dtype),
        "images": rng.uniform(-5, 5, (2, C, 3, 4)).astype(dtype),
        "pixels": rng.integers(0, C, (2, 3, 4)),
        "cells": rng.integers(0, 12, (2, C)),
        "one_row": rng.uniform(-5, 5, C).astype(dtype),
        "one_label": np.array(2),
        "words": np.array(["ant", "bee", "cat", "dog", "elk"])[labels],
    }


def arrays(library: Library, dtype: str) -> dict[str, Any]:
    numeric = {name: value for name, value in data(dtype).items() if value.dtype.kind != "U"}
    return {
        **data(dtype),
        **{name: library.array(value) for name, value in numeric.items()},
    }


def rows_of(columns: int, *sections: str) -> list[tuple[str, list[str]]]:
    return [(section, row) for section in sections for row in tables(section, columns)]


LINES = [(section, code(theirs), code(ours)) for section, (theirs, ours) in rows_of(2, *LIBRARIES)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("section", "theirs", "ours"), LINES)
def test_both_calls_give_one_number(section: str, theirs: str, ours: str, dtype: str) -> None:
    library = LIBRARIES[section]
    with jax.enable_x64(True):
        names = {**library.names, **arrays(library, dtype)}
        value = eval(theirs, names)
        gradient = gradient_of(library, theirs, names)
    result = eval(ours, {**OURS, **data(dtype)})
    size = max(np.abs(data(dtype)["logits"]).max(), np.abs(as_numpy(first(value))).max())
    step = float(np.finfo(dtype).eps)
    if not isinstance(result, CrossEntropyResult):
        assert_near(result, as_numpy(value), size, step, ULPS)
        return
    assert_near(
        np.reshape(np.asarray(result.loss), as_numpy(first(value)).shape),
        as_numpy(first(value)),
        size,
        step,
        ULPS,
    )
    if gradient is not None:
        assert result.gradient is not None
        moved = as_laid_out(gradient, result.gradient.shape)
        assert_near(result.gradient, moved, np.abs(moved).max(), step, ULPS)


def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def as_numpy(value: Any) -> npt.NDArray[np.float64]:
    return np.asarray(value, np.float64)


def gradient_of(library: Library, theirs: str, names: Mapping[str, Any]) -> Any:
    """Their gradient: by their automatic differentiation, or the second result."""
    if library.grad is None:
        value = eval(theirs, dict(names))
        return as_numpy(value[1]) if isinstance(value, tuple) else None
    name = next(name for name in ("images", "one_row", "logits") if name in theirs)

    def scalar(array: Any) -> Any:
        return eval(theirs, {**names, name: array}).sum()

    return as_numpy(library.grad(scalar)(names[name]))


def as_laid_out(
    gradient: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return their gradient with the class axis last, as ours has it."""
    moved = np.moveaxis(gradient, 1, -1) if gradient.ndim > 2 else gradient
    return moved if moved.shape == shape else gradient.reshape(shape)


def row(library: Library | None) -> Callable[..., Any]:
    """`row(20, 0)` of the document: one row of float32 logits in a library's kind of array."""
    array = np.asarray if library is None else library.array
    return lambda *logits: array(np.array([logits], np.float32))


def label(library: Library | None) -> Callable[..., Any]:
    array = np.asarray if library is None else library.array
    return lambda *labels: array(np.array(labels, np.int64))


def shown(expression: str, names: Mapping[str, Any]) -> str:
    """What an expression gives, as the document writes it: a number or the name of an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = np.asarray(eval(expression, dict(names)), np.float64)
    except Exception as error:
        return type(error).__name__
    if value.size == 1:
        return f"{value.item():.5g}"
    return "[" + ", ".join(f"{number:.5g}" for number in value.ravel()) + "]"


DIFFERENCES = [
    (section, code(theirs), code(gives), code(ours), code(ours_gives))
    for section, (theirs, gives, ours, ours_gives, _) in rows_of(
        5, *(f"Differences: {section}" for section in LIBRARIES)
    )
]


@pytest.mark.parametrize(("section", "theirs", "gives", "ours", "ours_gives"), DIFFERENCES)
def test_differences_are_as_told(
    section: str, theirs: str, gives: str, ours: str, ours_gives: str
) -> None:
    library = LIBRARIES[section.removeprefix("Differences: ")]
    names = {**library.names, "row": row(library), "label": label(library), "grad": library.grad}
    assert shown(theirs, names) == gives
    assert shown(ours, {**OURS, "row": row(None), "label": label(None)}) == ours_gives
    assert gives != ours_gives


def test_every_section_has_lines() -> None:
    assert {section for section, *_ in LINES} == set(LIBRARIES)
    assert {section for section, *_ in DIFFERENCES} == {
        f"Differences: {name}" for name in LIBRARIES
    }
