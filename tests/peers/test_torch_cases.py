"""PyTorch's own sample inputs for cross_entropy, evaluated by both and compared."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from peer_tables import Case, assert_near, documented, numbered, outcome, outcomes
from torch.nn.functional import cross_entropy as torchs_cross_entropy
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from softxent import cross_entropy
from softxent.errors import InputError, WeightError
from softxent.results import CrossEntropyResult

ULPS = 4

REASONS: dict[tuple[type[InputError], str], str] = {
    (WeightError, "class_weights"): "a negative class weight; compared with its absolute value",
}

NAMES = {
    "weight": "class_weights",
    "reduction": "reduction",
    "ignore_index": "ignore_index",
    "label_smoothing": "label_smoothing",
}

(OPERATOR,) = (op for op in op_db if op.name == "nn.functional.cross_entropy")
(MODULE,) = (info for info in module_db if info.module_cls is torch.nn.CrossEntropyLoss)


def as_numpy(tensor: Any) -> npt.NDArray[Any]:
    array = tensor.detach()
    if array.dtype == torch.bfloat16:
        return np.asarray(array.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(array.numpy())


def classes_last(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return [..., C] from torch's [N, C, ...]; a row without a batch becomes a batch of one."""
    return logits[None] if logits.ndim == 1 else np.moveaxis(logits, 1, -1)


def ours(logits: Any, target: Any, options: Mapping[str, Any]) -> CrossEntropyResult:
    """Evaluate by softxent what torch would be given; the adapter in full."""
    given = {NAMES[name]: value for name, value in options.items() if value is not None}
    if "class_weights" in given:
        given["class_weights"] = np.asarray(as_numpy(given["class_weights"]), np.float64)
    scores = classes_last(as_numpy(logits))
    given = {"reduction": "mean", **given}
    if target.is_floating_point():
        return cross_entropy(scores, target_probabilities=classes_last(as_numpy(target)), **given)
    return cross_entropy(scores, np.atleast_1d(as_numpy(target)), **given)


def assert_same(logits: Any, target: Any, options: Mapping[str, Any]) -> None:
    """Compare loss and gradient, in ulp of the largest logit and of the row's weight."""
    leaf = logits.detach().requires_grad_()
    theirs = torchs_cross_entropy(leaf, target, **options)
    theirs.sum().backward()
    result = ours(logits, target, options)
    of_loss, of_gradient = magnitudes(logits, target, options)
    step = torch.finfo(logits.dtype).eps
    loss = np.reshape(np.asarray(result.loss, np.float64), tuple(theirs.shape))
    assert_near(loss, as_numpy(theirs), of_loss.reshape(loss.shape), step, ULPS)
    assert_near(result.gradient, classes_last(as_numpy(leaf.grad)), of_gradient, step, ULPS)


def magnitudes(
    logits: Any, target: Any, options: Mapping[str, Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what errors of loss and gradient are in proportion to."""
    scores = classes_last(as_numpy(logits)).astype(np.float64)
    classes = scores.shape[-1]
    weight = options.get("weight")
    weights = np.ones(classes) if weight is None else as_numpy(weight).astype(np.float64)
    smoothing = options.get("label_smoothing", 0.0)
    if target.is_floating_point():
        own = (classes_last(as_numpy(target)).astype(np.float64) * weights).sum(-1)
        rows, taken = float(own.size), np.ones(own.shape)
    else:
        labels = as_numpy(target).reshape(scores.shape[:-1])
        taken = (labels != options.get("ignore_index", -100)).astype(np.float64)
        own = np.where(taken, weights[labels], 0)
        rows = own.sum()
    total = (1 - smoothing) * own + taken * smoothing * weights.mean()
    of_loss = total * (2 * np.abs(scores).max(-1) + np.log(classes))
    reduction = options.get("reduction", "mean")
    divisor = (rows if reduction == "mean" else 1.0) or 1.0
    reduced = of_loss if reduction == "none" else of_loss.sum() / divisor
    return np.asarray(reduced), (total / divisor)[..., None]


def run(logits: Any, target: Any, options: Mapping[str, Any]) -> Iterator[str]:
    try:
        ours(logits, target, options)
    except InputError as error:
        yield REASONS[type(error), str(error.field)]
        if isinstance(error, WeightError):
            assert_same(logits, target, {**options, "weight": options["weight"].abs()})
    else:
        assert_same(logits, target, options)


def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)


def of_operator() -> dict[str, Case]:
    """The samples of the operator, for every dtype it takes."""
    names, cases = [], []
    for dtype in sorted(OPERATOR.dtypes, key=str):
        seeded()
        for sample in OPERATOR.sample_inputs_func(OPERATOR, "cpu", dtype, False):
            names.append(f"{dtype}-{list(sample.input.shape)}-{'-'.join(sample.kwargs)}")
            cases.append(partial(run, sample.input, sample.args[0], sample.kwargs))
    return dict(zip(numbered(names), cases, strict=True))


def of_module() -> dict[str, Case]:
    """The samples of the module, for every dtype it takes."""
    names, cases = [], []
    for dtype in sorted(MODULE.dtypes, key=str):
        seeded()
        for sample in MODULE.module_inputs_func(
            MODULE, device="cpu", dtype=dtype, requires_grad=False, training=True
        ):
            options = sample.constructor_input.kwargs
            names.append(f"{dtype}-{sample.desc}")
            logits, target = sample.forward_input.args
            cases.append(partial(run, logits, target, options))
    return dict(zip(numbered(names), cases, strict=True))


OF_OPERATOR, OF_MODULE = of_operator(), of_module()


@pytest.mark.parametrize("name", OF_OPERATOR)
def test_sample_of_the_operator(name: str) -> None:
    outcome(OF_OPERATOR[name])


@pytest.mark.parametrize("name", OF_MODULE)
def test_sample_of_the_module(name: str) -> None:
    outcome(OF_MODULE[name])


def test_nothing_else_is_refused() -> None:
    assert outcomes(OF_OPERATOR) == documented("`nn.functional.cross_entropy`, `op_db`")
    assert outcomes(OF_MODULE) == documented("`nn.CrossEntropyLoss`, `module_db`")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_they_refuse_is_refused(dtype: Any) -> None:
    seeded()
    faults = MODULE.module_error_inputs_func(
        MODULE, device="cpu", dtype=dtype, requires_grad=False, training=True
    )
    for fault in faults:
        sample = fault.module_error_input
        logits, target = sample.forward_input.args
        with pytest.raises(InputError):
            ours(logits, target, sample.constructor_input.kwargs)
    assert len(faults) == documented("`nn.CrossEntropyLoss`, inputs with faults")["refused"]
